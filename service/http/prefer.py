"""The `Prefer` header of RFC 7240: how long a caller wants to wait. What is not understood is ignored, as it says."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preference:
    """What a caller prefers, within the node's limits."""

    wait_s: float
    """How long the call is held; 0 answers at once."""
    applied: str | None
    """For the header `Preference-Applied`; None when nothing was asked for."""


def preference_of(headers: Sequence[str], *, hold_s: float, max_wait_s: float) -> Preference:
    """What the `Prefer` headers of one call ask for.

    `respond-async` alone is 202 at once; with `wait=N` it is 202 after N seconds, as RFC 7240 section 4.3 has it.

    Args:
        hold_s: how long a call is held that asks for nothing.
        max_wait_s: the longest wait that may be asked for; `hold_s` where that is more.
    """
    asked = dict(reversed(list(_tokens(headers))))  # the first of several of one name counts
    wait_s = _whole_seconds(asked.get("wait"))
    applied = ["respond-async"] if "respond-async" in asked else []
    if wait_s is not None:
        wait_s = min(wait_s, max(hold_s, max_wait_s))
        applied.append(f"wait={wait_s:g}")
    if wait_s is None:
        wait_s = 0.0 if applied else hold_s
    return Preference(wait_s, ", ".join(applied) or None)


def _tokens(headers: Sequence[str]) -> Iterable[tuple[str, str]]:
    for item in ",".join(headers).split(","):
        name, _, value = item.partition(";")[0].partition("=")
        yield name.strip().lower(), value.strip().strip('"')


def _whole_seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else None
