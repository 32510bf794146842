"""The learner's own thread in the engine process.

The engine's thread only hands commands over (``submit``) and asks for answers (``poll``); both return at once. Commands
run one after another. A command that raises becomes a Failed answer, and the thread goes on.

Replies to be scored by reward models are put on a desk (trainer.reward_desk), which is worked off between commands and
between the micro-batches of a step.
"""

import gc
import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from agent.completion import BASE_VERSION
from agent.errors import ModelError, PublicationFailed, TrainerFailed
from trainer import messages
from trainer.flat_tensors import FlatTensors
from trainer.learner import Learner
from trainer.policy_folder import read_metadata, read_model, read_policy, verify_policy, write_model, write_policy
from trainer.ports import Method, PolicyMetadata, StepResult
from trainer.reward_desk import RewardDesk
from trainer.shards import read_shards, write_shards

STATE = "optimizer"
"""Stem of the files that hold a run's optimizer state."""


class LearnerThread:
    """Runs commands on the learner; keeps the weights of versions until they are forgotten."""

    def __init__(
        self,
        learner: Learner,
        *,
        on_keep: Callable[[FlatTensors], None] = lambda tensors: None,
        desk: RewardDesk | None = None,
        on_answer: Callable[[int], None] = lambda ticket: None,
    ) -> None:
        """An answer is given only when what the command put on the device is done.

        ``on_keep`` is told of every adapter that is kept, in this thread; ``desk`` is the learner's interlude.
        ``on_answer`` is told of each ticket whose answer is there, in this thread.
        """
        self._learner = learner
        self._on_keep = on_keep
        self._desk = desk
        self._on_answer = on_answer
        self._tickets = itertools.count(1)
        self._commands: queue.SimpleQueue[tuple[int, messages.Command] | None] = queue.SimpleQueue()
        """None stands for a job that was put on the desk, and may have been done by then."""
        self._answers: dict[int, messages.Answer] = {}
        self.kept: dict[int, Mapping[str, Tensor]] = {}
        self.configs: dict[int, dict[str, object]] = {}
        self._method: Method = "adapter"
        self._last_good: Literal["host", "gpu"] = "host"
        self._newest: int | None = None
        """The version of the newest step of the current run."""
        threading.Thread(target=self._run, name="coloq-learner", daemon=True).start()

    @property
    def yields(self) -> bool:
        """Whether the present run waits for the engine's steps. Any thread may ask."""
        return self._learner.yields

    def submit(self, command: messages.Command) -> int:
        """Queue a command; returns the ticket to poll for."""
        ticket = next(self._tickets)
        if isinstance(command, messages.ScoreReplies):
            self._require_desk().put(command, partial(self._answer, ticket))
            self._commands.put(None)
        else:
            self._commands.put((ticket, command))
        return ticket

    def poll(self, ticket: int) -> messages.Answer | None:
        """The answer, once; None while the command waits or runs."""
        return self._answers.pop(ticket, None)

    def publish_live(self, version: int) -> None:
        """Method ``full``: round the masters of ``version`` into the live weights. For the engine's thread.

        Raises:
            TrainerFailed: the newest step is not ``version``'s, or the run trains an adapter.
        """
        if version != self._newest:
            raise TrainerFailed(f"only the newest step can be published: version {self._newest}, got {version}")
        self._learner.publish_live()

    def restore_live(self, version: int) -> None:
        """Method ``full``: copy a kept version's weights into the live ones. For the engine's thread.

        Raises:
            TrainerFailed: the version is not kept, or does not fit the model.
        """
        if version not in self.kept:
            raise TrainerFailed(f"version {version} is not kept, only {sorted(self.kept)}")
        self._learner.restore_live(self.kept[version])

    def memory(self) -> dict[str, int]:
        """Bytes that the learner and the kept versions hold on the model's device, by what they are."""
        rewards = 0 if self._desk is None else self._desk.size_bytes
        return self._learner.memory() | {
            "kept_versions": sum(tensor.nbytes for tensor in self._kept_on_device()),
            "reward_models": rewards,
        }

    def _kept_on_device(self) -> list[Tensor]:
        device, tensors = self._learner.model.device, list[Tensor]()
        for kept in list(self.kept.values()):
            tensors += [kept.flat] if isinstance(kept, FlatTensors) else kept.values()
        return [tensor for tensor in tensors if tensor.device == device]

    def _run(self) -> None:
        with self._learner.on_stream():
            while True:
                order = self._commands.get()
                if order is None:
                    self._require_desk().finish_one()
                else:
                    ticket, command = order
                    self._answer(ticket, self._carry_out(command))

    def _answer(self, ticket: int, answer: messages.Answer) -> None:
        self._answers[ticket] = answer
        self._on_answer(ticket)

    def _carry_out(self, command: messages.Command) -> messages.Answer:
        try:
            done = self._dispatch(command)
            self._learner.synchronize()
            return done
        except PublicationFailed as error:
            return messages.Failed(str(error), publication=True)
        except ModelError as error:
            return messages.Failed(str(error))
        except Exception as error:  # noqa: BLE001 - the thread outlives any command; the reason goes to the front process
            return messages.Failed(f"{type(error).__name__}: {error}")

    def _dispatch(self, command: messages.Command) -> messages.Done:
        match command:
            case messages.Step():
                return messages.Done(step=self._step(command))
            case messages.Logprobs():
                return messages.Done(logprobs=self._learner.logprobs(command.prompts, command.replies))
            case messages.Save():
                return messages.Done(digest=self._save(Path(command.folder), command.metadata))
            case messages.Verify():
                return messages.Done(digest=verify_policy(Path(command.folder)))
            case messages.Load():
                return messages.Done(digest=self._load(Path(command.folder), command.version))
            case messages.Checkpoint():
                write_shards(Path(command.folder), self._learner.export(), stem=STATE)
                return messages.Done()
            case messages.Resume():
                self._resume(command)
                return messages.Done()
            case messages.OpenBackbone():
                return messages.Done(backbone=self._require_desk().open(command))
            case _:
                self._change(command)
                return messages.Done()

    def _change(
        self,
        command: messages.Prepare
        | messages.Begin
        | messages.LoadBase
        | messages.Keep
        | messages.Forget
        | messages.LoadReward
        | messages.DropReward
        | messages.ScoreReplies,
    ) -> None:
        """Carry out a command that has no result."""
        match command:
            case messages.Prepare():
                self._learner.prepare(
                    command.settings,
                    max_length=command.max_length,
                    reply_tokens=command.reply_tokens,
                    temperature=command.temperature,
                )
                # What is there by now stays: the collector need not walk over it while the engine serves.
                gc.collect()
                gc.freeze()
                self._method, self._last_good = command.settings.method, command.settings.last_good
            case messages.Begin():
                parent = read_policy(Path(command.parent_folder))[0] if command.parent_folder else None
                self._newest = None
                self._method, self._last_good = command.settings.method, command.settings.last_good
                self._learner.begin(command.settings, parent)
            case messages.LoadBase():
                self.kept[BASE_VERSION] = self._in_host_memory(read_model(self._learner.base_folder()))
            case messages.Keep():
                self.kept[command.version] = self._copy_of_live_weights()
            case messages.Forget():
                self.kept.pop(command.version, None)
                self.configs.pop(command.version, None)
            case messages.LoadReward():
                self._require_desk().load(command)
            case messages.DropReward():
                self._require_desk().drop(command)

    def _require_desk(self) -> RewardDesk:
        if self._desk is None:
            raise TrainerFailed("this process holds no reward models")
        return self._desk

    def _step(self, command: messages.Step) -> StepResult:
        result = self._learner.step(command.batch())
        self._newest = command.version
        if self._method == "adapter":
            self._keep(command.version, self._learner.snapshot(), self._learner.adapter_config())
        return result

    def _resume(self, command: messages.Resume) -> None:
        """The version is then ready to be installed or published, as after its step."""
        self._newest = None
        self._method, self._last_good = command.settings.method, command.settings.last_good
        self._learner.resume(command.settings, read_shards(Path(command.folder), stem=STATE))
        self._newest = command.version
        if self._method == "adapter":
            self._keep(command.version, self._learner.snapshot(), self._learner.adapter_config())

    def _save(self, folder: Path, metadata: PolicyMetadata) -> str:
        if self._method == "full":
            return write_model(folder, self._learner.live_weights(), self._learner.model_config(), metadata)
        version = metadata.version
        if version not in self.kept:
            raise PublicationFailed(f"version {version} is not kept, only {sorted(self.kept)}")
        here = FlatTensors.of(self.kept[version]).to(torch.device("cpu"))
        return write_policy(folder, here, self.configs[version], metadata)

    def _load(self, folder: Path, version: int) -> str:
        if read_metadata(folder).method == "full":
            digest = verify_policy(folder)
            self.kept[version] = self._in_host_memory(read_model(folder))
            return digest
        tensors, config, digest = read_policy(folder)
        self._keep(version, tensors, config)
        return digest

    def _in_host_memory(self, tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
        """In the model's precision, pinned where a GPU is to read it; without tied weights' second names."""
        names, dtype = self._learner.live_weights().keys(), self._learner.model.dtype
        return {name: self._pinned(tensor.to(dtype)) for name, tensor in tensors if name in names}

    def _copy_of_live_weights(self) -> dict[str, Tensor]:
        live = self._learner.live_weights()
        if self._last_good == "gpu":
            return {name: tensor.clone() for name, tensor in live.items()}
        return {name: self._pinned(tensor.cpu()) for name, tensor in live.items()}

    def _pinned(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self._learner.model.device.type == "cuda" else tensor.clone()

    def _keep(self, version: int, tensors: Mapping[str, Tensor], config: dict[str, object]) -> None:
        """Adapters are kept on the model's device, ready to be copied into a slot."""
        device, dtype = self._learner.model.device, self._learner.model.dtype
        self.configs[version] = config
        self.kept[version] = adapter = FlatTensors.of(tensors).to(device, dtype)
        self._on_keep(adapter)
