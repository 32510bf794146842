"""The node's canary: what starts it, what ends it, and who gets what meanwhile."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from agent.brief import Brief, Kind
from agent.completion import Completion, FinishReason, GenerationTiming, Sampling, VersionSpan
from agent.episode import Episode, PromptRef
from agent.errors import (
    CanaryRunning,
    Conflict,
    EngineError,
    InvalidInput,
    NeedsAdapters,
    NoAdapterSlot,
    NotFound,
    PromptTooLong,
    StoreError,
)
from agent.fakes import FakeEngine, MemoryJournal
from agent.feedback import Comment, Feedback, Implicit, Opinion, Rating, Signal, Thumbs
from agent.ports import Audience, GenerateRequest
from agent.verdict import LanguageVerdict, Verdict
from rewards.fakes import FakeRewardModel
from rewards.score import Sample
from service.canary.canaries import Canaries
from service.canary.cap import PersonCap
from service.canary.config import CanaryConfig
from service.canary.fakes import MemoryTrials, RememberedTrials
from service.canary.feedback import FeedbackInbox, value_of
from service.canary.parts import CanaryParts
from service.canary.records import Baseline, Outcome
from service.canary.scoring import SampledScoring
from service.canary.tally import Measure
from service.canary.traffic import Traffic, WatchedEngine, WatchedJournal
from service.feedback.fakes import MemoryEpisodes
from service.http.fake_tuning import BASE_POLICY, EPOCH, FakePolicies
from service.routable_slots import RoutableSlots
from service.routing import PolicyRoutes
from service.versions import AdapterVersions
from trainer.fakes import FakeAdmission
from trainer.records import PolicyRecord

CONFIG = CanaryConfig(
    share=0.5, min_requests=20, min_duration_s=60, max_duration_s=3_600, watch_s=600, scored_per_minute=60_000
)
TIMING = GenerationTiming(first_token_s=0.1, inter_token_s=0.01)


def policy(version: int, tenant: str | None = None) -> PolicyRecord:
    return PolicyRecord(version, "adapter", 0, "run_1", EPOCH, None, None, None, tenant)


class Bed:
    """Canaries over fakes; ``serve`` sends traffic through the routes and tells of it."""

    def __init__(self, config: CanaryConfig = CONFIG, store: MemoryTrials | None = None, active: int = 1) -> None:
        records = {0: BASE_POLICY, **{version: policy(version) for version in (1, 2, 3)}, 9: policy(9, "zeta")}
        self.policies = FakePolicies(records, active_version=active, trail=[0, active])
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.clock_s = 0.0
        self.routes = PolicyRoutes()
        self.traffic = Traffic(self.routes)
        self.judge = FakeRewardModel(self._reward)
        self.bad: set[int] = set()
        self.episodes = MemoryEpisodes()
        self.feedback = FeedbackInbox(self.traffic, self.episodes)
        self.store = store or MemoryTrials()
        self.events = RememberedTrials()
        scoring = SampledScoring(
            self.traffic, self.judge, FakeAdmission(), config.scored_per_minute, clock=lambda: self.clock_s
        )
        parts = CanaryParts(
            policies=self.policies,
            routes=self.routes,
            traffic=self.traffic,
            scoring=scoring,
            feedback=self.feedback,
            store=self.store,
            events=self.events,
            languages=lambda: ("de", "pl"),
            slots=RoutableSlots(2),
        )
        self.canaries = Canaries(config, parts, now=lambda: self.now)
        self.num_served = 0
        self.by_version: dict[int, int] = {}

    def _reward(self, sample: Sample) -> float:
        return 0.2 if sample.text == "bad" else 0.6

    async def serve(self, num: int, language: str = "de", tenant: str = "acme") -> None:
        """Requests of different people, each answered by whoever the routes say."""
        journal = WatchedJournal(MemoryJournal(), self.traffic)
        for _ in range(num):
            self.num_served += 1
            end_user = f"user-{self.num_served}"
            audience = Audience(tenant, language, end_user, True)
            version = self.routes.version_for(audience, self.policies.active_version)
            self.by_version[version] = self.by_version.get(version, 0) + 1
            episode = self._episode(tenant, language, end_user, version)
            self.episodes.all.append(episode)
            await journal.append(episode)
            if self.num_served % 4 == 0:
                self.clock_s += 1.0
                await self.canaries.tick()

    def _episode(self, tenant: str, language: str, end_user: str | None, version: int) -> Episode:
        text = "bad" if version in self.bad and language == "pl" else "good"
        brief = Brief(tenant, Kind.CREATE, language, instructions="Write.", end_user=end_user)
        completion = Completion(
            text=text,
            prompt_token_ids=(1,),
            token_ids=(2, 3),
            logprobs=(-0.5, -0.5),
            sampling=Sampling(max_tokens=8),
            finish_reason=FinishReason.STOP,
            versions=VersionSpan(version, version),
            timing=TIMING,
        )
        verdict = LanguageVerdict(language, Verdict.PASS, 1.0, ())
        ref = PromptRef("v1", "create", language)
        return Episode(f"req-{self.num_served}", self.now, brief, ref, (completion,), 0, verdict)

    @property
    def outcomes(self) -> list[Outcome | None]:
        return [record.outcome for kind, record in self.events.heard if kind == "ended"]


@pytest.fixture
async def bed() -> Bed:
    made = Bed()
    await made.canaries.open()
    return made


async def test_a_canary_splits_the_traffic_and_ends_by_promotion(bed: Bed) -> None:
    """About half of the people get the candidate; after its time and shown to be no worse, everybody does."""
    await bed.canaries.start(2)
    for _ in range(5):
        await bed.serve(200)
        await bed.serve(200, "pl")
    assert 800 <= bed.by_version[2] <= 1_200  # of 2,000: sqrt(2,000 / 4) = 22 is a deviation
    assert bed.policies.active_version == 1
    bed.now += timedelta(seconds=61)
    await bed.canaries.tick()
    assert bed.policies.active_version == 2
    assert bed.outcomes == [Outcome.PROMOTED]
    bed.by_version.clear()
    await bed.serve(40)
    assert bed.by_version == {2: 40}


async def test_harm_in_one_language_takes_the_candidate_back(bed: Bed) -> None:
    """German is as good as before; Polish is not. Everybody is back on the stable policy, and the reason is kept."""
    bed.bad = {2}
    await bed.canaries.start(2)
    for _ in range(20):
        await bed.serve(40)
        await bed.serve(40, "pl")
    assert bed.outcomes == [Outcome.HARMFUL]
    assert bed.routes.split is None
    assert bed.policies.active_version == 1
    (record,) = bed.store.records
    assert record.reason is not None
    assert record.reason.startswith("reward in pl is 0.400 worse")
    with pytest.raises(Conflict, match="did harm in its last trial"):
        await bed.canaries.promote(2)
    assert (await bed.canaries.promote(2, force=True)).version == 2


async def test_harm_is_only_shown_with_auto_stop_off() -> None:
    """The canary goes on, and the difference is there to be seen."""
    bed = Bed(CONFIG.model_copy(update={"auto_stop": False}))
    bed.bad = {2}
    await bed.canaries.open()
    await bed.canaries.start(2)
    await bed.serve(600, "pl")
    status = await bed.canaries.status()
    assert status.record is not None
    assert [found.measure for found in status.differences if found.finding == "harm"] == [Measure.REWARD]


async def test_a_restart_goes_on_where_it_was(bed: Bed) -> None:
    """The same people get the candidate, and what both sides had got counts; nothing is told twice."""
    await bed.canaries.start(2, share=0.25, languages=["de"])
    await bed.serve(100)
    bed.now += timedelta(seconds=10)
    await bed.canaries.tick()
    before = await bed.canaries.status()
    again = Bed(store=bed.store)
    await again.canaries.open()
    after = await again.canaries.status()
    assert after.record == before.record
    assert (after.num_candidate, after.num_stable) == (before.num_candidate, before.num_stable)
    assert sum(after.num_candidate.values()) + sum(after.num_stable.values()) == 100
    assert again.routes.split == bed.routes.split
    assert [kind for kind, _ in again.events.heard] == ["resumed"]


@pytest.mark.parametrize("obstacle", ["activated", "damaged"])
async def test_a_restart_that_cannot_go_on_ends_it(bed: Bed, obstacle: str) -> None:
    """Another policy is active now, or the candidate cannot be loaded: everybody gets the active one."""
    await bed.canaries.start(2)
    again = Bed(store=bed.store, active=3 if obstacle == "activated" else 1)
    if obstacle == "damaged":
        again.policies.damaged.add(2)
    await again.canaries.open()
    assert again.routes.split is None
    assert again.outcomes == [Outcome.INTERRUPTED]
    assert again.store.trial is None


async def test_what_cannot_be_tried_is_refused(bed: Bed) -> None:
    """Each with its own kind of error; nothing has begun after any of them."""
    cases: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: bed.canaries.start(7), NotFound, "7"),
        (lambda: bed.canaries.start(1), Conflict, "policy 1 is active already"),
        (lambda: bed.canaries.start(9), Conflict, "tuned for tenant zeta alone"),
        (lambda: bed.canaries.start(2, languages=["xx"]), InvalidInput, "must be among de, pl, got xx"),
        (bed.canaries.stop, Conflict, "no canary is running"),
        (lambda: bed.canaries.rollback(2), Conflict, "policy 2 is not active, policy 1 is"),
    ]
    for act, error, message in cases:
        with pytest.raises(error, match=message):
            await act()  # type: ignore[misc]  # each returns a coroutine
    assert bed.canaries.running is None
    await bed.canaries.start(2)
    with pytest.raises(CanaryRunning) as refused:
        await bed.canaries.start(3)
    assert bed.canaries.running is not None
    assert refused.value.blocking_id == bed.canaries.running.id
    with pytest.raises(CanaryRunning):
        await bed.canaries.promote(3)


async def test_method_full_has_no_second_copy_of_the_weights(bed: Bed) -> None:
    """The refusal says why."""
    bed.policies.method = "full"
    with pytest.raises(NeedsAdapters, match="one copy of the weights"):
        await bed.canaries.start(2)


async def test_a_canary_needs_a_slot(bed: Bed) -> None:
    """Two slots, two tenants' policies: the message has the figure and the versions."""
    bed.routes.use_tenant_policies({"acme": 1, "zeta": 3})
    with pytest.raises(NoAdapterSlot, match=r"may have 2 versions together .* would have 3: 1, 2, 3"):
        await bed.canaries.start(2)


async def test_an_operator_stops_promotes_and_rolls_back(bed: Bed) -> None:
    """Stopped: stable for all. Promoted: the candidate for all. Rolled back: the one before for all."""
    await bed.canaries.start(2)
    assert (await bed.canaries.stop()).outcome is Outcome.STOPPED
    await bed.canaries.start(2)
    assert (await bed.canaries.promote(2)).version == 2
    assert bed.outcomes == [Outcome.STOPPED, Outcome.PROMOTED]
    assert (await bed.canaries.rollback(2)).version == 1
    assert (await bed.canaries.rollback(1)).version == 0
    assert (await bed.canaries.promote(3)).version == 3
    assert (await bed.canaries.rollback(3, to=2)).version == 2
    await bed.canaries.start(3)
    assert (await bed.canaries.rollback(3)).version == 2
    assert bed.canaries.running is None


async def test_a_policy_that_took_over_is_watched_and_rolled_back_on_harm(bed: Bed) -> None:
    """Its predecessor had left a record; harm in Polish against it brings the predecessor back by itself."""
    await bed.serve(400, "pl")
    await bed.serve(200)
    await bed.canaries.promote(2)
    assert bed.canaries.running is not None
    assert bed.canaries.running.kind == "watch"
    bed.bad = {2}
    await bed.serve(400, "pl")
    assert bed.policies.active_version == 1
    assert bed.outcomes == [Outcome.HARMFUL]


async def test_a_watch_without_harm_passes(bed: Bed) -> None:
    """Also after another process or a tuning run has activated the policy."""
    await bed.serve(100)
    bed.policies.active_version = 2
    await bed.serve(100)
    assert bed.canaries.running is not None
    bed.now += timedelta(seconds=601)
    await bed.canaries.tick()
    assert bed.outcomes == [Outcome.PASSED]
    assert bed.policies.active_version == 2


async def test_a_heavy_user_does_not_own_the_record_that_a_successor_is_held_to(bed: Bed) -> None:
    """Two of a person's five replies count in each ten seconds, as in a trial, whose sides would otherwise be another
    mix of people than the record. Requests that name nobody all count."""
    now_s = 0.0
    bed.traffic = Traffic(bed.routes, PersonCap(2, period_s=10, clock=lambda: now_s))
    bed.traffic.baseline = Baseline(1)
    record = bed.traffic.baseline.side
    for _ in range(5):
        bed.traffic.reply(bed._episode("acme", "de", "ann", 1))
    assert record.get("de", Measure.FAILURES).num == 2
    now_s = 10.0
    for _ in range(5):
        bed.traffic.reply(bed._episode("acme", "de", "ann", 1))
    assert record.get("de", Measure.FAILURES).num == 4
    for _ in range(5):
        bed.traffic.reply(bed._episode("acme", "de", None, 1))
    assert record.get("de", Measure.FAILURES).num == 9
    assert record.get("de", Measure.FAILURES).sized == 4**2 - 4  # one group of four and five of one


async def test_going_back_is_not_watched(bed: Bed) -> None:
    """An operator's activation of an older policy is a rollback; a canary in progress is superseded by it."""
    await bed.serve(100)
    await bed.canaries.start(2)
    bed.policies.active_version = 0
    await bed.canaries.tick()
    assert bed.outcomes == [Outcome.SUPERSEDED]
    assert bed.canaries.running is None


async def test_feedback_counts_for_the_policy_that_wrote_the_reply(bed: Bed) -> None:
    """Five stars for the stable policy's replies and one for the candidate's stop it; a journal that fails for a moment
    only delays them."""
    await bed.serve(40)
    bed.now += timedelta(seconds=1)
    await bed.canaries.start(2)
    await bed.serve(240)
    for episode in bed.episodes.all:
        written_by = episode.completions[0].versions.last
        bed.feedback.add(rated(episode, Rating(1 if written_by == 2 else 5)))
    bed.episodes.failure = StoreError("gone")
    await bed.canaries.tick()
    trial = bed.traffic.trial
    assert trial is not None
    assert trial.stable.get("de", Measure.FEEDBACK).num == 0
    bed.episodes.failure = None
    await bed.canaries.tick()
    assert bed.outcomes == [Outcome.HARMFUL]
    assert trial.stable.get("de", Measure.FEEDBACK).mean == 1.0
    # The forty replies from before the canary are the baseline's alone.
    assert trial.stable.get("de", Measure.FEEDBACK).num + trial.candidate.get("de", Measure.FEEDBACK).num == 240
    assert bed.traffic.baseline.side.get("de", Measure.FEEDBACK).num > trial.stable.get("de", Measure.FEEDBACK).num


async def test_one_voice_does_not_decide_a_canary(bed: Bed) -> None:
    """Two hundred thumbs down of one person: twenty of them count."""
    await bed.canaries.start(2)
    await bed.serve(400)
    for episode in bed.episodes.all:
        bed.feedback.add(replace(rated(episode, Thumbs(up=False)), end_user="somebody"))
    await bed.canaries.tick()
    trial = bed.traffic.trial
    assert trial is not None
    assert sum(side.get("de", Measure.FEEDBACK).num for side in (trial.candidate, trial.stable)) == 20


@pytest.mark.parametrize(
    ("opinion", "value"),
    [
        (Rating(1), 0.0),
        (Rating(4), 0.75),
        (Rating(5), 1.0),
        (Thumbs(up=True), 1.0),
        (Implicit(Signal.IGNORED), 0.0),
        (Comment("fine"), None),
    ],
)
async def test_opinions_as_figures(opinion: Opinion, value: float | None, bed: Bed) -> None:
    """Stars from 0 to 1: 4 of 5 is (4 - 1) / 4. Words are no figure."""
    await bed.serve(1)
    assert value_of(rated(bed.episodes.all[0], opinion)) == value


def rated(episode: Episode, opinion: Opinion) -> Feedback:
    brief = episode.brief
    return Feedback(brief.tenant, episode.id, brief.language, EPOCH, "key_1", opinion, end_user=brief.end_user)


async def test_no_request_fails_while_a_canary_starts_stops_and_promotes(bed: Bed) -> None:
    """Requests are in flight the whole time; every one is answered, by a version that was routed to when it began."""
    versions = AdapterVersions(bed.routes)
    engine = WatchedEngine(FakeEngine(lambda request: "one two three", pause_s=0.001), bed.traffic)
    answered: list[int] = []

    async def ask(number: int) -> None:
        audience = Audience("acme", "de", f"user-{number}", True)
        request = GenerateRequest(f"r-{number}", (1,), Sampling(max_tokens=32), audience=audience)
        versions.activate(bed.policies.active_version)
        started = versions.start(request)
        completion = await engine.generate(
            replace(started.request, policy_version=started.adapter, listener=lambda delta: None)
        )
        answered.append(completion.versions.last)

    async with asyncio.TaskGroup() as tasks:
        for number in range(300):
            tasks.create_task(ask(number))
            await asyncio.sleep(0)
            if number == 60:
                await bed.canaries.start(2)
            if number == 120:
                await bed.canaries.stop()
            if number == 180:
                await bed.canaries.start(2)
            if number == 240:
                await bed.canaries.promote(2)
    assert len(answered) == 300
    assert set(answered) == {1, 2}


async def test_the_engines_failures_count_against_the_side(bed: Bed) -> None:
    """A failure of a candidate's request is the candidate's; one of a request that names a version is nobody's."""
    await bed.canaries.start(2)
    engine = FakeEngine(lambda request: "x")
    watched = WatchedEngine(engine, bed.traffic)
    person = next(
        audience
        for audience in (Audience("acme", "de", f"u{number}", True) for number in range(99))
        if bed.routes.version_for(audience, 1) == 2
    )
    request = GenerateRequest("r", (1,), Sampling(max_tokens=4), audience=person)
    for failure, asked in (
        (EngineError("broke"), request),
        (PromptTooLong("long"), request),
        (EngineError("broke"), replace(request, policy_version=2)),
    ):
        engine.failure = failure
        with pytest.raises(EngineError):
            await watched.generate(asked)
    trial = bed.traffic.trial
    assert trial is not None
    assert trial.candidate.get("de", Measure.FAILURES).total == 1.0
    assert trial.stable.get("de", Measure.FAILURES).num == 0


async def test_scores_are_bounded_by_the_rate_and_spread_over_sides() -> None:
    """At 60 a minute, ten seconds score ten replies at most, as many of one side as of the other."""
    bed = Bed(CONFIG.model_copy(update={"scored_per_minute": 60}))
    await bed.canaries.open()
    await bed.canaries.start(2)
    await bed.serve(40)  # ten ticks, a second apart
    scored = sum(len(batch) for batch in bed.judge.batches)
    assert 8 <= scored <= 10
    trial = bed.traffic.trial
    assert trial is not None
    counts = [side.get("de", Measure.REWARD).num for side in (trial.candidate, trial.stable)]
    assert abs(counts[0] - counts[1]) <= 2


async def test_a_store_that_is_away_is_told_without_a_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no defect, and the next tick comes all the same: what is to be stored is tried again."""
    monkeypatch.setattr("service.canary.canaries._TICK_S", 0.001)
    bed = Bed()
    await bed.canaries.start(2)
    bed.policies.active_version = 3  # which ends the canary, and that is to be stored
    bed.store.failure = StoreError("gone")
    with capture_logs() as logs:
        running = asyncio.create_task(bed.canaries.run())
        await asyncio.sleep(0.1)
        assert not running.done()
        running.cancel()
        await asyncio.wait([running])
    failed = [entry for entry in logs if entry["event"] == "canary_tick_failed"]
    assert len(failed) > 1
    assert failed[0] == {"event": "canary_tick_failed", "reason": "gone", "log_level": "warning"}


async def test_a_policy_that_cannot_be_brought_back_is_told_once() -> None:
    """Every two seconds it is tried again; only another reason is news, or the same one after it was held."""
    bed = Bed()
    bed.policies.damaged.add(3)
    bed.routes.use_tenant_policies({"acme": 3})
    with capture_logs() as logs:
        for _ in range(3):
            await bed.canaries.tick()
        bed.policies.damaged.clear()
        await bed.canaries.tick()
        bed.policies.damaged.add(3)
        await bed.canaries.tick()
    assert [entry["event"] for entry in logs] == ["routed_policy_not_held"] * 2


async def test_an_end_that_could_not_be_stored_is_stored_later() -> None:
    """Nobody gets the candidate from the end on; what it did is known once the store is back, before another begins."""
    bed = Bed()
    await bed.canaries.start(2)
    bed.store.failure = StoreError("gone")
    with pytest.raises(StoreError):
        await bed.canaries.stop()
    assert bed.routes.split is None
    bed.store.failure = None
    await bed.canaries.start(3)
    assert [(record.candidate, record.outcome) for record in bed.store.records] == [(2, Outcome.STOPPED)]
    assert bed.store.trial is not None
    bed.store.failure = StoreError("gone")
    with pytest.raises(StoreError):
        await bed.canaries.stop()
    bed.store.failure = None
    await bed.canaries.tick()
    assert [record.candidate for record in bed.store.records] == [3, 2]
    assert bed.store.trial is None
