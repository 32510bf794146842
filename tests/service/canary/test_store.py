"""Trials on a real store."""

from datetime import UTC, datetime

from service.canary.records import Baseline, Kind, Outcome, StoredTrial, TrialRecord
from service.canary.store import RedisTrials
from service.canary.tally import Measure, Side
from service.store import Store

RECORD = TrialRecord("canary-v5-0", Kind.CANARY, 5, 4, ("de", "pl"), datetime(2026, 1, 1, tzinfo=UTC), 0.1)


async def test_a_trial_comes_back_as_it_was(store: Store) -> None:
    """With the sums of both sides; its end leaves the record alone, newest first."""
    trials = RedisTrials(store)
    assert await trials.load() == (None, None)
    side = Side()
    side.count("de")
    side.add("de", Measure.REWARD, 0.25)
    side.add("de", Measure.REWARD, 0.75)
    stored, baseline = StoredTrial(RECORD, side), Baseline(4, side)
    await trials.save(stored, baseline)
    assert await trials.load() == (stored, baseline)
    ended = [
        TrialRecord(
            f"canary-v{version}-0",
            Kind.CANARY,
            version,
            4,
            ("de",),
            RECORD.started_at,
            outcome=Outcome.HARMFUL,
            reason="reward in de",
            ended_at=RECORD.started_at,
        )
        for version in (5, 6)
    ]
    for record in ended:
        await trials.end(record)
    assert await trials.load() == (None, baseline)
    assert list(await trials.ended()) == ended[::-1]


async def test_no_trial_is_kept_where_there_is_none(store: Store) -> None:
    """A save without one removes the one before."""
    trials = RedisTrials(store)
    await trials.save(StoredTrial(RECORD), Baseline(4))
    await trials.save(None, Baseline(5))
    assert await trials.load() == (None, Baseline(5))
