"""The panel as a ranker."""

import threading

from agent.brief import Brief, Kind
from agent.completion import Completion, FinishReason, Sampling, VersionSpan
from agent.ports import Ranker
from rewards.fakes import FakeRewardModel
from rewards.ranker import PanelRanker
from rewards.score import Sample, Ungradable

BRIEF = Brief("acme", Kind.CREATE, "de", instructions="x")


def _completion(text: str) -> Completion:
    tokens = tuple(map(ord, text))
    logprobs = (-0.5,) * len(tokens)
    return Completion(text, (1, 2), tokens, logprobs, Sampling(8), FinishReason.LENGTH, VersionSpan(0, 0))


def _judge(sample: Sample) -> float | Ungradable:
    return Ungradable("a question", "fake@1") if "?" in sample.text else -1 / len(sample.text)


async def test_higher_scores_come_first_and_what_cannot_be_graded_last() -> None:
    """Scores are -1, -1/3, none, -1/2 and -1/3: equals stay in order, and a bad score is better than none."""
    ranker: Ranker = PanelRanker(FakeRewardModel(_judge))
    completions = [_completion(text) for text in ("a", "bbb", "?", "cc", "ddd")]
    assert await ranker.rank(BRIEF, completions) == [1, 4, 3, 0, 2]


async def test_judges_are_asked_as_they_are_for_tuning() -> None:
    """Brief, text, finish reason and number of tokens, all replies at once, and not on the event loop's thread."""
    threads: list[int] = []

    def judge(sample: Sample) -> float:
        threads.append(threading.get_ident())
        return 0.5

    panel = FakeRewardModel(judge)
    await PanelRanker(panel).rank(BRIEF, [_completion("ab"), _completion("c")])
    assert panel.batches == [
        (Sample(BRIEF, "ab", FinishReason.LENGTH, 2), Sample(BRIEF, "c", FinishReason.LENGTH, 1)),
    ]
    assert threading.get_ident() not in threads
