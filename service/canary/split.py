"""Which requests a canary takes: a share of the end users, by a hash that nothing but the request decides.

    sha256(JSON [version, tenant, subject]), its first 8 bytes as a fraction of 2^64, below the share ──► candidate

One subject (end user, or request where none is named) stays on one side for the whole canary and in all its languages,
after a restart and on every node. The version is part of the hash, so another canary takes other people.
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass

from agent.language import primary_code
from agent.ports import Audience


@dataclass(frozen=True, slots=True)
class Split:
    """The candidate and who gets it."""

    version: int
    share: float
    """Of the subjects, in (0, 1)."""
    languages: Collection[str]
    """Languages that take part; requests in others never get the candidate."""

    def concerns(self, audience: Audience) -> bool:
        """Whether the request takes part, on either side."""
        return primary_code(audience.language) in self.languages

    def takes(self, audience: Audience) -> bool:
        """Whether the candidate answers the request."""
        return self.concerns(audience) and fraction(self.version, audience) < self.share


def fraction(version: int, audience: Audience) -> float:
    """Where the subject lies in [0, 1); evenly spread over subjects."""
    key = json.dumps([version, audience.tenant, audience.subject]).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8]) / 2**64
