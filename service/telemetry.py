"""Logs and metrics of the node: structlog set up once, and one object that owns every Prometheus metric.

Nothing here holds prompt or reply text. Metrics live in a registry of their own, so a process may have several nodes.
"""

import logging
import sys
from collections.abc import Mapping
from typing import Literal

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from structlog.typing import Processor

from agent.episode import Reply
from trainer.records import StepReport

_LATENCY_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60)
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
    least = dict.fromkeys(_QUIET_LOGGERS, logging.WARNING) | ({} if level == "debug" else _QUIET_UNLESS_DEBUG)
    for name, severity in least.items():
        logging.getLogger(name).setLevel(max(severity, root.level))


def _renderers(log_format: Literal["console", "json"]) -> list[Processor]:
    if log_format == "json":
        return [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]


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
        self._content_failures = self._counter("content_failures", "Briefs without a reply.", "tenant", "error")
        self._journal_failures = self._counter("journal_failures", "Episodes that were not journalled.", "tenant")
        self._journal_corrupt = self._counter("journal_corrupt", "Journal entries that could not be read.")
        self._journal_episodes = self._gauge("journal_episodes", "Episodes kept.", "tenant", "language", "split")
        self._active_policy = self._gauge("policy_active_version", "Version that answers new requests.")
        self._publications = self._counter("publications", "Attempts to publish a policy.", "outcome")
        self._engine_ready = self._gauge("engine_ready", "1 when the engine answers.")
        self._engine_restarts = self._counter("engine_restarts", "Times that the engine process was started again.")
        self._rollouts = self._gauge("rollouts_in_flight", "Sibling replies being sampled.")
        self._preempted = self._gauge("rollouts_preempted", "Rollouts that gave their slot to a live request so far.")
        self._runs = self._counter("tuning_runs", "Tuning runs that ended.", "state")
        self._steps = self._counter("tuning_steps", "Optimizer steps.")
        self._trained_tokens = self._counter("tuning_tokens", "Tokens trained on.")
        self._dropped = self._counter("tuning_dropped", "Replies or groups not trained on.", "reason")
        self._reward = self._gauge("tuning_reward_mean", "Mean reward of the last step.")
        self._language_reward = self._gauge("tuning_language_reward_mean", "Mean reward of the last step.", "language")
        self._loss = self._gauge("tuning_loss", "Loss of the last step.")
        self._grad_norm = self._gauge("tuning_grad_norm", "Gradient 2-norm of the last step, before clipping.")
        self._sample_size = self._gauge("tuning_effective_sample_size", "(sum w)^2 / (n sum w^2) of the last step.")
        self._mismatch = self._gauge("tuning_mismatch_nats", "Mean |engine - trainer logprob| of the last step.")
        self._phase = self._histogram("tuning_phase_duration_seconds", "Time of a step's phases.", "phase")
        ProcessCollector(registry=self._registry)

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

    def set_active_policy(self, version: int) -> None:
        """Show which policy answers new requests."""
        self._active_policy.set(version)

    def publication_ended(self, outcome: str) -> None:
        """Count an attempt to publish: `published`, `rejected` or `failed`."""
        self._publications.labels(outcome).inc()

    def set_engine_ready(self, ready: bool) -> None:
        """Show whether the engine answers."""
        self._engine_ready.set(ready)

    def engine_restarted(self) -> None:
        """Count a restart of the engine process."""
        self._engine_restarts.inc()

    def set_rollouts_in_flight(self, num_rollouts: int) -> None:
        """Show how many sibling replies are being sampled."""
        self._rollouts.set(num_rollouts)

    def set_rollouts_preempted(self, num_rollouts: int) -> None:
        """Show how many rollouts have given their slot to a live request since the start."""
        self._preempted.set(num_rollouts)

    def run_ended(self, state: str) -> None:
        """Count a tuning run that ended in ``state``."""
        self._runs.labels(state).inc()

    def observe_step(self, report: StepReport) -> None:
        """Record one optimizer step."""
        self._steps.inc()
        self._trained_tokens.inc(report.num_tokens)
        for reason, count in report.dropped.items():
            self._dropped.labels(reason).inc(count)
        self._reward.set(report.reward_mean)
        for language, reward in report.reward_by_language.items():
            self._language_reward.labels(language).set(reward)
        self._loss.set(report.loss)
        self._grad_norm.set(report.grad_norm)
        self._sample_size.set(report.effective_sample_size)
        self._mismatch.set(report.mismatch_mean)
        phases = {"rollout": report.rollout_s, "score": report.score_s, "train": report.train_s}
        for phase, duration_s in (phases | {"install": report.install_s}).items():
            self._phase.labels(phase).observe(duration_s)

    def render(self) -> str:
        """Every metric in Prometheus' text format, version 0.0.4."""
        return generate_latest(self._registry).decode()

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"coloq_{name}", documentation, labels, registry=self._registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(f"coloq_{name}", documentation, labels, registry=self._registry)

    def _histogram(self, name: str, documentation: str, *labels: str) -> Histogram:
        return Histogram(f"coloq_{name}", documentation, labels, registry=self._registry, buckets=_LATENCY_BUCKETS_S)
