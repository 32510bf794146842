"""Commands from the front process to the learner in the engine process, and their answers, as msgpack bytes."""

from typing import Literal

import msgspec
import numpy as np
from msgspec import Struct

from trainer.batch import TrainingBatch
from trainer.ports import LearnerSettings, PolicyMetadata, StepResult


class Begin(Struct, tag=True, frozen=True):
    settings: LearnerSettings
    parent_folder: str | None


class Prepare(Struct, tag=True, frozen=True):
    """Allocate and capture what runs of these settings need, before the engine takes requests."""

    settings: LearnerSettings
    max_length: int
    reply_tokens: int
    temperature: float


class Step(Struct, tag=True, frozen=True):
    version: int
    shape: tuple[int, int]
    token_ids: bytes
    mask: bytes
    behaviour_logprobs: bytes
    advantages: bytes
    temperature: float
    oldest_version: int
    num_masked: int

    @classmethod
    def of(cls, batch: TrainingBatch, version: int) -> "Step":
        rows, length = batch.token_ids.shape
        return cls(
            version=version,
            shape=(rows, length),
            token_ids=batch.token_ids.astype(np.int32).tobytes(),
            mask=batch.mask.tobytes(),
            behaviour_logprobs=batch.behaviour_logprobs.tobytes(),
            advantages=batch.advantages.tobytes(),
            temperature=batch.temperature,
            oldest_version=batch.oldest_version,
            num_masked=batch.num_masked,
        )

    def batch(self) -> TrainingBatch:
        return TrainingBatch(
            token_ids=np.frombuffer(self.token_ids, np.int32).reshape(self.shape).astype(np.int64),
            mask=np.frombuffer(self.mask, np.bool_).reshape(self.shape).copy(),
            behaviour_logprobs=np.frombuffer(self.behaviour_logprobs, np.float32).reshape(self.shape).copy(),
            advantages=np.frombuffer(self.advantages, np.float32).copy(),
            temperature=self.temperature,
            oldest_version=self.oldest_version,
            num_masked=self.num_masked,
        )


class Logprobs(Struct, tag=True, frozen=True):
    prompts: list[list[int]]
    replies: list[list[int]]


class Save(Struct, tag=True, frozen=True):
    folder: str
    metadata: PolicyMetadata


class Verify(Struct, tag=True, frozen=True):
    folder: str


class Load(Struct, tag=True, frozen=True):
    folder: str
    version: int


class Checkpoint(Struct, tag=True, frozen=True):
    """Write the run's optimizer state into a folder that is there."""

    folder: str


class Resume(Struct, tag=True, frozen=True):
    """Go on with a run from a folder that ``Checkpoint`` filled; its weights are ``version``'s."""

    settings: LearnerSettings
    folder: str
    version: int


class LoadBase(Struct, tag=True, frozen=True):
    """Method ``full``: keep the base model's weights as version 0."""


class Keep(Struct, tag=True, frozen=True):
    """Method ``full``: keep a copy of the live weights."""

    version: int


class Forget(Struct, tag=True, frozen=True):
    version: int


class OpenBackbone(Struct, tag=True, frozen=True):
    """Load a backbone of reward models, in place of one of the same name."""

    backbone: str
    source: str
    """Folder or Hugging Face id; of the served model where its weights are shared."""
    shares: bool
    """True builds it on the engine's own weights."""
    device: Literal["engine", "cpu"]


class LoadReward(Struct, tag=True, frozen=True):
    """Load a version of a language's reward model onto its backbone, under the adapter's name."""

    backbone: str
    adapter: str
    folder: str


class DropReward(Struct, tag=True, frozen=True):
    backbone: str
    adapter: str


class ScoreReplies(Struct, tag=True, frozen=True):
    """Score rows of token ids by a reward model; carried out between micro-batches, too."""

    backbone: str
    adapter: str | None
    """None is the backbone's own head."""
    rows: list[list[int]]
    batch_tokens: int | None
    """Most positions of a forward pass; None takes what suits the engine's device."""
    within_s: float | None
    """A live request waits for the answer this long; None waits for its turn."""


RewardCommand = OpenBackbone | LoadReward | DropReward
Command = (
    Prepare
    | Begin
    | Step
    | Logprobs
    | Save
    | Verify
    | Load
    | LoadBase
    | Keep
    | Forget
    | Checkpoint
    | Resume
    | OpenBackbone
    | LoadReward
    | DropReward
    | ScoreReplies
)


class BackboneFacts(Struct, frozen=True):
    """What a loaded backbone is."""

    has_head: bool
    """True when it can judge without an adapter."""
    max_positions: int | None
    """Longest row; None when it says none."""
    size_bytes: int
    """Of its own weights; those that are the engine's do not count."""


class Done(Struct, tag=True, frozen=True):
    """The command is carried out; what is not None is its result."""

    digest: str | None = None
    step: StepResult | None = None
    logprobs: list[list[float]] | None = None
    scores: list[float] | None = None
    backbone: BackboneFacts | None = None


class Failed(Struct, tag=True, frozen=True):
    """The command raised. The learner lives on."""

    reason: str
    publication: bool = False
    """True when a policy could not be written or read, false when the learner itself failed."""
    late: bool = False
    """True when the answer would have come too late for the live request that wanted it."""


Answer = Done | Failed

_commands: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def encode(message: Command | Answer) -> bytes:
    """A message as msgpack."""
    return msgspec.msgpack.encode(message)


def decode_command(data: bytes) -> Command:
    """The command that ``encode`` wrote. Raises msgspec.DecodeError for anything else."""
    return _commands.decode(data)


def decode_answer(data: bytes) -> Answer:
    """The answer that ``encode`` wrote. Raises msgspec.DecodeError for anything else."""
    return _answers.decode(data)
