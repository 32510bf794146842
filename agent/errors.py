"""The exception tree of the whole product, typed by the boundary that failed.

    ColoqError
    ├── InvalidInput            the caller's request or file breaks a rule (names field and rule)
    │   ├── InvalidBrief        a content request
    │   ├── IdempotencyKeyReused  one key for two bodies
    │   ├── DestinationRefused  a URL that the node must not call
    │   └── InvalidConfig       the node's TOML file or an environment secret
    ├── Refused                 well-formed, but not now or not for you
    │   ├── NotAuthenticated    no key, or a key nobody knows
    │   ├── NotAllowed          a key without the scope
    │   ├── NotFound            no such run, policy, model
    │   │   └── ReplyNotKept        feedback on a reply that is not in the journal (any longer)
    │   ├── Conflict            a second tuning run, an unknown transition
    │   ├── TooFewPairs         a reward model has too little to learn from
    │   │   ├── CanaryRunning       another canary is running
    │   │   ├── NeedsAdapters       method full has one copy of the weights, for everybody
    │   │   └── NoAdapterSlot       every adapter slot that requests can be routed to is taken
    │   ├── JobCancelled        the job was cancelled before it had a result
    │   ├── HookNotVerified     a call of an inbound hook without the hook's secret
    │   └── LimitReached        too much at once, or in a period; says when to come back
    │       ├── RateLimited         requests or tokens of a minute
    │       ├── ConcurrencyLimited  requests that run at one time
    │       ├── QuotaExhausted      requests or tokens of a day
    │       └── QueueFull           the tenant's requests that wait for the engine
    ├── EngineError             generation failed
    │   ├── EngineDead          the engine process is gone; the node restarts it
    │   ├── PromptTooLong       prompt and reply do not fit the context window
    │   └── SchemaNotMet        a reply that had to fit a JSON Schema does not
    ├── StoreError              Redis or Valkey could not be reached or refused
    │   └── UnreadableRecord    what it holds was written by another version, or is damaged
    ├── JobAbandoned            a job ended its node so often that it is not tried again
    ├── ModelError              a model could not be fetched, converted or verified
    │   └── RewardModelFailed   a version of a reward model could not be read, verified or loaded
    └── TuningError             a tuning run cannot go on; serving does
        ├── TrainerFailed       the trainer raised, or its loss or gradient was not finite
        ├── ParityFailed        engine and trainer disagree about a candidate
        ├── GateRejected        a candidate is worse than the policy it would replace
        └── PublicationFailed   a policy could not be written, verified or installed

Messages state the rule, then what came: ``max_tokens must be between 1 and 4096, got 9000``.
"""


class ColoqError(Exception):
    """Base of every error this product raises on purpose."""


class InvalidInput(ColoqError):
    """Input breaks a rule; ``field`` is the dotted path of what to change."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.message = message


class InvalidBrief(InvalidInput):
    """A content request breaks a rule."""


class IdempotencyKeyReused(InvalidInput):
    """An idempotency key came with another body than the first time."""


class InvalidConfig(InvalidInput):
    """The configuration breaks a rule."""


class DestinationRefused(InvalidInput):
    """A URL leads where the node must not send anything."""


class Refused(ColoqError):
    """A well-formed request that is not carried out."""


class NotAuthenticated(Refused):
    """The request carries no key, or one that nobody holds."""


class NotAllowed(Refused):
    """The key is known, but not for this route."""


class NotFound(Refused):
    """The named thing does not exist."""


class ReplyNotKept(NotFound):
    """The journal has no reply of that id, or no longer."""


class Conflict(Refused):
    """The request contradicts the current state; ``blocking_id`` names what stands in the way."""

    def __init__(self, message: str, blocking_id: str | None = None) -> None:
        super().__init__(message)
        self.blocking_id = blocking_id


class TooFewPairs(Refused):
    """There are fewer preference pairs than a reward model is trained or measured on."""


class CanaryRunning(Conflict):
    """Another canary is running; ``blocking_id`` is its id."""


class NeedsAdapters(Conflict):
    """With method full there is one copy of the weights, so all requests get the same policy."""


class NoAdapterSlot(Conflict):
    """Every adapter slot that requests can be routed to beside the active policy's is taken."""


class JobCancelled(Refused):
    """The job was cancelled before it had a result."""


class HookNotVerified(Refused):
    """A call of an inbound hook does not carry the hook's secret or signature."""


class LimitReached(Refused):
    """A limit of the tenant or its key is reached; ``limit`` names it, ``retry_after_s`` says when to come back."""

    def __init__(self, message: str, *, limit: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.limit = limit
        self.retry_after_s = retry_after_s


class RateLimited(LimitReached):
    """Requests or tokens of a minute are used up."""


class ConcurrencyLimited(LimitReached):
    """As many requests run as may at one time."""


class QuotaExhausted(LimitReached):
    """Requests or tokens of a day are used up."""


class QueueFull(LimitReached):
    """As many of the tenant's requests wait for the engine as may."""


class EngineError(ColoqError):
    """Generation failed."""


class EngineDead(EngineError):
    """The engine process is gone."""


class PromptTooLong(EngineError):
    """Prompt and requested reply do not fit the model's context window."""


class SchemaNotMet(EngineError):
    """The reply does not fit the JSON Schema that it had to fit."""


class StoreError(ColoqError):
    """The store could not be reached, or refused."""


class UnreadableRecord(StoreError):
    """What the store holds is no record of its kind: another version wrote it, or it is damaged."""


class JobAbandoned(ColoqError):
    """A job was running each time its node stopped, so often that it is not tried again."""


class ModelError(ColoqError):
    """A model could not be fetched, converted or verified."""


class RewardModelFailed(ModelError):
    """A version of a reward model could not be read, verified or loaded. The one before it still judges."""


class TuningError(ColoqError):
    """A tuning run cannot go on. Serving does."""


class TrainerFailed(TuningError):
    """The trainer raised, or its loss or gradient was not finite."""


class ParityFailed(TuningError):
    """Engine and trainer disagree about a candidate's log-probabilities."""


class GateRejected(TuningError):
    """A candidate is worse than the policy it would replace."""


class PublicationFailed(TuningError):
    """A policy could not be written, verified or installed."""
