"""The learner's own thread in the engine process.

The engine's thread only hands commands over (``submit``) and asks for answers (``poll``); both return at once. Commands
run one after another. A command that raises becomes a Failed answer, and the thread goes on.
"""

import itertools
import queue
import threading
from pathlib import Path

import torch
from torch import Tensor

from agent.errors import PublicationFailed
from trainer import messages
from trainer.learner import Learner
from trainer.policy_folder import read_policy, write_policy


class LearnerThread:
    """Runs commands on the learner; keeps the weights of versions until they are forgotten."""

    def __init__(self, learner: Learner, *, stream: torch.cuda.Stream | None = None) -> None:
        """On CUDA the learner works on ``stream``; an answer is given only when the stream's work is done."""
        self._learner = learner
        self._stream = stream
        self._tickets = itertools.count(1)
        self._commands: queue.SimpleQueue[tuple[int, messages.Command]] = queue.SimpleQueue()
        self._answers: dict[int, messages.Answer] = {}
        self.kept: dict[int, dict[str, Tensor]] = {}
        self.configs: dict[int, dict[str, object]] = {}
        threading.Thread(target=self._run, name="coloq-learner", daemon=True).start()

    def submit(self, command: messages.Command) -> int:
        """Queue a command; returns the ticket to poll for."""
        ticket = next(self._tickets)
        self._commands.put((ticket, command))
        return ticket

    def poll(self, ticket: int) -> messages.Answer | None:
        """The answer, once; None while the command waits or runs."""
        return self._answers.pop(ticket, None)

    def _run(self) -> None:
        with torch.cuda.stream(self._stream):
            while True:
                ticket, command = self._commands.get()
                self._answers[ticket] = self._carry_out(command)

    def _carry_out(self, command: messages.Command) -> messages.Answer:
        try:
            done = self._dispatch(command)
            if self._stream is not None:
                self._stream.synchronize()
            return done
        except PublicationFailed as error:
            return messages.Failed(str(error), publication=True)
        except Exception as error:  # noqa: BLE001 - the thread outlives any command; the reason goes to the front process
            return messages.Failed(f"{type(error).__name__}: {error}")

    def _dispatch(self, command: messages.Command) -> messages.Done:
        match command:
            case messages.Begin():
                parent = read_policy(Path(command.parent_folder))[0] if command.parent_folder else None
                self._learner.begin(command.settings, parent)
                return messages.Done()
            case messages.Step():
                result = self._learner.step(command.batch())
                self._keep(command.version, self._learner.snapshot(), self._learner.adapter_config())
                return messages.Done(step=result)
            case messages.Logprobs():
                return messages.Done(logprobs=self._learner.logprobs(command.prompts, command.replies))
            case messages.Save():
                version = command.metadata.version
                if version not in self.kept:
                    raise PublicationFailed(f"version {version} is not kept, only {sorted(self.kept)}")
                digest = write_policy(Path(command.folder), self.kept[version], self.configs[version], command.metadata)
                return messages.Done(digest=digest)
            case messages.Load():
                tensors, config, digest = read_policy(Path(command.folder))
                self._keep(command.version, tensors, config)
                return messages.Done(digest=digest)
            case messages.Forget():
                self.kept.pop(command.version, None)
                self.configs.pop(command.version, None)
                return messages.Done()

    def _keep(self, version: int, tensors: dict[str, Tensor], config: dict[str, object]) -> None:
        self.configs[version] = config
        self.kept[version] = tensors
