"""The ledger on a real Valkey."""

import asyncio
import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.errors import NotFound, StoreError
from service.config import StoreConfig
from service.ledger import Ledger
from service.store import Store, open_store
from service.stored_record import RecordCodec
from tests.service.gate_reports import gate_report
from trainer.records import Evaluation, ParityReport, PolicyRecord, RunRequest, RunState, RunStatus, StepReport

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
POLICY = PolicyRecord(
    version=1,
    method="adapter",
    parent=0,
    run_id="run-1",
    created_at=NOW,
    sha256="ab" * 32,
    parity=ParityReport(num_tokens=64, mean=0.01, max=0.2),
    evaluation=Evaluation(
        1, 0, 0.5, 0.25, {"pl": (0.5, 0.25)}, {"pl": (1.0, 0.75)}, {}, gate_report(("pl", "reward", 0.25))
    ),
)
STEP = StepReport(1, 1, 8, 100, 0.5, 0.1, {"pl": 0.5}, {"fidelity": 1.0}, {}, 0.1, 1.0, 0.0, 0.9, 0.01, 1, 1, 1, 1)
RUN = RunStatus("run-1", RunState.RUNNING, RunRequest(("pl",), seed=3), NOW, None, 20, (STEP,), (1,), None, None)


async def test_versions_rise_across_restarts(tmp_path: Path) -> None:
    """Versions are 1, 2, 3, … and go on where they were after a restart."""
    async with open_store(StoreConfig(), tmp_path) as store:
        ledger = Ledger(store)
        assert [await ledger.next_version() for _ in range(2)] == [1, 2]
    async with open_store(StoreConfig(), tmp_path) as store:
        assert await Ledger(store).next_version() == 3


async def test_version_is_given_out_once(store: Store) -> None:
    """Two callers at the same time get different versions."""
    ledger = Ledger(store)
    versions = await asyncio.gather(*(ledger.next_version() for _ in range(20)))
    assert sorted(versions) == list(range(1, 21))


async def test_policies_on_disk_are_not_overwritten_after_a_lost_store(store: Store) -> None:
    """A fresh store beside a folder with policies up to 7 goes on with 8; a lower figure takes nothing back."""
    ledger = Ledger(store)
    await ledger.begin(NOW, last_version=7)
    assert await ledger.next_version() == 8
    await ledger.begin(NOW, last_version=3)
    assert await ledger.next_version() == 9


async def test_policies_come_back_newest_first_with_the_base_model_last(store: Store) -> None:
    """Rows come back as they were written; the base model's row is made once, at the first start."""
    ledger = Ledger(store)
    await ledger.begin(NOW)
    await ledger.record(POLICY)
    await ledger.record(replace(POLICY, version=2, parent=1))
    await ledger.begin(NOW + timedelta(days=1))
    base = PolicyRecord(0, "base", None, None, NOW, None, None, None)
    assert await ledger.policies() == [replace(POLICY, version=2, parent=1), POLICY, base]
    assert await ledger.policy(1) == POLICY
    with pytest.raises(NotFound, match="no policy 3"):
        await ledger.policy(3)


async def test_row_is_never_changed(store: Store) -> None:
    """Writing the same row again is harmless; another row of the same version is refused."""
    ledger = Ledger(store)
    await ledger.record(POLICY)
    await ledger.record(POLICY)
    with pytest.raises(StoreError, match="rows are never changed"):
        await ledger.record(replace(POLICY, sha256="cd" * 32))
    assert await ledger.policies() == [POLICY]


async def test_active_version_is_the_base_until_set(store: Store) -> None:
    """A node that never published serves the base model; what was set is what the next start serves."""
    ledger = Ledger(store)
    assert await ledger.active_version() == 0
    await ledger.set_active_version(4)
    assert await Ledger(store).active_version() == 4


async def test_run_is_its_latest_status(store: Store) -> None:
    """Saving a run again replaces its status; runs come back newest first."""
    ledger = Ledger(store)
    later = replace(RUN, id="run-2", started_at=NOW + timedelta(minutes=1))
    await ledger.save_run(later)
    await ledger.save_run(RUN)
    done = replace(RUN, state=RunState.SUCCEEDED, ended_at=NOW + timedelta(seconds=9), evaluation=POLICY.evaluation)
    await ledger.save_run(done)
    assert await ledger.runs() == [later, done]
    assert await ledger.run("run-1") == done
    with pytest.raises(NotFound, match="no tuning run 'run-9'"):
        await ledger.run("run-9")


async def test_report_of_a_failed_step_survives(store: Store) -> None:
    """A loss that is not a number is kept as it is, not turned into a number or lost."""
    ledger = Ledger(store)
    await ledger.save_run(replace(RUN, steps=(replace(STEP, loss=math.nan, grad_norm=math.inf),)))
    (step,) = (await ledger.run("run-1")).steps
    assert math.isnan(step.loss)
    assert step.grad_norm == math.inf


async def test_old_runs_are_let_go(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many runs are kept, the newest ones."""
    monkeypatch.setattr("service.ledger.RUNS_KEPT", 2)
    ledger = Ledger(store)
    for minute in range(4):
        await ledger.save_run(replace(RUN, id=f"run-{minute}", started_at=NOW + timedelta(minutes=minute)))
    assert [run.id for run in await ledger.runs()] == ["run-3", "run-2"]


async def test_run_that_was_left_running_is_interrupted(store: Store) -> None:
    """Closed at the next start; one that an operator had told to stop is stopped, finished ones are not touched."""
    ledger = Ledger(store)
    done = replace(RUN, id="run-0", state=RunState.SUCCEEDED, ended_at=NOW)
    await ledger.save_run(done)
    await ledger.save_run(RUN)
    await ledger.save_run(replace(RUN, id="run-2", started_at=NOW - timedelta(hours=1), state=RunState.STOPPING))
    closed = replace(RUN, state=RunState.INTERRUPTED, ended_at=NOW, reason="the node stopped")
    stopped = replace(closed, id="run-2", started_at=NOW - timedelta(hours=1), state=RunState.STOPPED)
    assert await ledger.close_interrupted(NOW, "the node stopped") == [closed, stopped]
    assert await ledger.close_interrupted(NOW, "the node stopped") == []
    assert await ledger.run("run-0") == done


async def test_damaged_row_is_a_store_error(store: Store) -> None:
    """A row that cannot be read is reported as such, without quoting it."""
    await store.redis.hset("node:runs", "run-1", '{"id": "secret text"}')
    with pytest.raises(StoreError, match="a stored RunStatus cannot be read") as caught:
        await Ledger(store).run("run-1")
    assert "secret text" not in str(caught.value)


def test_a_policy_of_an_older_release_is_read() -> None:
    """Its comparison has no report."""
    row = RecordCodec(PolicyRecord).encode(POLICY)
    tree = json.loads(row)
    del tree["evaluation"]["report"]
    old = RecordCodec(PolicyRecord).decode(json.dumps(tree))
    assert POLICY.evaluation is not None
    assert old == replace(POLICY, evaluation=replace(POLICY.evaluation, report=None))


async def test_the_trail_of_active_versions_survives_a_restart(tmp_path: Path) -> None:
    """It ends with the active version; going back shortens it. A store without one begins with what is active."""
    async with open_store(StoreConfig(), tmp_path) as store:
        await store.redis.set("node:policies:active", 2)
        ledger = Ledger(store)
        assert await ledger.trail() == [0, 2]
        for version in (3, 4, 3):
            await ledger.set_active_version(version)
    async with open_store(StoreConfig(), tmp_path) as store:
        assert await Ledger(store).trail() == [0, 2, 3]
        assert await Ledger(store).active_version() == 3


async def test_tenants_own_policies_are_kept(store: Store) -> None:
    """Given, replaced, and taken away."""
    ledger = Ledger(store)
    await ledger.set_tenant_version("acme", 4)
    await ledger.set_tenant_version("zeta", 5)
    await ledger.set_tenant_version("acme", 6)
    assert await ledger.tenant_versions() == {"acme": 6, "zeta": 5}
    await ledger.set_tenant_version("acme", None)
    assert await ledger.tenant_versions() == {"zeta": 5}
