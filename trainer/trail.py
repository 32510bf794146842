"""The versions that were active one after another: where a rollback goes back to."""

from collections.abc import Sequence

_MAX_LENGTH = 100
"""Versions of a trail that are kept, the newest ones."""


def continued(trail: Sequence[int], version: int) -> list[int]:
    """The trail once ``version`` is active.

    A version that it has already is gone back to, and takes what came after it off: rolling back twice goes two
    versions back, not back and forth.
    """
    if version in trail:
        return [*trail[: trail.index(version) + 1]]
    return [*trail, version][-_MAX_LENGTH:]
