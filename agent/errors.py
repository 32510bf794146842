"""The exception tree of the whole product, typed by the boundary that failed.

    ColoqError
    ├── InvalidInput            the caller's request or file breaks a rule (names field and rule)
    │   ├── InvalidBrief        a content request
    │   ├── InvalidConfig       the node's TOML file or an environment secret
    │   └── DestinationRefused  a URL that the node must not call
    ├── Refused                 well-formed, but not now or not for you
    │   ├── NotAuthenticated    no key, or a key nobody knows
    │   ├── NotAllowed          a key without the scope
    │   ├── NotFound            no such run, policy, model
    │   ├── Conflict            a second tuning run, an unknown transition
    │   └── HookNotVerified     a call of an inbound hook without the hook's secret
    ├── EngineError             generation failed
    │   ├── EngineDead          the engine process is gone; the node restarts it
    │   └── PromptTooLong       prompt and reply do not fit the context window
    ├── StoreError              Redis or Valkey could not be reached or refused
    ├── ModelError              a model could not be fetched, converted or verified
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


class Conflict(Refused):
    """The request contradicts the current state; ``blocking_id`` names what stands in the way."""

    def __init__(self, message: str, blocking_id: str | None = None) -> None:
        super().__init__(message)
        self.blocking_id = blocking_id


class HookNotVerified(Refused):
    """A call of an inbound hook does not carry the hook's secret or signature."""


class EngineError(ColoqError):
    """Generation failed."""


class EngineDead(EngineError):
    """The engine process is gone."""


class PromptTooLong(EngineError):
    """Prompt and requested reply do not fit the model's context window."""


class StoreError(ColoqError):
    """The store could not be reached, or refused."""


class ModelError(ColoqError):
    """A model could not be fetched, converted or verified."""


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
