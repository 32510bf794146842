"""Length trends of a trained reward model, by hand."""

import math

import pytest

from rewards.training.calibrate import TrainingReply, calibrate, length_trend


def reply(raw: float, log_words: float, *, chosen: bool, kind: str = "create") -> TrainingReply:
    return TrainingReply(raw, kind, round(math.expm1(log_words)), log_words, chosen)


CHOSEN_IS_LONGER = [
    reply(2.0, 3.0, chosen=True),
    reply(2.5, 4.0, chosen=True),
    reply(0.0, 1.0, chosen=False),
    reply(0.5, 2.0, chosen=False),
] * 2
"""Each side rises by 0.5 per log-word; being chosen adds 1 beyond that: 2.0 = 0.5 * 3 + 0.5, 0.0 = 0.5 * 1 - 0.5."""


def test_what_people_preferred_is_no_length_bias() -> None:
    """The slope within each side, 0.5; through all four points it would be 4.5 / 5 = 0.9."""
    trend = length_trend(CHOSEN_IS_LONGER)
    assert trend is not None
    assert trend.slope == pytest.approx(0.5)
    assert trend.mean_log_words == pytest.approx(2.5)


def test_without_its_trend_a_chosen_reply_is_still_better() -> None:
    """Mean 1.25; each chosen reply is 0.5 above it without length, each rejected one 0.5 below."""
    calibration = calibrate(CHOSEN_IS_LONGER)
    assert calibration.center == pytest.approx(1.25)
    trend = calibration.length["create"]
    free = [item.raw - trend.slope * (item.log_words - trend.mean_log_words) for item in CHOSEN_IS_LONGER[:4]]
    assert free == pytest.approx([1.75, 1.75, 0.75, 0.75])


def test_lengths_that_differ_between_the_sides_alone_have_no_trend() -> None:
    """Nothing tells length from preference there, so nothing is taken out."""
    assert length_trend([reply(2.0, 3.0, chosen=True), reply(0.0, 1.0, chosen=False)] * 4) is None


def test_a_few_replies_have_no_trend() -> None:
    """Seven are too few; the other kind, of eight, has one of its own."""
    chats = [reply(item.raw, item.log_words, chosen=item.chosen, kind="chat") for item in CHOSEN_IS_LONGER[:7]]
    rows = [*CHOSEN_IS_LONGER, *chats]
    assert calibrate(rows).length.keys() == {"create"}
