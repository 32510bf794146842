"""A journal as a run for one tenant sees it: held-out prompts are that tenant's. Claims go by the step's selection."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.episode import Episode
from agent.ports import Claim, ClaimingJournal
from agent.selection import Selection


@dataclass(frozen=True, slots=True)
class TenantJournal:
    """A ``ClaimingJournal`` over another one."""

    journal: ClaimingJournal
    tenant: str

    async def append(self, episode: Episode) -> None:
        """See Journal.append."""
        await self.journal.append(episode)

    async def claim(
        self, languages: Sequence[str], num_prompts: int, *, seed: int, selection: Selection | None = None
    ) -> list[Claim]:
        """See ClaimingJournal.claim; without a selection the tenant's prompts alone."""
        chosen = selection or Selection(tenant=self.tenant)
        return await self.journal.claim(languages, num_prompts, seed=seed, selection=chosen)

    async def reclaim(self, handles: Sequence[str]) -> list[Claim]:
        """See ClaimingJournal.reclaim."""
        return await self.journal.reclaim(handles)

    async def settle(self, claims: Sequence[Claim]) -> None:
        """See ClaimingJournal.settle."""
        await self.journal.settle(claims)

    async def held_out(self, languages: Sequence[str], num_prompts: int, *, tenant: str | None = None) -> list[Episode]:
        """See ClaimingJournal.held_out."""
        return await self.journal.held_out(languages, num_prompts, tenant=tenant or self.tenant)
