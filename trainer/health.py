"""When a run should end: thresholds on what its steps report.

A step that crosses a threshold may be an accident; ``patience`` of them in a row are a run that goes astray.
"""

from collections.abc import Callable, Sequence
from statistics import median

from trainer.config import HealthConfig
from trainer.records import StepReport

_MIN_EARLIER_STEPS = 4
"""Steps that a median of gradient norms is taken over, at the least."""


def unhealthy(steps: Sequence[StepReport], config: HealthConfig) -> str | None:
    """Why a run should end after its newest step, naming threshold and value; None when it may go on.

    Args:
        steps: all of the run so far, the oldest first.
    """
    newest = steps[-config.patience :]
    if len(newest) < config.patience:
        return None
    reasons = (_sample_size(newest, config), _entropy(newest, config), _grad_norm(steps, config))
    return next((reason for reason in reasons if reason is not None), None)


def _sample_size(newest: Sequence[StepReport], config: HealthConfig) -> str | None:
    lowest = config.min_effective_sample_size
    if not _all(newest, lambda step: step.effective_sample_size < lowest):
        return None
    return _reason("min_effective_sample_size", f"{lowest:g}", f"{newest[-1].effective_sample_size:.4g}", len(newest))


def _entropy(newest: Sequence[StepReport], config: HealthConfig) -> str | None:
    lowest = config.min_entropy
    if lowest is None or not _all(newest, lambda step: step.entropy is not None and step.entropy < lowest):
        return None
    return _reason("min_entropy", f"{lowest:g} nats", f"{newest[-1].entropy:.4g}", len(newest))


def _grad_norm(steps: Sequence[StepReport], config: HealthConfig) -> str | None:
    """The newest steps are measured by those before them, which they cannot pull up."""
    earlier, newest = steps[: -config.patience], steps[-config.patience :]
    if config.max_grad_norm_ratio is None or len(earlier) < _MIN_EARLIER_STEPS:
        return None
    usual = median(step.grad_norm for step in earlier)
    largest = config.max_grad_norm_ratio * usual
    if not _all(newest, lambda step: step.grad_norm > largest):
        return None
    limit = f"{config.max_grad_norm_ratio:g} times the median of {usual:.4g}"
    return _reason("max_grad_norm_ratio", limit, f"{newest[-1].grad_norm:.4g}", len(newest))


def _all(steps: Sequence[StepReport], crosses: Callable[[StepReport], bool]) -> bool:
    return all(map(crosses, steps))


def _reason(threshold: str, limit: str, value: str, num_steps: int) -> str:
    return f"tuning.health.{threshold} is {limit}, got {value} after {num_steps} steps in a row beyond it"
