"""The node's parts, counted."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from agent.brief import Brief, Kind
from agent.chat import ChatAgent, Dialogue
from agent.commission import Commission
from agent.completion import Sampling
from agent.config import LanguageSettings, TenantSettings
from agent.contract import LanguageContract
from agent.dialogue import Role, Turn
from agent.errors import EngineError, StoreError
from agent.fakes import CharEncoder, FakeEngine, FakeRanker, FixedDetector
from agent.prompt import PromptLibrary
from agent.writer import ContentAgent, TenantLanguages
from service.config import StoreConfig
from service.http.fake_tuning import EPOCH, step_report
from service.jobs.records import Job, JobState, Order
from service.journal import RedisJournal
from service.metering import MeteredChat, MeteredContent, MeteredJobs, count_run, watch_journal
from service.store import Store
from service.telemetry import Metrics
from trainer.records import RunRequest, RunState, RunStatus

BRIEF = Brief(tenant="acme", kind=Kind.CREATE, language="de", instructions="Begrüße uns.")
TENANT = TenantSettings(id="acme", languages={"de": LanguageSettings()})
RUN = RunStatus("run_1", RunState.SUCCEEDED, RunRequest(), EPOCH, EPOCH, 1, (step_report(1),), (), None, None)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(lambda request: "Guten Tag.")


@pytest_asyncio.fixture
async def journal(store: Store) -> AsyncIterator[RedisJournal]:
    yield RedisJournal(store, StoreConfig(held_out_share=0.0))


def content(engine: FakeEngine, journal: RedisJournal, metrics: Metrics) -> MeteredContent:
    contract = LanguageContract(FixedDetector({"guten": "de"}))
    languages = TenantLanguages((TENANT,))
    agent = ContentAgent(
        engine,
        CharEncoder(),
        PromptLibrary.load(),
        contract,
        FakeRanker(),
        journal,
        languages,
        lambda tenant, error: None,
    )
    return MeteredContent(agent, metrics)


def samples(metrics: Metrics, prefix: str) -> list[str]:
    return [line for line in metrics.render().splitlines() if line.startswith(prefix)]


async def test_reply_is_counted(engine: FakeEngine, journal: RedisJournal) -> None:
    """A served reply counts once for its tenant and language, with its verdict."""
    metrics = Metrics()
    await content(engine, journal, metrics).write(Commission(BRIEF, Sampling(max_tokens=32), request_id="r1"))
    assert samples(metrics, "coloq_replies_total") == [
        'coloq_replies_total{finish_reason="stop",language="de",tenant="acme"} 1.0'
    ]
    assert samples(metrics, "coloq_language_verdicts_total") == [
        'coloq_language_verdicts_total{language="de",tenant="acme",verdict="pass"} 1.0'
    ]


async def test_brief_without_a_reply_is_counted_and_raises(engine: FakeEngine, journal: RedisJournal) -> None:
    """The caller still gets the error; the metric has its type."""
    metrics = Metrics()
    engine.failure = EngineError("broken")
    with pytest.raises(EngineError, match="broken"):
        await content(engine, journal, metrics).write(Commission(BRIEF, Sampling(max_tokens=32), request_id="r1"))
    assert samples(metrics, "coloq_content_failures_total") == [
        'coloq_content_failures_total{error="EngineError",tenant="acme"} 1.0'
    ]


async def test_every_choice_of_a_chat_is_counted(engine: FakeEngine, journal: RedisJournal) -> None:
    """Two choices are two replies with their tokens, the prompt once; a chat that fails is counted by its error."""
    metrics = Metrics()
    agent = content(engine, journal, metrics).agent
    contract, languages = LanguageContract(FixedDetector({"guten": "de"})), TenantLanguages((TENANT,))
    chat = MeteredChat(ChatAgent(engine, CharEncoder(), contract, agent.keeper, languages), metrics)
    dialogue = Dialogue("acme", (Turn(Role.USER, "Hallo"),), ("de",))
    await chat.answer(dialogue, Sampling(max_tokens=32), request_id="r1", num_choices=2)
    assert samples(metrics, "coloq_replies_total") == [
        'coloq_replies_total{finish_reason="stop",language="de",tenant="acme"} 2.0'
    ]
    # "user: Hallo" between two control tokens is 13; "Guten Tag." and its end are 11, twice.
    assert samples(metrics, "coloq_tokens_total") == [
        'coloq_tokens_total{language="de",part="prompt",tenant="acme"} 13.0',
        'coloq_tokens_total{language="de",part="completion",tenant="acme"} 22.0',
    ]
    engine.failure = EngineError("broken")
    with pytest.raises(EngineError, match="broken"):
        await chat.answer(dialogue, Sampling(max_tokens=32), request_id="r2")
    assert samples(metrics, "coloq_content_failures_total") == [
        'coloq_content_failures_total{error="EngineError",tenant="acme"} 1.0'
    ]


async def test_journal_is_counted_by_language_and_split(engine: FakeEngine, journal: RedisJournal) -> None:
    """One reply in the journal is one episode of the training split."""
    metrics = Metrics()
    metered = content(engine, journal, metrics)
    await metered.write(Commission(BRIEF, Sampling(max_tokens=32), request_id="r1"))
    await metered.agent.drain()
    watching = asyncio.create_task(watch_journal(journal, metrics))
    async with asyncio.timeout(5):
        while not samples(metrics, "coloq_journal_episodes{"):  # noqa: ASYNC110 - a gauge tells nobody that it was set
            await asyncio.sleep(0.01)
    watching.cancel()
    assert 'coloq_journal_episodes{language="de",split="train",tenant="acme"} 1.0' in samples(
        metrics, "coloq_journal_episodes{"
    )


async def test_store_that_is_away_does_not_end_the_watch(store: Store, journal: RedisJournal) -> None:
    """The gauges stay as they were, and the next round tries again."""
    assert store.embedded is not None
    await store.embedded.stop()
    with pytest.raises(StoreError):
        await journal.count()
    watching = asyncio.create_task(watch_journal(journal, Metrics()))
    await asyncio.sleep(0.2)
    assert not watching.done()
    watching.cancel()


@pytest.mark.parametrize(
    ("state", "published", "outcomes"),
    [
        (RunState.SUCCEEDED, (1, 2), {"published": 2.0}),
        (RunState.REJECTED, (1,), {"published": 1.0, "rejected": 1.0}),
        (RunState.FAILED, (), {"failed": 1.0}),
        (RunState.STOPPED, (), {}),
    ],
)
def test_ended_run_counts_with_what_it_published(
    state: RunState, published: tuple[int, ...], outcomes: dict[str, float]
) -> None:
    """Each published version is one publication; a rejected or failed run is one more that came to nothing."""
    metrics = Metrics()
    count_run(metrics, replace(RUN, state=state, published=published))
    assert samples(metrics, "coloq_tuning_runs_total{") == [f'coloq_tuning_runs_total{{state="{state.value}"}} 1.0']
    assert sorted(samples(metrics, "coloq_publications_total{")) == sorted(
        f'coloq_publications_total{{outcome="{outcome}"}} {count}' for outcome, count in outcomes.items()
    )


async def test_finished_jobs_are_counted_by_tenant_and_state() -> None:
    """One succeeded and two cancelled."""
    metrics = Metrics()
    for state in (JobState.SUCCEEDED, JobState.CANCELLED, JobState.CANCELLED):
        job = Job("job_1", Order("acme", "/v1/content", "{}", "req_1"), state, EPOCH)
        await MeteredJobs(metrics).finished(job)
    text = metrics.render()
    assert 'coloq_jobs_finished_total{state="succeeded",tenant="acme"} 1.0' in text
    assert 'coloq_jobs_finished_total{state="cancelled",tenant="acme"} 2.0' in text
