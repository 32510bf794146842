"""What Prometheus shows of tuning: runs, their steps, and what the gate decided."""

import math
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from trainer.records import Evaluation, StepReport

_PHASE_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60)


class TuningMetrics:
    """Counts and shows tuning in a node's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, gauge = partial(_counter, registry), partial(_gauge, registry)
        self._runs = counter("tuning_runs", "Tuning runs that ended.", "state")
        self._steps = counter("tuning_steps", "Optimizer steps.")
        self._trained_tokens = counter("tuning_tokens", "Tokens trained on.")
        self._dropped = counter("tuning_dropped", "Replies or groups not trained on.", "reason")
        self._passed_over = counter("tuning_passed_over", "Logged prompts that were not claimed.", "reason")
        self._groups = counter("tuning_groups", "Groups scored, logged ones and those sampled.", "source")
        self._staleness = gauge("tuning_staleness", "Steps since the last step's tokens were sampled.", "statistic")
        self._reward = gauge("tuning_reward_mean", "Mean reward of the last step.")
        self._language_reward = gauge("tuning_language_reward_mean", "Mean reward of the last step.", "language")
        self._loss = gauge("tuning_loss", "Loss of the last step.")
        self._grad_norm = gauge("tuning_grad_norm", "Gradient 2-norm of the last step, before clipping.")
        self._sample_size = gauge("tuning_effective_sample_size", "(sum w)^2 / (n sum w^2) of the last step.")
        self._mismatch = gauge("tuning_mismatch_nats", "Mean |engine - trainer logprob| of the last step.")
        self._mismatch_max = gauge("tuning_mismatch_max_nats", "Largest of a token in the last step.")
        self._clip_fraction = gauge("tuning_clip_fraction", "Share of clipped tokens in the last step.")
        self._entropy = gauge("tuning_entropy_nats", "Mean entropy of the trained tokens' distributions.")
        self._behaviour_kl = gauge("tuning_behaviour_kl_nats", "KL(engine || trained policy) of the last step.")
        self._base_kl = gauge("tuning_base_kl_nats", "KL(trained policy || base) of the last step.")
        self._gate_decisions = counter("gate_decisions", "Candidates that the gate decided about.", "verdict")
        self._gate_difference = gauge(
            "gate_difference", "Candidate less baseline on held-out prompts, last decision.", "language", "metric"
        )
        self._phase = Histogram(
            "coloq_tuning_phase_duration_seconds",
            "Time of a step's phases.",
            ("phase",),
            registry=registry,
            buckets=_PHASE_BUCKETS_S,
        )

    def run_ended(self, state: str) -> None:
        """Count a tuning run that ended in ``state``."""
        self._runs.labels(state).inc()

    def observe_step(self, report: StepReport) -> None:
        """Record one optimizer step."""
        self._steps.inc()
        self._trained_tokens.inc(report.num_tokens)
        for reason, count in report.dropped.items():
            self._dropped.labels(reason).inc(count)
        for reason, count in report.passed_over.items():
            self._passed_over.labels(reason).inc(count)
        self._groups.labels("logged").inc(report.num_logged_groups)
        self._groups.labels("sampled").inc(report.num_sampled_groups)
        self._staleness.labels("mean").set(report.staleness_mean)
        self._staleness.labels("max").set(report.staleness_max)
        self._reward.set(report.reward_mean)
        for language, reward in report.reward_by_language.items():
            self._language_reward.labels(language).set(reward)
        self._loss.set(report.loss)
        self._grad_norm.set(report.grad_norm)
        self._sample_size.set(report.effective_sample_size)
        self._mismatch.set(report.mismatch_mean)
        self._clip_fraction.set(report.clip_fraction)
        measured = {
            self._mismatch_max: report.mismatch_max,
            self._entropy: report.entropy,
            self._behaviour_kl: report.behaviour_kl,
            self._base_kl: report.base_kl,
        }
        for gauge, value in measured.items():
            gauge.set(math.nan if value is None else value)
        phases = {"rollout": report.rollout_s, "score": report.score_s, "train": report.train_s}
        for phase, duration_s in (phases | {"install": report.install_s}).items():
            self._phase.labels(phase).observe(duration_s)

    def observe_evaluation(self, evaluation: Evaluation) -> None:
        """Count a decision of the gate, and show the differences that it found."""
        report = evaluation.report
        if report is None:
            return
        self._gate_decisions.labels(report.verdict.value).inc()
        self._gate_difference.clear()
        for comparison in report.comparisons:
            self._gate_difference.labels(comparison.language, comparison.metric).set(comparison.difference)


def _counter(registry: CollectorRegistry, name: str, documentation: str, *labels: str) -> Counter:
    return Counter(f"coloq_{name}", documentation, labels, registry=registry)


def _gauge(registry: CollectorRegistry, name: str, documentation: str, *labels: str) -> Gauge:
    return Gauge(f"coloq_{name}", documentation, labels, registry=registry)
