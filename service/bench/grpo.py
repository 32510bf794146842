"""GRPO end to end on a node: a tuning run over HTTP, and TRL's settings for the same work. Neither writes checkpoints.

    node ─► briefs (so many tokens each) ─► journal ─► tuning run ─► reports, one per step ─► node stopped

A step begins when the one before it is reported and ends with its own report: publication of the version before it and,
meanwhile, rollouts and scores; optimizer step, installation. Both sides sample full-length replies from the whole
distribution, score them with service.bench.peers.reward, and sample the next step's replies with the weights of this
one.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import httpx
from msgspec import Struct

from agent.brief import Brief, Kind
from agent.prompt import PromptLibrary
from service.bench.client import LANGUAGE
from service.bench.failure import BenchFailed
from service.bench.node import TENANT, BenchNode, NodeSettings, bench_node
from service.bench.peers.prompt_text import texts_of_length
from service.bench.peers.reward import REWARDS
from service.bench.peers.trl import WARM_UP_STEPS, TrlSettings
from service.encoder import ChatEncoder
from service.http.client import AdminClient
from service.http.tuning_schema import RunBody, RunView, StepView
from trainer.records import RunState

LEARNING_RATE = 1e-6
"""Random weights have nothing to learn, and must not drift where losses stop being finite."""
_POLL_S = 0.02
_JOURNALLED_TOKENS = 4
"""Replies to the briefs are short: only their prompts are trained on."""
_AT_ONCE = 16


class GrpoStep(Struct, frozen=True):
    """One step of the node's, in seconds of wall clock. The phases and ``other_s`` add up to ``total_s``."""

    total_s: float
    rollout_s: float
    score_s: float
    train_s: float
    install_s: float
    """Filling the engine's adapter slot (or its weights), so that it samples with the new version."""
    other_s: float
    """Publication of the version before where it outlasts the draw, journal, ledger, the way between the processes."""
    num_sequences: int
    num_tokens: int
    """Sampled tokens that were trained on."""
    dropped: dict[str, int]

    @classmethod
    def of(cls, report: StepView, total_s: float) -> "GrpoStep":
        phases = (report.rollout_s, report.score_s, report.train_s, report.install_s)
        return cls(
            total_s, *phases, total_s - sum(phases), report.num_sequences, report.num_tokens, dict(report.dropped)
        )


class GrpoReport(Struct, frozen=True):
    """The node's side."""

    steps: tuple[GrpoStep, ...]
    """Without the warm-up."""

    def summary(self) -> dict[str, float]:
        """Means over the steps, and tokens per second."""
        names = [name for name in GrpoStep.__struct_fields__ if name != "dropped"]
        means = {name: fmean(getattr(step, name) for step in self.steps) for name in names}
        return {**means, "tokens_per_s": means["num_tokens"] / means["total_s"]}


def tuning_overrides(
    *,
    method: str,
    prompts_per_step: int,
    group_size: int,
    reply_tokens: int,
    microbatch_tokens: int | None,
    rank: int,
) -> tuple[str, ...]:
    """A node's configuration for a comparison, as ``section.key=VALUE``."""
    weights = {f"rewards.weights.{name}": weight for name, weight in REWARDS.weights.items()}
    judges = {f"rewards.extra.{name}": target for name, target in REWARDS.extra.items()}
    values: dict[str, object] = {
        "log_level": "warning",
        "tuning.method": method,
        "tuning.prompts_per_step": prompts_per_step,
        "tuning.group_size": group_size,
        "tuning.max_tokens": reply_tokens,
        "tuning.adapter.rank": rank,
        "tuning.learning_rate": LEARNING_RATE,
        "tuning.checkpoint_every": 0,
        "store.held_out_share": 0.0,
        **weights,
        **judges,
    }
    if microbatch_tokens is not None:
        values["tuning.microbatch_tokens"] = microbatch_tokens
    return tuple(f"{key}={json.dumps(value)}" for key, value in values.items())


@dataclass(frozen=True, slots=True)
class NodeRun:
    """A tuning run of a node of its own."""

    settings: NodeSettings
    num_steps: int
    """Optimizer steps, WARM_UP_STEPS of them unmeasured."""
    publish_every: int
    seed: int
    timeout_s: float

    async def measure(self, folder: Path, log_path: Path) -> GrpoReport:
        """Start the node, fill its journal, time the run's steps. Call it on the main thread's event loop.

        Args:
            folder: gets the node's data; must exist and be empty.
            log_path: gets the node's log.

        Raises:
            BenchFailed: a brief was refused, or the run failed.
        """
        prompts = await asyncio.to_thread(self.briefs)
        with bench_node(folder, self.settings, hosted=False, log_path=log_path) as node:
            await _fill_journal(node, prompts)
            async with asyncio.timeout(self.timeout_s):
                return GrpoReport(await self._tuned(node))

    def briefs(self) -> list[str]:
        """Instructions whose prompts have exactly ``prompt_tokens`` tokens, one for every prompt of every step.

        Raises:
            BenchFailed: the templates alone are longer than that.
        """
        encoder, library = ChatEncoder.load(str(self.settings.model)), PromptLibrary.load()

        def encode(instructions: str) -> Sequence[int]:
            prompt = library.render(Brief(TENANT, Kind.CREATE, LANGUAGE, instructions=instructions))
            return encoder.encode(prompt.system, prompt.user)

        num_prompts = self.settings.config.tuning.prompts_per_step * self.num_steps
        try:
            return texts_of_length(encode, num_prompts, self.settings.prompt_tokens, seed=self.seed)
        except ValueError as error:
            raise BenchFailed(f"--prompt-tokens: {error}") from error

    async def _tuned(self, node: BenchNode) -> tuple[GrpoStep, ...]:
        """Run the steps; those after the warm-up, each with the time between its report and the one before."""
        body = RunBody(steps=self.num_steps, publish_every=self.publish_every, gate=False, seed=self.seed)
        reported_s: list[float] = []
        with AdminClient(node.url, node.admin_key) as admin:
            run = await asyncio.to_thread(admin.start, body)
            while not run.state.final:
                await asyncio.sleep(_POLL_S)
                run = await asyncio.to_thread(admin.run, run.id)
                reported_s += [time.perf_counter()] * (len(run.steps) - len(reported_s))
        return measured_steps(run, reported_s)


def measured_steps(run: RunView, reported_s: Sequence[float]) -> tuple[GrpoStep, ...]:
    """A run's steps after the warm-up. Raises BenchFailed when it did not succeed."""
    if run.state is not RunState.SUCCEEDED:
        raise BenchFailed(f"the tuning run must succeed, got {run.state.value}: {run.reason}")
    return tuple(
        GrpoStep.of(run.steps[number], reported_s[number] - reported_s[number - 1])
        for number in range(WARM_UP_STEPS, len(run.steps))
    )


def trl_settings(run: NodeRun, *, microbatch: int, vllm_memory: float, vllm_arguments: str, liger: bool) -> TrlSettings:
    """TRL on the node's model, method and token counts. ``microbatch`` is in sequences, a divisor of a step's."""
    tuning = run.settings.config.tuning
    return TrlSettings(
        model=str(run.settings.model),
        method=tuning.method,
        prompts_per_step=tuning.prompts_per_step,
        group_size=tuning.group_size,
        prompt_tokens=run.settings.prompt_tokens,
        reply_tokens=tuning.max_tokens,
        steps=run.num_steps,
        rank=tuning.adapter.rank,
        alpha=tuning.adapter.alpha,
        microbatch=microbatch,
        learning_rate=tuning.learning_rate,
        vllm_memory=vllm_memory,
        vllm_arguments=vllm_arguments,
        dtype="bfloat16" if stored_dtype(run.settings.model) == "bfloat16" else "float32",
        liger=liger,
        seed=run.seed,
    )


def stored_dtype(model: Path) -> str:
    """The type of a model's weights, by its ``config.json``; older ones call it `torch_dtype`."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return str(config.get("dtype") or config.get("torch_dtype"))


async def _fill_journal(node: BenchNode, instructions: Sequence[str]) -> None:
    headers = {"Authorization": f"Bearer {node.tenant_key}"}
    turns = asyncio.Semaphore(_AT_ONCE)
    async with httpx.AsyncClient(base_url=node.url, headers=headers, timeout=300.0, trust_env=False) as client:

        async def send(text: str) -> None:
            body = {
                "kind": "create",
                "language": LANGUAGE,
                "instructions": text,
                "max_tokens": _JOURNALLED_TOKENS,
                "temperature": 1.0,
            }
            async with turns:
                response = await client.post("/v1/content", json=body)
            if response.status_code != httpx.codes.OK:
                raise BenchFailed(f"a brief must be answered, got status {response.status_code}")

        await asyncio.gather(*map(send, instructions))
