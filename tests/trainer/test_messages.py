"""Commands and answers as bytes."""

import msgspec
import numpy as np
import pytest

from tests.trainer.samples import SETTINGS, completion
from trainer import messages
from trainer.batch import build_batch
from trainer.group import TrainingSequence
from trainer.ports import PolicyMetadata, StepResult

BATCH = build_batch(
    [TrainingSequence(completion(version=3), 0.5, "de"), TrainingSequence(completion(), -0.5, "de")], num_masked=3
)
RESULT = StepResult(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, None)

COMMANDS: list[messages.Command] = [
    messages.Begin(SETTINGS, None),
    messages.Begin(SETTINGS, "policies/v3"),
    messages.Step.of(BATCH, 4),
    messages.Logprobs([[1, 2]], [[3]]),
    messages.Save("policies/v4", PolicyMetadata(4, 3, "run_a", "tiny")),
    messages.Save("policies/v5", PolicyMetadata(5, 4, "run_a", "tiny", "full")),
    messages.Verify("policies/v4"),
    messages.Load("policies/v4", 4),
    messages.LoadBase(),
    messages.Keep(4),
    messages.Forget(4),
    messages.Checkpoint("runs/run_a/step-4"),
    messages.Resume(SETTINGS, "runs/run_a/step-4", 4),
]
ANSWERS: list[messages.Answer] = [
    messages.Done(),
    messages.Done(digest="ab"),
    messages.Done(step=RESULT),
    messages.Done(logprobs=[[-0.5]]),
    messages.Failed("out of memory"),
    messages.Failed("disk full", publication=True),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_commands_survive_the_wire(command: messages.Command) -> None:
    """What is decoded equals what was encoded, type included."""
    assert messages.decode_command(messages.encode(command)) == command


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: type(answer).__name__)
def test_answers_survive_the_wire(answer: messages.Answer) -> None:
    """What is decoded equals what was encoded, type included."""
    assert messages.decode_answer(messages.encode(answer)) == answer


def test_a_batch_survives_the_wire() -> None:
    """Every array comes back with its type and values, and may be written to."""
    command = messages.decode_command(messages.encode(messages.Step.of(BATCH, 4)))
    assert isinstance(command, messages.Step)
    batch = command.batch()
    for name in ("token_ids", "mask", "behaviour_logprobs", "advantages"):
        ours, theirs = getattr(batch, name), getattr(BATCH, name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
        assert ours.flags.writeable
    assert (batch.temperature, batch.oldest_version, batch.num_masked, command.version) == (1.0, 0, 3, 4)


def test_other_bytes_are_an_error() -> None:
    """An answer is no command."""
    with pytest.raises(msgspec.ValidationError):
        messages.decode_command(messages.encode(messages.Done()))
