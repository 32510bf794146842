"""Activating and rolling back reward models."""

from pathlib import Path

import pytest

from agent.errors import EngineDead, ModelError, NotFound, RewardModelFailed
from rewards.models.manifest import WEIGHTS, active_version
from rewards.training.report import REPORT
from service.reward_models.activation import ModelActivation
from tests.service.reward_models.desks import Rig


@pytest.fixture
async def rig(tmp_path: Path) -> Rig:
    """German with two accepted versions, the second one active."""
    rig = Rig(tmp_path)
    await rig.train()
    await rig.train()
    return rig


async def test_rolling_back_flips_pointer_and_judges(rig: Rig) -> None:
    """Back, forward, and to none."""
    for version in (1, 2, 0):
        models = await rig.desk.activate("de", version)
        assert models.active == (version or None)
        assert active_version(rig.shelf.root, "de") == (version or None)
    assert rig.loaded.activated == [("de", 1), ("de", 2), ("de", 1), ("de", 2), ("de", 0)]
    assert rig.active[-1].active_accuracy is None


async def test_a_version_that_is_not_loaded_is_not_active(rig: Rig) -> None:
    """The pointer goes back to what still judges."""
    rig.loaded.error = EngineDead("the engine is restarting")
    with pytest.raises(EngineDead):
        await rig.desk.activate("de", 1)
    assert active_version(rig.shelf.root, "de") == 2


async def test_a_damaged_version_is_refused(rig: Rig) -> None:
    """Its digests are checked before anything moves."""
    (rig.shelf.root / "de" / "v1" / WEIGHTS).write_bytes(b"other")
    with pytest.raises(RewardModelFailed, match="must have sha256"):
        await rig.desk.activate("de", 1)
    assert active_version(rig.shelf.root, "de") == 2


async def test_a_damaged_record_does_not_keep_a_node_from_starting(rig: Rig) -> None:
    """Nobody is told of its language; who asks for it hears why."""
    (rig.shelf.root / "de" / "v1" / REPORT).unlink()
    told = len(rig.active)
    ModelActivation(rig.shelf, rig.loaded, rig.active.append).tell()
    assert len(rig.active) == told
    with pytest.raises(ModelError, match="reward model de/v1 has no readable report"):
        rig.shelf.models("de")


async def test_what_does_not_exist_cannot_be_activated(rig: Rig) -> None:
    """A version, or a language that no tenant writes in."""
    with pytest.raises(NotFound, match="there is no reward model 3 of de"):
        await rig.desk.activate("de", 3)
    with pytest.raises(NotFound, match="language must be among de, pl, got xx"):
        await rig.desk.activate("xx", 0)


async def test_every_language_of_a_tenant_is_listed(rig: Rig) -> None:
    """Also one that has no version yet."""
    assert [(models.language, models.active, len(models.versions)) for models in await rig.desk.list()] == [
        ("de", 2, 2),
        ("pl", None, 0),
    ]


async def test_a_started_node_tells_its_metrics(rig: Rig) -> None:
    """What was active when the last node ended still is."""
    again = Rig(rig.root)
    again.activation.tell()
    assert [(models.language, models.active) for models in again.active] == [("de", 2)]
