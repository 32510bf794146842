"""What `POST /v1/feedback` takes, and how feedback is shown."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent.errors import InvalidInput
from agent.feedback import (
    MAX_STARS,
    MIN_STARS,
    Comment,
    Comparison,
    Feedback,
    FeedbackKind,
    Implicit,
    Opinion,
    Rating,
    Signal,
    TextEdit,
    Thumbs,
)
from service.feedback.records import ComparisonOrder, FeedbackOrder, Receipt, ReplyRef
from service.http.content_order import CONTENT_ROUTE
from service.http.validation import without_empty_texts
from service.idempotency import MAX_KEY_CHARS, name_of_key

MAX_ID_CHARS = 128
MAX_TEXT_CHARS = 20_000
EXAMPLE_ID = "req_0u2Cq4lJm3Tn9bX7aVd5Ew"
KINDS = tuple(kind.value for kind in FeedbackKind)

RequestId = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS)]
Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]
Stars = Annotated[int, Field(ge=MIN_STARS, le=MAX_STARS)]
Thumb = Literal["up", "down"]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _empty_is_not_given(cls, body: object) -> object:
        return without_empty_texts(body, cls)


class ComparisonBody(_Body):
    """This text beside another one for the same brief."""

    verdict: Literal["better", "worse"] = Field(description="What this text is, compared with the other one.")
    than_request_id: RequestId | None = Field(
        default=None, description="The other text is the reply to this request.", examples=[EXAMPLE_ID]
    )
    than_text: Text | None = Field(
        default=None, description="The other text is this one of the same reply's, word for word.", examples=["Ring!"]
    )

    def order(self) -> ComparisonOrder:
        """Raises InvalidInput unless exactly one text is named."""
        if (self.than_request_id is None) == (self.than_text is None):
            raise InvalidInput("comparison", "must have one of than_request_id and than_text, got both or neither")
        return ComparisonOrder(self.verdict == "better", self.than_request_id, self.than_text)


class EditBody(_Body):
    """What somebody made of the text."""

    text: Text = Field(description="The text as it is now, changed or not.", examples=["Unsere neue Klingel ist da!"])
    published: bool | None = Field(
        default=None, description="Whether this text went live; no unless it is said.", examples=[True]
    )


class FeedbackRequest(_Body):
    """What is said of one reply: one kind or several. A field that is null or an empty text counts as not given."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"request_id": EXAMPLE_ID, "rating": 4, "comment": "A little long.", "end_user": "user-4711"},
                {"request_id": EXAMPLE_ID, "edit": {"text": "Unsere neue Klingel ist da!", "published": True}},
                {"idempotency_key": "8e03978e-40d5-43dd-bc93-6894a57f9324", "language": "de", "thumbs": "up"},
                {
                    "request_id": EXAMPLE_ID,
                    "comparison": {"verdict": "better", "than_request_id": "req_7mQx0pYb2Lk4Rt9sWc1Nfg"},
                },
            ]
        },
    )

    request_id: RequestId | None = Field(
        default=None,
        description="The reply's `request_id`, or the `id` of a chat completion. This or `idempotency_key`.",
        examples=[EXAMPLE_ID],
    )
    idempotency_key: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_KEY_CHARS,
        description="The `Idempotency-Key` of the call that was answered; works as long as its job is kept.",
        examples=["8e03978e-40d5-43dd-bc93-6894a57f9324"],
    )
    language: str | None = Field(
        default=None,
        min_length=2,
        max_length=35,
        description="Which reply of a call for several languages, where `request_id` is the whole call's.",
        examples=["de"],
    )
    about: Text | None = Field(
        default=None,
        description="Which of the reply's texts is meant, word for word, where it has `alternatives`. Default: `text`.",
        examples=["Sie ist da: unsere neue Fahrradklingel."],
    )
    end_user: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_ID_CHARS,
        description="Your own opaque id of the person who says so; no name or address. Without it all that comes "
        "through one key counts as one voice.",
        examples=["user-4711"],
    )
    rating: Stars | None = Field(default=None, description="Stars, 5 being the best.", examples=[4])
    thumbs: Thumb | None = Field(default=None, description="Up or down.", examples=["up"])
    comparison: ComparisonBody | None = Field(default=None, description="Better or worse than another text.")
    edit: EditBody | None = Field(default=None, description="What became of the text under somebody's hands.")
    comment: Text | None = Field(default=None, description="A remark; nothing is learnt from it.", examples=["Long."])
    implicit: Signal | None = Field(default=None, description="What became of the text.", examples=["published"])

    def order(self) -> FeedbackOrder:
        """The order. Raises InvalidInput for rules between fields."""
        opinions = self._opinions()
        if not opinions and self.comparison is None:
            raise InvalidInput("", f"the body must have at least one of {', '.join(KINDS)}, got none")
        return FeedbackOrder(
            reply=reply_ref(self.request_id, self.idempotency_key, self.language),
            opinions=opinions,
            comparison=self.comparison.order() if self.comparison is not None else None,
            end_user=self.end_user,
            about=self.about,
        )

    def _opinions(self) -> list[Opinion]:
        found: list[Opinion | None] = [
            Rating(self.rating) if self.rating is not None else None,
            Thumbs(self.thumbs == "up") if self.thumbs is not None else None,
            TextEdit(self.edit.text, bool(self.edit.published)) if self.edit is not None else None,
            Comment(self.comment) if self.comment is not None else None,
            Implicit(self.implicit) if self.implicit is not None else None,
        ]
        return [opinion for opinion in found if opinion is not None]


def reply_ref(request_id: str | None, idempotency_key: str | None, language: str | None) -> ReplyRef:
    """Which reply is meant. Raises InvalidInput unless it is named in one way."""
    if (request_id is None) == (idempotency_key is None):
        raise InvalidInput("request_id", "must be there, or idempotency_key in its place, got both or neither")
    if idempotency_key is None:
        return ReplyRef(request_id=request_id, language=language)
    return ReplyRef(key_name=name_of_key(idempotency_key, CONTENT_ROUTE, "idempotency_key"), language=language)


class KeptKind(BaseModel):
    """One kind of the call."""

    kind: FeedbackKind
    repeated: bool = Field(description="Whether the same was kept before, so that this one does not count.")


class FeedbackReceipt(BaseModel):
    """What was kept."""

    request_id: str = Field(description="The reply's own id.", examples=[EXAMPLE_ID])
    language: str = Field(description="The reply's language.", examples=["de"])
    kept: list[KeptKind]

    @classmethod
    def of(cls, receipt: Receipt) -> "FeedbackReceipt":
        kept = [KeptKind(kind=kind, repeated=not is_new) for kind, is_new in receipt.kinds]
        return cls(request_id=receipt.request_id, language=receipt.language, kept=kept)


class ComparisonView(BaseModel):
    """A comparison as it is kept."""

    verdict: Literal["better", "worse"]
    than_request_id: str | None
    than_text: str = Field(description="The other text, as it was.")


class FeedbackView(BaseModel):
    """One piece; of the kinds exactly the one that `kind` names is not null."""

    at: datetime
    kind: FeedbackKind
    key_id: str = Field(description="The API key that brought it.")
    end_user: str | None
    about: str | None = Field(description="Which of the reply's texts; null for the one that was served.")
    rating: int | None = None
    thumbs: Thumb | None = None
    comparison: ComparisonView | None = None
    edit: EditBody | None = None
    comment: str | None = None
    implicit: Signal | None = None

    @classmethod
    def of(cls, piece: Feedback) -> "FeedbackView":
        view = cls(
            at=piece.at, kind=piece.opinion.kind, key_id=piece.key_id, end_user=piece.end_user, about=piece.about
        )
        return view.model_copy(update={piece.opinion.kind.value: _shown(piece.opinion)})


def _shown(opinion: Opinion) -> object:
    match opinion:
        case Rating():
            return opinion.stars
        case Thumbs():
            return "up" if opinion.up else "down"
        case Comparison():
            verdict: Literal["better", "worse"] = "better" if opinion.better else "worse"
            return ComparisonView(verdict=verdict, than_request_id=opinion.request_id, than_text=opinion.text)
        case TextEdit():
            return EditBody(text=opinion.text, published=opinion.published)
        case Comment():
            return opinion.text
        case Implicit():
            return opinion.signal


class FeedbackList(BaseModel):
    """What is kept for one reply."""

    request_id: str
    feedback: list[FeedbackView] = Field(description="Oldest first; at most the 200 newest.")

    @classmethod
    def of(cls, request_id: str, pieces: Sequence[Feedback]) -> "FeedbackList":
        return cls(request_id=request_id, feedback=[FeedbackView.of(piece) for piece in pieces])
