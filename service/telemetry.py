"""Logs and metrics of the node: structlog set up once, and one object that owns every Prometheus metric.

Nothing here holds prompt or reply text. Metrics live in a registry of their own, so a process may have several nodes.
"""

import logging
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from structlog.processors import ExceptionRenderer
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import Processor

from agent.completion import GenerationTiming
from agent.episode import Reply
from service.controller import Decision
from service.feedback.metrics import FeedbackMetrics
from service.language_metrics import LanguageMetrics
from service.tuning_metrics import TuningMetrics

_LATENCY_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60)
_TOKEN_BUCKETS_S = (
    *(number * scale / 1000 for scale in (1, 10, 100, 1000) for number in (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)),
    10.0,
)
"""1 ms to 10 s, fine enough to tell a few percent of a percentile."""
_QUIET_LOGGERS = ("uvicorn.access", "httpx", "httpcore", "asyncio")
_QUIET_UNLESS_DEBUG = {"uvicorn.error": logging.WARNING, "vllm": logging.ERROR}


class _NodeHandler(logging.StreamHandler):  # type: ignore[type-arg]  # generic in typeshed only
    """The handler that ``configure_logging`` installs; a second call replaces it and leaves other handlers alone."""


def configure_logging(
    level: Literal["debug", "info", "warning", "error"], log_format: Literal["console", "json"]
) -> None:
    """Send structlog's events and the standard library's records to stderr in one format.

    Values bound with ``structlog.contextvars`` (request id, tenant, policy version) are part of every event.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = _NodeHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(log_format)],
        )
    )
    root = logging.getLogger()
    for old in [item for item in root.handlers if isinstance(item, _NodeHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    settle_loggers()


def settle_loggers() -> None:
    """Give the records of libraries to the node's handler, at the node's level or above.

    ``configure_logging`` does it. Call again after the first import of vLLM, which sets its own logger up.
    """
    level = logging.getLogger().level
    at_debug = dict.fromkeys(_QUIET_UNLESS_DEBUG, logging.NOTSET)
    least = at_debug if level == logging.DEBUG else _QUIET_UNLESS_DEBUG
    for name, severity in (dict.fromkeys(_QUIET_LOGGERS, logging.WARNING) | least).items():
        logging.getLogger(name).setLevel(max(severity, level))
    for name in _QUIET_UNLESS_DEBUG:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def _renderers(log_format: Literal["console", "json"]) -> list[Processor]:
    """Stacks name places and source lines only. structlog's own show every local variable: briefs, replies, keys."""
    if log_format == "json":
        stacks = ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
        return [stacks, structlog.processors.JSONRenderer()]
    return [
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
    ]


@dataclass(frozen=True, slots=True)
class EngineActivity:
    """What the engine process did lately. None where there was no step."""

    step_p50_s: float | None
    step_p99_s: float | None
    step_max_s: float | None
    cpu_share: float | None
    """CPU time of the engine's thread over the time in which it had something to run; near 1 the host is the limit."""
    device_wait_share: float | None
    """The same of its waits for the device."""
    train_share: float
    train_tokens_per_s: float


class Metrics:
    """Every metric of a node, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("http_requests", "HTTP requests.", "method", "route", "status")
        self._latency = self._histogram("http_request_duration_seconds", "Time to answer.", "method", "route")
        self._replies = self._counter("replies", "Replies served.", "tenant", "language", "finish_reason")
        self._reply_latency = self._histogram("reply_duration_seconds", "Time to write a reply.", "language")
        self._tokens = self._counter("tokens", "Tokens of served replies.", "tenant", "language", "part")
        self._verdicts = self._counter("language_verdicts", "Verdicts on replies.", "tenant", "language", "verdict")
        self._language = LanguageMetrics(self._registry)
        self._content_failures = self._counter("content_failures", "Briefs without a reply.", "tenant", "error")
        self._journal_failures = self._counter("journal_failures", "Episodes that were not journalled.", "tenant")
        self._journal_corrupt = self._counter("journal_corrupt", "Journal entries that could not be read.")
        self._journal_episodes = self._gauge("journal_episodes", "Episodes kept.", "tenant", "language", "split")
        self._journal_waiting = self._gauge("journal_waiting", "Episodes whose write is under way.")
        self._active_policy = self._gauge("policy_active_version", "Version that answers new requests.")
        self._publications = self._counter(
            "publications", "Policies published, and runs rejected or failed.", "outcome"
        )
        self._engine_ready = self._gauge("engine_ready", "1 when the engine answers.")
        self._engine_restarts = self._counter("engine_restarts", "Times that the engine process was started again.")
        self._jobs = self._counter("jobs_finished", "Jobs that got their result.", "tenant", "state")
        self._queued = self._gauge("queued_requests", "Live requests that wait for the engine.", "tenant")
        self._rollouts = self._gauge("rollouts_in_flight", "Sibling replies being sampled.")
        self._preempted = self._gauge("rollouts_preempted", "Rollouts that gave their slot to a live request so far.")
        self.tuning = TuningMetrics(self._registry)
        self._first_token = self._histogram(
            "live_first_token_seconds", "Live requests' time to the first token.", buckets=_TOKEN_BUCKETS_S
        )
        self._inter_token = self._histogram(
            "live_inter_token_seconds", "Live requests' mean time between tokens.", buckets=_TOKEN_BUCKETS_S
        )
        self._level = self._gauge("controller_level", "Rung of the trainer's pace; 0 is paused.")
        self._top_level = self._gauge("controller_top_level", "Highest rung: the whole device, all of the time.")
        self._num_sms = self._gauge("controller_num_sms", "Multiprocessors that the trainer may use under load.")
        self._duty = self._gauge("controller_duty", "Share of the time that the trainer may run under load.")
        self._rollout_limit = self._gauge("controller_rollout_limit", "Rollouts that may be in flight.")
        self._decisions = self._counter("controller_decisions", "Changes that the controller made.", "direction")
        self._bound = self._gauge("slo_bound_seconds", "Bound of the 99th percentile.", "quantity")
        self._p99 = self._gauge("slo_p99_seconds", "99th percentile of live requests, last seconds.", "quantity")
        self._baseline = self._gauge("slo_baseline_seconds", "99th percentile without tuning, this load.", "quantity")
        self._slowdown = self._gauge(
            "slo_step_slowdown", "Engine steps at the present pace over those of their size without training."
        )
        self._violations = self._counter("slo_violations", "Times that a percentile went over its bound.", "quantity")
        self._engine_step = self._gauge("engine_step_seconds", "Engine steps of the last ten seconds.", "quantile")
        self._engine_thread = self._gauge(
            "engine_thread_share", "What the thread of a busy engine did, last ten seconds.", "state"
        )
        self._train_share = self._gauge("train_share", "Share of the last ten seconds in which training ran.")
        self._train_rate = self._gauge("train_tokens_per_second", "Positions trained on, mean of ten seconds.")
        self._webhooks = self._counter("webhook_attempts", "Tries to deliver an event.", "outcome")
        self._reward_version = self._gauge("reward_model_version", "Reward model that judges; 0 is none.", "language")
        self._reward_accuracy = self._gauge("reward_model_accuracy", "Its held-out accuracy.", "language")
        self._reward_trainings = self._counter("reward_trainings", "Trainings of reward models.", "outcome")
        self.feedback = FeedbackMetrics(self._registry)
        ProcessCollector(registry=self._registry)

    @property
    def registry(self) -> CollectorRegistry:
        """For parts that keep metrics of their own."""
        return self._registry

    def observe_request(self, *, method: str, route: str, status: int, duration_s: float) -> None:
        """Count one HTTP request; ``route`` is a template, never a path that a caller chose."""
        self._requests.labels(method, route, str(status)).inc()
        self._latency.labels(method, route).observe(duration_s)

    def observe_reply(self, tenant: str, reply: Reply) -> None:
        """Count one served reply with its tokens and language verdict."""
        self._replies.labels(tenant, reply.language, reply.finish_reason).inc()
        self._reply_latency.labels(reply.language).observe(reply.duration_ms / 1000)
        self._tokens.labels(tenant, reply.language, "prompt").inc(reply.prompt_tokens)
        self._tokens.labels(tenant, reply.language, "completion").inc(reply.completion_tokens)
        self._verdicts.labels(tenant, reply.language, reply.verdict.verdict.value).inc()
        self._language.observe(tenant, reply)

    def content_failed(self, tenant: str, error: BaseException) -> None:
        """Count a brief that got no reply, by the error's type."""
        self._content_failures.labels(tenant, type(error).__name__).inc()

    def journal_failed(self, tenant: str) -> None:
        """Count an episode that was served but not journalled."""
        self._journal_failures.labels(tenant).inc()

    def journal_corrupt(self) -> None:
        """Count a journal entry that could not be read."""
        self._journal_corrupt.inc()

    def set_journal_episodes(self, counts: Mapping[tuple[str, str, str], int]) -> None:
        """Show how many episodes are kept, by (tenant, language, split)."""
        for labels, count in counts.items():
            self._journal_episodes.labels(*labels).set(count)

    def set_journal_waiting(self, count: int) -> None:
        """Show how many served episodes the store has not taken yet."""
        self._journal_waiting.set(count)

    def set_active_policy(self, version: int) -> None:
        """Show which policy answers new requests."""
        self._active_policy.set(version)

    def publication_ended(self, outcome: str) -> None:
        """Count a policy that was `published`, or a run that the gate `rejected` or that `failed`, at whatever step."""
        self._publications.labels(outcome).inc()

    def set_engine_ready(self, ready: bool) -> None:
        """Show whether the engine answers."""
        self._engine_ready.set(ready)

    def engine_restarted(self) -> None:
        """Count a restart of the engine process."""
        self._engine_restarts.inc()

    def job_finished(self, tenant: str, state: str) -> None:
        """Count a job that ended in ``state``."""
        self._jobs.labels(tenant, state).inc()

    def set_queued_requests(self, counts: Mapping[str, int]) -> None:
        """Show how many requests wait for the engine, by tenant."""
        self._queued.clear()
        for tenant, count in counts.items():
            self._queued.labels(tenant).set(count)

    def set_rollouts_in_flight(self, num_rollouts: int) -> None:
        """Show how many sibling replies are being sampled."""
        self._rollouts.set(num_rollouts)

    def set_rollouts_preempted(self, num_rollouts: int) -> None:
        """Show how many rollouts have given their slot to a live request since the start."""
        self._preempted.set(num_rollouts)

    def observe_generation(self, timing: GenerationTiming) -> None:
        """Record how long a live request's tokens took."""
        self._first_token.observe(timing.first_token_s)
        if timing.inter_token_s is not None:
            self._inter_token.observe(timing.inter_token_s)

    def observe_decision(self, decision: Decision) -> None:
        """Show what the controller holds to, and count what it changed. What was not measured is not shown."""
        self._level.set(decision.level)
        self._top_level.set(decision.top_level)
        self._num_sms.set(decision.pace.num_sms)
        self._duty.set(decision.pace.duty)
        self._rollout_limit.set(decision.rollout_limit)
        for gauge in (self._bound, self._p99, self._baseline):
            gauge.clear()
        for reading in decision.readings:
            self._p99.labels(reading.quantity).set(reading.value_s)
            if reading.bound_s is not None:
                self._bound.labels(reading.quantity).set(reading.bound_s)
            if reading.baseline_s is not None:
                self._baseline.labels(reading.quantity).set(reading.baseline_s)
        for move in decision.moves:
            self._decisions.labels(move.direction).inc()
        for quantity in decision.violations:
            self._violations.labels(quantity).inc()

    def set_step_slowdown(self, slowdown: float | None) -> None:
        """Show what training costs the engine's steps; None while it is not known."""
        self._slowdown.set(math.nan if slowdown is None else slowdown)

    def set_engine_activity(self, activity: EngineActivity) -> None:
        """Show what the engine process did lately."""
        self._engine_step.clear()
        steps = {"p50": activity.step_p50_s, "p99": activity.step_p99_s, "max": activity.step_max_s}
        for quantile, duration_s in steps.items():
            if duration_s is not None:
                self._engine_step.labels(quantile).set(duration_s)
        self._engine_thread.clear()
        for state, share in {"cpu": activity.cpu_share, "device_wait": activity.device_wait_share}.items():
            if share is not None:
                self._engine_thread.labels(state).set(share)
        self._train_share.set(activity.train_share)
        self._train_rate.set(activity.train_tokens_per_s)

    def webhook_attempted(self, outcome: str) -> None:
        """Count a try to deliver an event: `delivered`, `retried`, `failed` or `discarded`."""
        self._webhooks.labels(outcome).inc()

    def set_reward_model(self, language: str, version: int | None, accuracy: float | None) -> None:
        """Show which version of a language's reward model judges, and its accuracy where it was measured."""
        self._reward_version.labels(language).set(version or 0)
        self._reward_accuracy.labels(language).set(math.nan if accuracy is None else accuracy)

    def reward_training_ended(self, outcome: str) -> None:
        """Count a training of a reward model that ended as ``outcome``, such as `accepted` or `rejected`."""
        self._reward_trainings.labels(outcome).inc()

    def render(self) -> str:
        """Every metric in Prometheus' text format, version 0.0.4."""
        return generate_latest(self._registry).decode()

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"coloq_{name}", documentation, labels, registry=self._registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(f"coloq_{name}", documentation, labels, registry=self._registry)

    def _histogram(
        self, name: str, documentation: str, *labels: str, buckets: Sequence[float] = _LATENCY_BUCKETS_S
    ) -> Histogram:
        return Histogram(f"coloq_{name}", documentation, labels, registry=self._registry, buckets=buckets)
