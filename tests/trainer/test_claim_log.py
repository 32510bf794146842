"""The record of a run's draws: written before anything is sampled, repeated after a crash."""

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from agent.errors import StoreError
from agent.fakes import MemoryJournal
from agent.selection import Selection
from tests.trainer.samples import episode
from trainer.claim_log import Claimed, ClaimLog, Draw

EPISODES = [episode(number) for number in range(1, 9)]


def _line(seed: int, *handles: str) -> str:
    claims = [Claimed(handle, f"digest of {handle}", again=False) for handle in handles]
    return msgspec.json.encode(Draw(seed, tuple(claims), {})).decode() + "\n"


async def _ids(log: ClaimLog, seed: int) -> list[str]:
    return [claim.episode.id for claim in await log.claim(("de",), 2, seed=seed)]


async def test_a_draw_after_the_checkpoint_is_repeated(tmp_path: Path) -> None:
    """Draws 2 and 3 come again by their seeds, in whatever order; draw 1 is settled; draw 4 is new."""
    journal = MemoryJournal(EPISODES)
    log = ClaimLog(journal)
    await log.begin(tmp_path / "run" / "claims.jsonl")
    drawn = {seed: await _ids(log, seed) for seed in (11, 12, 13)}
    assert log.num_draws == 3
    journal.restart()
    journal_grown = MemoryJournal([*EPISODES, episode(0)])
    again = ClaimLog(journal_grown)
    await again.resume(tmp_path / "run" / "claims.jsonl", 1)
    assert journal_grown.settled == set(drawn[11])
    assert await _ids(again, 13) == drawn[13]
    assert await _ids(again, 12) == drawn[12]
    assert not set(await _ids(again, 14)) & {*drawn[12], *drawn[13]}


async def test_a_repeated_draw_is_recorded_again(tmp_path: Path) -> None:
    """A second crash finds it: after three draws, one of them repeated, the record has four."""
    log = ClaimLog(MemoryJournal(EPISODES))
    await log.begin(tmp_path / "claims.jsonl")
    first = [await _ids(log, seed) for seed in (11, 12)]
    for _ in range(2):
        log = ClaimLog(MemoryJournal(EPISODES))
        await log.resume(tmp_path / "claims.jsonl", 1)
        assert await _ids(log, 12) == first[1]
    assert log.num_draws == 4
    assert len((tmp_path / "claims.jsonl").read_text().splitlines()) == 4


async def test_a_line_that_was_cut_off_is_no_draw(tmp_path: Path) -> None:
    """The power went while it was written: nothing had been sampled of it. The next line stands on its own."""
    path = tmp_path / "claims.jsonl"
    path.write_text(_line(1, "de-1") + _line(2, "de-2")[:12])
    log = ClaimLog(MemoryJournal(EPISODES))
    await log.resume(path, 0)
    assert await _ids(log, 1) == ["de-1"]
    assert await _ids(log, 2) == ["de-2", "de-3"]
    lines = path.read_text().splitlines()
    assert [len(msgspec.json.decode(line)["claims"]) for line in lines] == [1, 1, 2]


async def test_a_repeated_draw_counts_in_the_step_as_it_did(tmp_path: Path) -> None:
    """Its prompts are taken in the selection, and what it had passed over is counted again."""
    journal, selection = MemoryJournal(EPISODES[:2]), Selection(per_tenant=1, tally=Counter())
    log = ClaimLog(journal)
    await log.begin(tmp_path / "claims.jsonl")
    first = await log.claim(("de",), 2, seed=2, selection=selection)
    assert len(first) == 1
    assert selection.passed_over == {"tenant_capped": 1}
    repeated, resumed = Selection(per_tenant=1, tally=Counter()), ClaimLog(journal)
    await resumed.resume(tmp_path / "claims.jsonl", 0)
    assert await resumed.claim(("de",), 2, seed=2, selection=repeated) == first
    assert repeated.passed_over == selection.passed_over
    assert repeated.num_prompts == 1
    assert not repeated.has_room(first[0].episode.brief.tenant)


async def test_a_claim_that_came_again_does_so_once_more(tmp_path: Path) -> None:
    """Its completions may have been trained on, so they are no group of their own."""
    journal = MemoryJournal(EPISODES[:1])
    log = ClaimLog(journal)
    await log.begin(tmp_path / "claims.jsonl")
    await log.settle(await log.claim(("de",), 1, seed=1))
    await log.claim(("de",), 1, seed=2)
    resumed = ClaimLog(journal)
    await resumed.resume(tmp_path / "claims.jsonl", 0)
    assert [(await resumed.claim(("de",), 1, seed=seed))[0].again for seed in (1, 2)] == [False, True]


async def test_a_resumed_run_knows_what_it_has_claimed(tmp_path: Path) -> None:
    """Prompts of the draws before the checkpoint, each draw once although a repeated one has two lines."""
    log = ClaimLog(MemoryJournal(EPISODES))
    await log.begin(tmp_path / "claims.jsonl")
    claims = [claim for seed in (11, 12) for claim in await log.claim(("de",), 2, seed=seed)]
    log = ClaimLog(MemoryJournal(EPISODES))
    assert await log.resume(tmp_path / "claims.jsonl", 1) == Counter(c.episode.prompt_digest for c in claims[:2])
    await _ids(log, 12)
    again = await ClaimLog(MemoryJournal(EPISODES)).resume(tmp_path / "claims.jsonl", 3)
    assert again == Counter(claim.episode.prompt_digest for claim in claims)


async def test_episodes_that_are_gone_are_left_out(tmp_path: Path) -> None:
    """The journal keeps so many and no more; the draw goes on with what is left."""
    path = tmp_path / "claims.jsonl"
    path.write_text(_line(1, "de-99", "de-1"))
    log = ClaimLog(MemoryJournal(EPISODES))
    await log.resume(path, 0)
    assert await _ids(log, 1) == ["de-1"]


async def test_without_a_run_nothing_is_recorded(tmp_path: Path) -> None:
    """Before one begins, and after it has ended."""
    log = ClaimLog(MemoryJournal(EPISODES))
    await _ids(log, 1)
    await log.begin(tmp_path / "claims.jsonl")
    log.end()
    await _ids(log, 2)
    assert (tmp_path / "claims.jsonl").read_text() == ""


async def test_a_record_that_cannot_be_written_or_read_is_a_store_error(tmp_path: Path) -> None:
    """Sampling what could not be repeated would make another run of it after a crash."""
    log = ClaimLog(MemoryJournal(EPISODES))
    await log.begin(tmp_path / "run" / "claims.jsonl")
    (tmp_path / "run" / "claims.jsonl").unlink()
    (tmp_path / "run").rmdir()
    with pytest.raises(StoreError, match="the claims of run cannot be recorded"):
        await _ids(log, 1)
    (tmp_path / "damaged.jsonl").write_text("[]\n")
    with pytest.raises(StoreError, match="cannot be read"):
        await log.begin(tmp_path / "damaged.jsonl")
