"""Runs for one tenant alone: what they draw, what they are judged on, and who gets what they publish."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from agent.episode import Episode
from agent.errors import InvalidInput
from agent.fakes import MemoryJournal
from agent.selection import Selection
from tests.trainer.samples import episode
from tests.trainer.tuning import CONFIG, Node
from trainer.config import GateConfig
from trainer.records import PolicyRecord, RunRequest, RunState, RunStatus
from trainer.runs import TuningRuns
from trainer.tenant_journal import TenantJournal
from trainer.trail import continued


def of_tenant(tenant: str, number: int, language: str = "de") -> Episode:
    """An episode whose prompt no other tenant has sent."""
    made = episode(number, language)
    return replace(made, id=f"{tenant}-{language}-{number}", brief=replace(made.brief, tenant=tenant))


EPISODES = [of_tenant("acme", number) for number in range(1, 9)] + [
    of_tenant("zeta", number) for number in range(11, 19)
]


class Releases:
    """Gives a tenant's policy to the tenant, and leaves the others to be activated."""

    def __init__(self) -> None:
        self.own: dict[str, int] = {}
        self.records: list[PolicyRecord] = []

    def version_of(self, tenant: str) -> int | None:
        return self.own.get(tenant)

    async def release(self, record: PolicyRecord) -> bool:
        self.records.append(record)
        if record.tenant is None:
            return False
        self.own[record.tenant] = record.version
        return True


class Rig:
    """A node of fakes whose publisher asks releases."""

    def __init__(self, root: Path, *, gate: bool = False, method: str = "adapter") -> None:
        config = CONFIG.model_copy(update={"method": method, "gate": GateConfig(enabled=gate, num_prompts=4)})
        self.node = Node(root, EPISODES, config=config, held_out_share=0.5 if gate else 0.0)
        self.releases = Releases()
        object.__setattr__(self.node.publisher, "releases", self.releases)
        self.runs = TuningRuns(
            self.node.loop,
            self.node.ledger,
            config,
            ("de",),
            records=self.node.records,
            languages_of=lambda tenant: ("de",) if tenant in {"acme", "zeta"} else (),
        )

    async def ended(self, request: RunRequest) -> RunStatus:
        status = await self.runs.start(request)
        async with asyncio.timeout(10):
            while True:
                status = await self.runs.status(status.id)
                if status.state.final:
                    return status
                await asyncio.sleep(0.005)


async def test_a_tenants_run_draws_its_prompts_and_serves_it_alone(tmp_path: Path) -> None:
    """zeta's prompts stay as fresh as they were; everybody else keeps the active policy; the next run for acme begins
    with what the first one made."""
    rig = Rig(tmp_path)
    status = await rig.ended(RunRequest(tenant="acme"))
    assert (status.state, status.reason) == (RunState.SUCCEEDED, None)
    assert rig.releases.own == {"acme": 3}
    assert rig.node.publisher.active_version == 0
    assert (await rig.node.ledger.policy(3)).tenant == "acme"
    used = {episode_id.partition("-")[0] for episode_id in rig.node.journal.settled}
    assert used == {"acme"}
    await rig.ended(RunRequest(tenant="acme"))
    assert rig.releases.records[-1].parent == 3
    assert rig.node.events.count("begin v3") == 1
    common = await rig.ended(RunRequest())
    assert common.published == (9,)
    assert rig.node.publisher.active_version == 9
    assert rig.releases.records[-1].parent == 0


async def test_the_gate_of_a_tenants_run_asks_that_tenants_prompts(tmp_path: Path) -> None:
    """Held-out prompts of others are not sampled."""
    rig = Rig(tmp_path, gate=True)
    status = await rig.ended(RunRequest(tenant="zeta", steps=1))
    assert status.evaluation is not None, status.reason
    asked = {
        tuple(request.prompt_token_ids) for request in rig.node.engine.requests if "held-out" in request.request_id
    }
    known = {item.prompt_token_ids for item in EPISODES if item.brief.tenant == "zeta"}
    assert asked
    assert asked <= known


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (RunRequest(tenant="nobody"), "must be a tenant of this node, got nobody"),
        (RunRequest(("pl",), tenant="acme"), "must be among de, got pl"),
    ],
)
async def test_a_tenant_that_is_not_there_is_refused(tmp_path: Path, request_: RunRequest, message: str) -> None:
    """And so is a language that it does not have."""
    with pytest.raises(InvalidInput, match=message):
        await Rig(tmp_path).runs.start(request_)


async def test_method_full_tunes_for_all(tmp_path: Path) -> None:
    """There is one copy of the weights."""
    with pytest.raises(InvalidInput, match="one copy of the weights"):
        await Rig(tmp_path, method="full").runs.start(RunRequest(tenant="acme"))


async def test_a_tenants_policy_is_activated_for_nobody_else(tmp_path: Path) -> None:
    """Neither by activation, nor by name, nor by a restart that falls back to older versions."""
    rig = Rig(tmp_path)
    await rig.ended(RunRequest(tenant="acme"))
    publisher = rig.node.publisher
    with pytest.raises(Exception, match="tuned for tenant acme alone"):
        await publisher.activate(3)
    with pytest.raises(Exception, match="no policy 3"):
        await publisher.find_served(3, "zeta")
    assert (await publisher.find_served(3, "acme")).version == 3
    assert [record.version for record in await publisher.served("zeta")] == [0]


async def test_other_tenants_prompts_are_not_even_passed_over() -> None:
    """A selection for one tenant leaves the others' episodes unread."""
    journal = MemoryJournal(EPISODES)
    selection = Selection(tenant="zeta")
    claims = await journal.claim(("de",), 50, seed=1, selection=selection)
    assert {claim.episode.brief.tenant for claim in claims} == {"zeta"}
    assert dict(selection.passed_over) == {}
    alone = TenantJournal(journal, "acme")
    assert {claim.episode.brief.tenant for claim in await alone.claim(("de",), 50, seed=1)} == {"acme"}


@pytest.mark.parametrize(
    ("versions", "trail"),
    [([3], [0, 3]), ([3, 4], [0, 3, 4]), ([3, 4, 3], [0, 3]), ([3, 4, 3, 5, 0], [0]), ([3, 3], [0, 3])],
)
def test_going_back_shortens_the_trail(versions: list[int], trail: list[int]) -> None:
    """So that rolling back twice goes two versions back, not back and forth."""
    made = [0]
    for version in versions:
        made = continued(made, version)
    assert made == trail
