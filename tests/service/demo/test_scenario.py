"""The demo's stages against a served app of fakes: a model whose reply names the policy that wrote it."""

import asyncio
import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from rich.console import Console
from structlog.testing import capture_logs

from agent.commission import Commission
from agent.config import LanguageSettings, TenantSettings
from agent.episode import Reply
from agent.errors import EngineError
from rewards.score import Ungradable
from service.config import NodeConfig
from service.demo.briefs import DemoBrief
from service.demo.failure import DemoFailed
from service.demo.results import DemoResults
from service.demo.scenario import Scenario, shortened
from service.demo.screen import Screen
from service.demo.tenant_client import Clock, TenantClient
from service.feedback.fakes import MemoryEpisodes
from service.http.app import create_app
from service.http.fake_tuning import EPOCH, FakePolicies, FakeTuning, step_report
from service.http.fakes import FakeAuthenticator, FakeContent, FakeMetrics, FakeNode, served
from service.http.inspection_client import InspectionClient
from service.http.tuning_schema import RunBody
from tests.service.feedback.samples import episode
from trainer.records import Evaluation, PolicyRecord, RunState, RunStatus

BRIEFS = [DemoBrief("de", "ein Satz"), DemoBrief("en", "a sentence"), DemoBrief("de", "noch ein Satz")]
TUNED = 2


@dataclass
class PolicyContent(FakeContent):
    """Answers as the active policy does, and keeps an episode of it."""

    episodes: MemoryEpisodes = field(default_factory=MemoryEpisodes)
    policies: FakePolicies = field(default_factory=FakePolicies)
    text_of: Callable[[int, int], str] = lambda version, call: f"Policy {version} writes."
    """By version and number of calls so far."""
    fails_from_call: int | None = None

    async def write(self, commission: Commission) -> Reply:
        version = self.policies.active_version
        if self.fails_from_call is not None and len(self.calls) >= self.fails_from_call:
            raise EngineError("it broke")
        reply = await super().write(commission)
        text, brief = self.text_of(version, len(self.calls)), commission.brief
        kept = episode(
            commission.request_id, text, prompt=brief.instructions, language=brief.language, tenant=brief.tenant
        )
        self.episodes.all.append(kept)
        return replace(reply, text=text, policy_version=version)


@dataclass
class PublishingTuning(FakeTuning):
    """Evaluates and publishes what a run made when it succeeds."""

    policies: FakePolicies = field(default_factory=FakePolicies)
    reward: float = 0.9

    async def status(self, run_id: str) -> RunStatus:
        run = await super().status(run_id)
        if run.state is not RunState.SUCCEEDED or TUNED in self.policies.records:
            return run
        evaluation = Evaluation(TUNED, 0, self.reward, 0.7, {"de": (self.reward, 0.7)}, {"de": (1.0, 0.9)}, {})
        self.policies.records[TUNED] = PolicyRecord(TUNED, "adapter", 0, run_id, EPOCH, None, None, evaluation)
        self.policies.active_version = TUNED
        self.runs[run_id] = replace(run, evaluation=evaluation)
        return self.runs[run_id]


@dataclass
class Stage:
    """A node of fakes with what the demo printed about it."""

    content: PolicyContent
    tuning: PublishingTuning
    node: FakeNode
    printed: io.StringIO = field(default_factory=io.StringIO)

    def play(self) -> DemoResults:
        """The scenario over real HTTP."""
        tenant = TenantSettings(id="demo", languages={"de": LanguageSettings(), "en": LanguageSettings()})
        app = create_app(self.node, FakeAuthenticator({"tenant-key": tenant}), NodeConfig(), FakeMetrics())
        with capture_logs(), served(app) as url:
            return asyncio.run(self._play(url))

    async def _play(self, url: str) -> DemoResults:
        clock = Clock()
        screen = Screen(Console(file=self.printed, width=100), clock)
        async with TenantClient(url, "tenant-key", clock, max_tokens=16) as client:
            with InspectionClient(url, "admin-key") as admin:
                return await Scenario(client, admin, screen, clock).play(BRIEFS, RunBody(steps=2, gate=True))


@pytest.fixture
def stage() -> Stage:
    policies = FakePolicies()
    content = PolicyContent(policies=policies, delay_s=0.01)
    tuning = PublishingTuning(policies=policies, reports=[step_report(1), step_report(2, version=TUNED)])
    node = FakeNode(content=content, tuning=tuning, policies=policies, episodes=content.episodes)
    node.panel.judge = lambda sample: 0.75 if "2" in sample.text else 0.25
    return Stage(content, tuning, node)


def test_every_stage_shows_what_it_has_to(stage: Stage) -> None:
    """Both policies answer during the swaps, no request fails, and the last policy is the untuned model."""
    results = stage.play()
    assert [(reply.brief.language, reply.text) for reply in results.replies] == [
        ("de", "Policy 0 writes."),
        ("en", "Policy 0 writes."),
    ]
    assert results.run.steps_done == 2
    assert [(flip.version, flip.cause) for flip in results.swap.flips] == [
        (TUNED, "published"),
        (0, "activated"),
        (TUNED, "activated"),
    ]
    assert set(results.swap.replies_by_version) == {0, TUNED}
    assert results.swap.failures == ()
    assert results.greedy.tuned.text == "Policy 2 writes."
    assert results.greedy.rolled_back.text == results.greedy.original.text == "Policy 0 writes."
    assert stage.node.policies.active_version == 0


def test_the_greedy_replies_are_greedy(stage: Stage) -> None:
    """Three requests at temperature 0: untuned, tuned, rolled back; all for the same brief."""
    stage.play()
    greedy = [brief.instructions for brief, sampling, _ in stage.content.calls if sampling.temperature == 0]
    assert greedy == ["ein Satz"] * 3


def test_the_terminal_shows_replies_steps_and_swaps(stage: Stage) -> None:
    """Verdicts, the reward of every step, the held-out change, and who answered."""
    stage.play()
    printed = stage.printed.getvalue()
    for part in ("pass", "step 2  reward 0.500", "0.700 → 0.900", "policy 2 published", "0 failed"):
        assert part in printed


def test_an_edit_and_a_rating_stand_beside_the_reply_that_they_are_about(stage: Stage) -> None:
    """The first reply is said to be edited and rated; the request shows both and its reward."""
    said = stage.play().said
    assert (said.language, said.text, said.reward.value) == ("de", "Policy 0 writes.", 0.25)
    assert [piece.rating for piece in said.feedback] == [2, None]
    assert [piece.edit.text for piece in said.feedback if piece.edit] == ["Policy 0 writes."]
    assert "edit: Policy 0 writes." in stage.printed.getvalue()


def test_an_editor_keeps_as_many_words_as_the_brief_allows() -> None:
    """Nine; white space between them is one space."""
    assert shortened("a b  c d e f g\nh i j k") == "a b c d e f g h i"


def test_rewards_are_shown_part_by_part_before_and_after(stage: Stage) -> None:
    """The judge gives 0.25 to what policy 0 writes and 0.75 to what policy 2 writes, for the same brief."""
    pairs = stage.play().rewards
    assert [(pair.untuned.language, pair.parts) for pair in pairs] == [
        ("de", [("fake", 1.0, 0.25, 0.75)]),
        ("en", [("fake", 1.0, 0.25, 0.75)]),
    ]
    assert "de 0.250 → 0.750 fake 0.250 → 0.750" in " ".join(stage.printed.getvalue().split())


def test_a_reply_that_cannot_be_graded_is_shown_with_the_reason(stage: Stage) -> None:
    """Its reward is no number."""
    stage.node.panel.judge = lambda _: Ungradable("the judge is away", "fake@1")
    pairs = stage.play().rewards
    assert [pair.parts for pair in pairs] == [[], []]
    assert "de n/a → n/a the judge is away" in " ".join(stage.printed.getvalue().split())


def test_a_rejected_run_fails_the_demo_with_its_reason(stage: Stage) -> None:
    """The gate's words reach the terminal."""
    stage.tuning.ends, stage.tuning.reason = RunState.REJECTED, "de: reward fell"
    with pytest.raises(DemoFailed, match="must succeed, got rejected: de: reward fell"):
        stage.play()


def test_a_reward_that_fell_fails_the_demo(stage: Stage) -> None:
    """0.64 after 0.70 is more than chance."""
    stage.tuning.reward = 0.64
    with pytest.raises(DemoFailed, match=r"must not fall by more than 0.05, got 0.700 before and 0.640 after"):
        stage.play()


def test_a_reward_that_hardly_moves_is_shown_as_it_is(stage: Stage) -> None:
    """0.69 after 0.70: little was learnt this time, everything else was shown."""
    stage.tuning.reward = 0.69
    assert stage.play().evaluation.reward == 0.69
    assert "all 0.700 → 0.690" in " ".join(stage.printed.getvalue().split())


def test_one_failed_request_during_the_swaps_fails_the_demo(stage: Stage) -> None:
    """Three briefs and the greedy reply are answered; what the clients send after that is not."""
    stage.content.fails_from_call = 4
    with pytest.raises(DemoFailed, match="no request may fail, got"):
        stage.play()


def test_a_brief_without_a_reply_fails_the_demo(stage: Stage) -> None:
    """With the node's status and words."""
    stage.content.fails_from_call = 0
    with pytest.raises(DemoFailed, match="every brief must be answered, got 5"):
        stage.play()


def test_a_rollback_that_answers_otherwise_fails_the_demo(stage: Stage) -> None:
    """The text is compared, not only the version."""
    stage.content.text_of = lambda version, call: f"Reply {call} of policy {version}."
    with pytest.raises(DemoFailed, match="must bring the same greedy reply"):
        stage.play()
