"""`coloq bench learn`: does the policy get better on held-out prompts in many languages, beside TRL, with old rollouts?

    prompts ─► node ─► journal ─► runs by seed (each from the untuned model) ─► runs by staleness ─► node stopped ─► TRL
                                  exam, run beside live requests, exam          likewise

Results are written after every run, also when something fails or the time is used up: JSON, charts, Markdown.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console

from agent.prompt import PromptLibrary
from service.bench.grpo import stored_dtype
from service.bench.learning.budget import Budget, PhaseRow
from service.bench.learning.messages import SeedOrder
from service.bench.learning.prompts import PromptSet, make_prompts
from service.bench.learning.results import TRL, LearnResults
from service.bench.learning.runs import LearnControl, NodeRuns, RunRow, Variant
from service.bench.learning.settings import LearnOptions, Pace, node_settings, plan_of
from service.bench.learning.trl import TrlOrder, learn_with_trl
from service.bench.node import BenchNode, bench_node
from service.bench.peers.trl import TrlSettings
from service.bench.peers.vllm_server import vllm_runs_on_cpu
from service.bench.report import Report, table, written
from service.demo.interrupts import sigterm_as_ctrl_c
from service.encoder import ChatEncoder
from service.http.client import AdminClient


def bench_learn(options: LearnOptions, *, console: Console) -> Report:
    """Run the bench and write its results; returns the report. Call it from the main thread.

    Raises:
        ColoqError: the node did not start, or a measurement failed; what was measured before is written.
    """
    report = Report("learn", options.out, console, {"options": options})
    with sigterm_as_ctrl_c(), written(report):
        on_cpu = vllm_runs_on_cpu()
        bench = LearnBench(options, report, Budget(options.budget_s), Pace.assumed(on_cpu=on_cpu), on_cpu=on_cpu)
        bench.play()
    return report


@dataclass(slots=True)
class LearnBench:
    """One run of the command."""

    options: LearnOptions
    report: Report
    budget: Budget
    pace: Pace
    on_cpu: bool = field(kw_only=True)
    results: LearnResults = field(init=False)

    def __post_init__(self) -> None:
        self.results = LearnResults(self.report)

    def play(self) -> None:
        """Do everything that the budget allows."""
        options = self.options
        prompts = make_prompts(options.languages, options.num_train, options.num_held_out, seed=options.prompt_seed)
        longest = longest_prompt(options.model, prompts)
        self.report.say(
            f"{len(prompts.train)} prompts to train on, {len(prompts.held_out)} held out, "
            f"{len(options.languages)} languages, longest prompt {longest} tokens"
        )
        self._show_plan()
        self._on_node(prompts, longest)
        if options.against_trl:
            for seed in options.trl_seeds:
                self._against_trl(prompts, longest, seed)

    def _show_plan(self) -> None:
        phases = plan_of(self.options, self.pace)
        rows = [(phase.name, f"{phase.estimate_s:.0f}") for phase in phases]
        total_s = sum(phase.estimate_s for phase in phases)
        self.report.console.print(
            table("Plan, once the node is up", ("phase", "s"), [*rows, ("all", f"{total_s:.0f}")])
        )

    def _on_node(self, prompts: PromptSet, longest: int) -> None:
        settings = node_settings(self.options, longest, on_cpu=self.on_cpu)
        with tempfile.TemporaryDirectory(prefix="coloq-bench-") as folder:
            began_s = time.monotonic()
            self.report.say("starting the node")
            with bench_node(Path(folder), settings, hosted=True, log_path=self.report.log_path) as node:
                self._note("start of the node", time.monotonic() - began_s)
                asyncio.run(self._run_all(node, prompts))

    async def _run_all(self, node: BenchNode, prompts: PromptSet) -> None:
        async with LearnControl(node.control_url or "", node.admin_key) as control:
            with self._phase("prompts into the journal"):
                seeded = await control.seed(SeedOrder(briefs=list(prompts.train)))
            self.report.add("seeded", seeded)
            with AdminClient(node.url, node.admin_key) as admin:
                runs = NodeRuns(node, control, admin, self.options.runs, prompts.held_out, self.budget)
                for variant in self.options.variants:
                    await self._run(runs, variant)

    async def _run(self, runs: NodeRuns, variant: Variant) -> None:
        options, exam_s = self.options, self.pace.exam_s(self.options)
        later_s = self.pace.trl_s(options)
        if not self.budget.allows(later_s + 2 * exam_s + self.pace.run_s(options, variant.num_steps) / 4):
            self._skip(variant.label)
            return
        with self._phase(f"run, {variant.label}"):
            row = await runs.run(variant, reserve_s=later_s + exam_s)
        if row.points:
            self.pace.tokens_per_s = len(row.points) * options.tokens_per_step / row.duration_s
        self._keep(row)

    def _against_trl(self, prompts: PromptSet, longest: int, seed: int) -> None:
        exam_s = self.pace.exam_s(self.options)
        label = f"TRL, seed {seed}"
        if not self.budget.allows(2 * exam_s):
            self._skip(label)
            return
        order = self._trl_order(prompts, longest, seed, longest_s=self.budget.left_s - 2 * exam_s)
        with self._phase(label):
            learned = asyncio.run(learn_with_trl(order, log_path=self.options.out / f"learn-trl-{seed}.log"))
        self.report.add("trl", {"seed": seed, "start_s": learned.start_s, "ungradable": learned.num_ungradable})
        self.report.add("trl_versions", learned.versions)
        stopped = len(learned.points) < self.options.num_steps
        self._keep(
            RunRow(
                system=TRL,
                variant=Variant(seed, self.options.num_steps),
                state="failed" if learned.error else "stopped" if stopped else "succeeded",
                reason=learned.error,
                duration_s=learned.train_s or 0.0,
                points=learned.points,
                before=learned.before,
                after=learned.after,
            )
        )

    def _trl_order(self, prompts: PromptSet, longest: int, seed: int, *, longest_s: float) -> TrlOrder:
        options = self.options
        config = node_settings(options, longest, on_cpu=self.on_cpu).config.tuning
        settings = TrlSettings(
            model=str(options.model),
            prompts_per_step=options.prompts_per_step,
            group_size=options.group_size,
            prompt_tokens=longest,
            reply_tokens=options.max_tokens,
            rank=options.rank,
            alpha=config.adapter.alpha,
            microbatch=options.trl_microbatch,
            learning_rate=options.learning_rate,
            vllm_memory=options.vllm_memory,
            vllm_arguments=options.vllm_arguments,
            dtype="bfloat16" if stored_dtype(options.model) == "bfloat16" and not self.on_cpu else "float32",
            seed=seed,
        )
        return TrlOrder(
            settings=asdict(settings),
            num_steps=options.num_steps,
            train=list(prompts.train),
            held_out=list(prompts.held_out),
            exam_replies=options.exam_replies,
            fluency=options.fluency,
            longest_s=min(longest_s, 3600.0),
        )

    def _keep(self, row: RunRow) -> None:
        self.results.add(row)
        rewards = [point.reward for point in row.points]
        if rewards:
            self.report.say(
                f"{row.system}, {row.variant.label}: {row.state} after {len(rewards)} steps in {row.duration_s:.1f} s, "
                f"training reward {rewards[0]:.3f} at first, {rewards[-1]:.3f} at last"
            )
        else:
            self.report.say(f"{row.system}, {row.variant.label}: {row.state}: {row.reason}")

    def _skip(self, label: str) -> None:
        self.report.say(f"no time is left for: {label}")
        self.report.add("skipped", label)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        began_s = time.monotonic()
        yield
        self._note(name, time.monotonic() - began_s)

    def _note(self, name: str, duration_s: float) -> None:
        self.report.add("phases", PhaseRow(name, duration_s))
        self.report.say(f"{name}: {duration_s:.1f} s")


def longest_prompt(model: Path, prompts: PromptSet) -> int:
    """Tokens of the longest prompt, by the model's own tokenizer."""
    encoder, library = ChatEncoder.load(str(model)), PromptLibrary.load()
    rendered = [library.render(brief) for brief in (*prompts.train, *prompts.held_out)]
    return max(len(encoder.encode(prompt.system, prompt.user)) for prompt in rendered)
