"""What all measurements have in common: the model, the sizes of prompts and replies, the windows, where results go."""

from dataclasses import dataclass
from pathlib import Path

from service.bench.load import Arrivals, LoadPlan, PromptRecipe, Target
from service.bench.node import BenchNode, NodeSettings
from service.bench.peers.vllm_server import vllm_runs_on_cpu
from service.bench.shape import find_shape, model_folder


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """Options of the command line."""

    out: Path
    """Gets the results."""
    work: Path
    """Keeps models between runs."""
    shape: str
    model: Path | None
    """A model's folder instead of a shape."""
    prompt_tokens: int
    max_tokens: int
    temperature: float
    warmup_s: float
    duration_s: float
    seed: int
    overrides: tuple[str, ...]

    def model_path(self) -> Path:
        """The model's folder, made when it is not there. Raises InvalidInput for an unknown shape."""
        if self.model is not None:
            return self.model.resolve()
        return model_folder(find_shape(self.shape), self.work.resolve())

    def node(self, model: Path) -> NodeSettings:
        """The node to measure."""
        return NodeSettings(model, self.prompt_tokens, self.max_tokens, vllm_runs_on_cpu(), self.overrides)

    def load(
        self, target: Target, arrivals: Arrivals, prompt: PromptRecipe, *, duration_s: float | None = None
    ) -> LoadPlan:
        """A load with these options' sizes and seed."""
        return LoadPlan(
            target,
            arrivals,
            prompt,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            warmup_s=self.warmup_s,
            duration_s=self.duration_s if duration_s is None else duration_s,
            seed=self.seed,
        )


def content_of(node: BenchNode) -> Target:
    """A node's content route."""
    return Target("content", node.url, key=node.tenant_key)
