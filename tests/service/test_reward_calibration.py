"""When off-the-shelf scorers are calibrated, and by which replies."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from agent.brief import Brief, Kind
from agent.completion import Completion, FinishReason, Sampling, VersionSpan
from agent.contract import LanguageContract
from agent.episode import Episode, PromptRef
from agent.fakes import FixedDetector
from service.reward_calibration import MAX_REPLIES, MIN_REPLIES, RewardCalibrator


class Served:
    """A journal with a number of held-out episodes of each language."""

    def __init__(self, **num_episodes: int) -> None:
        self._num_episodes = num_episodes

    async def held_out(self, languages: Sequence[str], num_prompts: int) -> list[Episode]:
        (language,) = languages
        assert num_prompts == MAX_REPLIES
        return [_episode(language, number) for number in range(self._num_episodes.get(language, 0))]


class Models:
    """Keeps what it was calibrated by."""

    def __init__(self) -> None:
        self.replies: dict[str, list[str]] = {}

    def uncalibrated(self, wanted: Sequence[str]) -> list[str]:
        return [language for language in wanted if language not in self.replies]

    async def calibrate(self, language: str, replies: Sequence[tuple[Brief, str]]) -> None:
        self.replies[language] = [text for _, text in replies]


def _episode(language: str, number: int) -> Episode:
    completions = tuple(
        Completion(text, (1,), (2,), (-0.5,), Sampling(8), FinishReason.STOP, VersionSpan(0, 0))
        for text in ("not served", f"served {number}")
    )
    return Episode(
        f"req_{number}",
        datetime.now(UTC),
        Brief("acme", Kind.CREATE, language, instructions="x"),
        PromptRef("v1", "create", language),
        completions,
        1,
        LanguageContract(FixedDetector({})).judge("", language),
    )


async def test_a_language_with_enough_served_replies_is_calibrated_once() -> None:
    """German has 64, Polish 63; what callers got is what counts."""
    models, served = Models(), Served(de=MIN_REPLIES, pl=MIN_REPLIES - 1)
    calibrator = RewardCalibrator(models, served, lambda: ("de", "pl"), lambda: False)
    await calibrator.look()
    assert models.replies == {"de": [f"served {number}" for number in range(MIN_REPLIES)]}
    models.replies["de"] = []
    await calibrator.look()
    assert models.replies == {"de": []}


@pytest.mark.parametrize(("tuning", "languages"), [(True, []), (False, ["de"])])
async def test_a_reward_keeps_its_scale_during_a_run(tuning: bool, languages: list[str]) -> None:
    """It would look like learning; the next look after the run is early enough."""
    models = Models()
    await RewardCalibrator(models, Served(de=MIN_REPLIES), lambda: ("de",), lambda: tuning).look()
    assert list(models.replies) == languages
