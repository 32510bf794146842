"""The peer's program: TRL's GRPOTrainer (vLLM colocate) on the bench's prompts, reward and exam.

    order ─► model, datasets, reward ─► exam ─► train(), a point per step ─► exam ─► result

Objective and options are those of service.bench.peers.trl_setup; here replies may end by themselves. TRL shuffles the
training prompts by its seed. A reply without a reward is left out of its group's mean by TRL as by the node; a group
without a spread takes part with advantage zero, where the node draws another one.
"""

import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec

from agent.brief import Brief
from agent.prompt import PromptLibrary
from rewards.score import Score
from service.bench.learning.exam import Examiner, Graded, reply_sample, reward_config
from service.bench.learning.figures import Point
from service.bench.learning.fluency import MODEL_VARIABLE
from service.bench.learning.trl import TrlLearned, TrlOrder
from service.bench.peers.trl import TrlSettings
from service.bench.peers.trl_setup import (
    ENVIRONMENT,
    device_name,
    grpo_config,
    installed_versions,
    lora_config,
    prepare_vllm,
)

_EXAM_AT_ONCE = 32
"""Held-out prompts of one batch."""


class LearnReward:
    """The reward as a function of texts, in the form that TRL calls; keeps what it judged."""

    __name__ = "learn"

    def __init__(self, examiner: Examiner, briefs: Sequence[Brief], *, max_tokens: int, end: int | None) -> None:
        """``briefs`` are those that the datasets' column ``number`` counts; ``end`` is the token that ends a reply."""
        self._examiner, self._briefs = examiner, briefs
        self._max_tokens, self._end = max_tokens, end
        self.exam: list[Graded] | None = None
        """Set to a list to grade as an exam does, into it."""
        self.num_ungradable = 0
        self._rewards: list[float] = []
        self._parts: dict[str, list[float]] = {}
        self._num_samples = 0

    def __call__(
        self,
        completions: Sequence[Sequence[Mapping[str, str]]],
        completion_ids: Sequence[Sequence[int]],
        number: Sequence[int],
        **_: object,
    ) -> list[float | None]:
        """One reward per completion, None where there is none."""
        samples = [
            reply_sample(
                self._briefs[which],
                completion[0]["content"],
                len(ids),
                truncated=len(ids) >= self._max_tokens and ids[-1] != self._end,
            )
            for which, completion, ids in zip(number, completions, completion_ids, strict=True)
        ]
        if self.exam is not None:
            graded = self._examiner.grade(number, samples)
            self.exam += graded
            return [reply.reward for reply in graded]
        scores = self._examiner.judge.score(samples)
        self._num_samples += len(scores)
        for score in scores:
            if isinstance(score, Score):
                self._rewards.append(score.value)
                for name, value in score.parts.items():
                    self._parts.setdefault(name, []).append(value)
        values = [score.value if isinstance(score, Score) else None for score in scores]
        self.num_ungradable += values.count(None)
        return values

    def point(self, at_s: float) -> Point:
        """What was judged since the last call, as a step that ended then."""
        parts = {name: fmean(values) for name, values in self._parts.items()}
        point = Point(at_s, self._num_samples, fmean(self._rewards or [0.0]), parts)
        self._rewards, self._parts = [], {}
        return point


def main() -> int:
    """Carry the order out; the process's exit status."""
    began_s = time.monotonic()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    order_path, out = map(Path, sys.argv[1:])
    order = msgspec.json.decode(order_path.read_bytes(), type=TrlOrder)
    settings = TrlSettings(**order.settings)
    os.environ[MODEL_VARIABLE] = settings.model
    learning = Learning(order, settings, out)
    error = None
    try:
        learning.prepare()
        learning.start_s = time.monotonic() - began_s
        learning.carry_out()
    except BaseException as failure:  # noqa: BLE001 - whatever ends the run goes into the result
        traceback.print_exc()
        error = f"{type(failure).__name__}: {failure}"
    learning.write(error)
    return 0 if error is None else 1


class Learning:
    """One run of TRL's, from the order to the result."""

    def __init__(self, order: TrlOrder, settings: TrlSettings, out: Path) -> None:
        self._order, self._settings, self._out = order, settings, out
        self._points: list[Point] = []
        self._before: list[Graded] = []
        self._after: list[Graded] = []
        self._train_s: float | None = None
        self._reward: LearnReward | None = None
        self._trainer: Any = None
        self.start_s: float | None = None

    def prepare(self) -> None:
        """Load everything and build the trainer."""
        import torch
        from datasets import Dataset
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from trl.trainer.grpo_trainer import GRPOTrainer

        order, settings = self._order, self._settings
        on_gpu = torch.cuda.is_available()
        prepare_vllm(msgspec.json.decode(settings.vllm_arguments), on_gpu=on_gpu)
        tokenizer = AutoTokenizer.from_pretrained(settings.model, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(
            settings.model, dtype=getattr(torch, settings.dtype), attn_implementation="sdpa"
        )
        examiner = Examiner.of(reward_config(fluency=order.fluency))
        briefs = [*order.train, *order.held_out]
        self._reward = LearnReward(examiner, briefs, max_tokens=settings.reply_tokens, end=tokenizer.eos_token_id)
        self._held_out = Dataset.from_list(rows(order.held_out, first=len(order.train)))
        self._trainer = GRPOTrainer(
            model=model,
            reward_funcs=[self._reward],
            args=grpo_config(settings, self._out.parent, on_gpu=on_gpu, overrides=self._overrides()),
            train_dataset=Dataset.from_list(rows(order.train, first=0)),
            processing_class=tokenizer,
            callbacks=[self._callback()],
            peft_config=lora_config(settings),
        )

    def carry_out(self) -> None:
        """Exam, training, exam."""
        self._before = self._examined()
        self._trainer.train()
        self._after = self._examined()

    def write(self, error: str | None) -> None:
        """Write what there is."""
        learned = TrlLearned(
            points=self._points,
            before=self._before,
            after=self._after,
            num_ungradable=self._reward.num_ungradable if self._reward is not None else 0,
            start_s=self.start_s,
            train_s=self._train_s,
            device=device_name(),
            versions=installed_versions(),
            error=error,
        )
        self._out.write_bytes(msgspec.json.encode(learned))

    def _overrides(self) -> Mapping[str, Any]:
        """Replies end where the policy ends them; exams sample as the node's do; importance weights are the node's."""
        return {
            "vllm_importance_sampling_mode": "token_truncate",
            "vllm_importance_sampling_clip_max": 2.0,
            "max_steps": self._order.num_steps,
            "generation_kwargs": None,
            "num_generations_eval": self._order.exam_replies,
            "per_device_eval_batch_size": _EXAM_AT_ONCE * self._order.exam_replies,
        }

    def _examined(self) -> list[Graded]:
        assert self._reward is not None
        graded: list[Graded] = []
        self._reward.exam = graded
        self._trainer.evaluate(self._held_out)
        self._reward.exam = None
        first = len(self._order.train)
        return [replace(reply, prompt=reply.prompt - first) for reply in graded]

    def _callback(self) -> Any:
        from transformers import TrainerCallback

        learning = self

        class StepCallback(TrainerCallback):
            def on_train_begin(self, *args: object, **kwargs: object) -> None:
                learning.begin()

            def on_step_end(self, args: object, state: object, control: Any, **kwargs: object) -> None:
                control.should_training_stop |= learning.step_done()

        return StepCallback()

    def begin(self) -> None:
        """Training begins."""
        self._began_s = time.monotonic()

    def step_done(self) -> bool:
        """A step is over; returns whether it was the last one in the given time."""
        assert self._reward is not None
        self._train_s = time.monotonic() - self._began_s
        self._points.append(self._reward.point(self._train_s))
        return self._train_s > self._order.longest_s


def rows(briefs: Sequence[Brief], *, first: int) -> list[dict[str, Any]]:
    """Briefs as a dataset: the node's own prompts as messages, and the brief's number."""
    library = PromptLibrary.load()
    made = []
    for number, brief in enumerate(briefs, start=first):
        prompt = library.render(brief)
        system = [{"role": "system", "content": prompt.system}] if prompt.system else []
        made.append({"prompt": [*system, {"role": "user", "content": prompt.user}], "number": number})
    return made


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Without Python's own teardown: that of an engine and NCCL in the trainer's process may abort or hang.
    os._exit(status)
