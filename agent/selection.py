"""Which logged prompts one step may still claim: caps by tenant and end user, and what the run has claimed before.

    run's tally ──► Selection of a step ──► every claim of that step ──► passed over, by reason

Knows no store: a journal asks it about each episode that it could hand out.
"""

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum

from agent.brief import Brief
from agent.episode import Episode


class PassedOver(StrEnum):
    """Why a logged prompt was not claimed."""

    TENANT_CAPPED = "tenant_capped"
    """Its tenant has its share of the step. A tenant is counted once per claim and language, not once per prompt."""
    END_USER_CAPPED = "end_user_capped"
    """The person behind it has their share of the step."""
    DUPLICATE = "duplicate"
    """The same prompt was claimed earlier in the run."""


class Selection:
    """What the claims of one step have taken, and what they may take.

    A prompt is its token ids, whoever sent it. It is taken once in a step, and a prompt that the run has taken before
    only after those that it has not.
    """

    def __init__(
        self,
        *,
        per_tenant: int | None = None,
        per_end_user: int | None = None,
        tally: Counter[str] | None = None,
        tenant: str | None = None,
    ) -> None:
        """Begin a step.

        Args:
            per_tenant: most prompts of one tenant; None sets no cap.
            per_end_user: most prompts of one end user of one tenant; requests that name none are not capped.
            tally: the run's, which this step adds to: how often each prompt digest was taken.
            tenant: whose prompts alone may be claimed; None is all tenants'.
        """
        self._tenant = tenant
        self._per_tenant, self._per_end_user = per_tenant, per_end_user
        self._tally: Counter[str] = Counter() if tally is None else tally
        self._digests: set[str] = set()
        self._tenants: Counter[str] = Counter()
        self._end_users: Counter[tuple[str, str]] = Counter()
        self._passed_over: Counter[PassedOver] = Counter()

    @property
    def passed_over(self) -> Mapping[str, int]:
        """How many were passed over so far, by reason."""
        return {reason.value: count for reason, count in self._passed_over.items()}

    @property
    def num_prompts(self) -> int:
        """Different prompts that the run has taken."""
        return len(self._tally)

    def admits(self, tenant: str) -> bool:
        """Whether prompts of this tenant may be claimed at all; those of others are left as they are."""
        return self._tenant is None or tenant == self._tenant

    def has_room(self, tenant: str) -> bool:
        """False once the tenant has its share of the step."""
        return self._per_tenant is None or self._tenants[tenant] < self._per_tenant

    def times_taken(self, digest: str) -> int:
        """How often the run has taken that prompt."""
        return self._tally[digest]

    def holds(self, digest: str) -> bool:
        """Whether this step has taken that prompt."""
        return digest in self._digests

    def flaw_of_fresh(self, episode: Episode) -> PassedOver | None:
        """Why an episode that was never handed out is not taken; None when it may be."""
        if self.times_taken(episode.prompt_digest) > 0:
            return PassedOver.DUPLICATE
        return self.flaw_of_repeated(episode)

    def flaw_of_repeated(self, episode: Episode) -> PassedOver | None:
        """As flaw_of_fresh, for a prompt that may have been taken earlier in the run, but not in this step."""
        if self.holds(episode.prompt_digest):
            return PassedOver.DUPLICATE
        if not self.has_room(episode.brief.tenant):
            return PassedOver.TENANT_CAPPED
        person = _person(episode.brief)
        if self._per_end_user is not None and person is not None and self._end_users[person] >= self._per_end_user:
            return PassedOver.END_USER_CAPPED
        return None

    def pass_over(self, reason: PassedOver) -> None:
        """Count one that was not taken."""
        self._passed_over[reason] += 1

    def take(self, episode: Episode) -> None:
        """Count an episode that is handed out."""
        self._tally[episode.prompt_digest] += 1
        self._count(episode, 1)
        self._digests.add(episode.prompt_digest)

    def give_back(self, episode: Episode) -> None:
        """The step makes no use of an episode that it took: its place is free. The run's tally keeps it."""
        self._count(episode, -1)
        self._digests.discard(episode.prompt_digest)

    def _count(self, episode: Episode, change: int) -> None:
        self._tenants[episode.brief.tenant] += change
        if (person := _person(episode.brief)) is not None:
            self._end_users[person] += change


def share_of(num_prompts: int, share: float) -> int | None:
    """A share of a step's prompts as a cap, rounded down but 1 at the least; None for the whole.

    The smallest float above an exact product must not lose a prompt: 0.29 * 100 is 28.999…
    """
    return None if share >= 1 else max(1, int(share * num_prompts + 1e-9))


def _person(brief: Brief) -> tuple[str, str] | None:
    return None if brief.end_user is None else (brief.tenant, brief.end_user)
