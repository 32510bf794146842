"""The table from exceptions to problems."""

import inspect
import json

import pytest
from starlette.exceptions import HTTPException

from agent import errors
from service.http.disconnect import ClientGone
from service.http.problem_schema import Problem
from service.http.problems import ROWS, STATUS_ROWS, problem_of, problem_response, row_of

TREE = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.ColoqError)]


def of(error: Exception) -> Problem:
    return problem_of(error, instance="/v1/content", request_id="req_1")


@pytest.mark.parametrize("cls", [*TREE, ClientGone, TimeoutError, Exception])
def test_every_class_of_the_tree_has_its_own_row(cls: type[Exception]) -> None:
    """A new error class needs a status, a code and a title before it can be raised to a caller."""
    row = ROWS[cls]
    assert 400 <= row.status < 600
    assert row.code.replace("_", "").isalpha()
    assert row.title
    # What hides the message has something else to say.
    assert row.tells_message or row.advice


def test_the_tree_is_the_one_that_its_module_draws() -> None:
    """37 classes: the base, 5 of input, 9 of refusal, 3 of conflicts, 5 of limits, 4 of the engine, 2 of the store, 1
    of jobs, 2 of models, 5 of tuning."""
    assert len(TREE) == 1 + 5 + 9 + 3 + 5 + 4 + 2 + 1 + 2 + 5


def test_a_status_that_asks_for_patience_says_how_long() -> None:
    """Every 503 and 504 of the table has seconds to wait."""
    assert [row.code for row in ROWS.values() if row.status in (503, 504) and row.retry_after_s is None] == []


def test_codes_name_one_status() -> None:
    """A scenario may branch on code alone."""
    statuses: dict[str, int] = {}
    for row in (*ROWS.values(), *STATUS_ROWS.values()):
        assert statuses.setdefault(row.code, row.status) == row.status


def test_a_problem_has_every_member_of_rfc_9457() -> None:
    """Plus code and request id; members without a value are left out."""
    response = problem_response(of(errors.NotFound("there is no policy 9")))
    assert response.media_type == "application/problem+json"
    assert json.loads(bytes(response.body)) == {
        "type": "urn:coloq:problem:not_found",
        "title": "No such thing",
        "status": 404,
        "detail": "there is no policy 9",
        "instance": "/v1/content",
        "code": "not_found",
        "request_id": "req_1",
    }


def test_headers_follow_the_problem() -> None:
    """401 names the scheme, and retry_after is also a header."""
    assert problem_response(of(errors.NotAuthenticated("no key"))).headers["WWW-Authenticate"] == 'Bearer realm="coloq"'
    dead = of(errors.EngineDead("gone"))
    assert dead.retry_after == 15
    assert problem_response(dead).headers["Retry-After"] == "15"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("secret"),
        errors.ColoqError("secret"),
        errors.StoreError("secret"),
        errors.EngineError("secret"),
        errors.EngineDead("secret"),
        errors.ModelError("secret"),
        errors.InvalidConfig("store.url", "secret"),
        TimeoutError("secret"),
    ],
)
def test_what_broke_inside_is_not_told(error: Exception) -> None:
    """The detail is advice; the exception's message stays in the node."""
    problem = of(error)
    assert problem.status >= 500
    assert "secret" not in problem.model_dump_json()


def test_a_message_that_is_told_is_followed_by_advice() -> None:
    """The rule and what came, then what to do."""
    problem = of(errors.PromptTooLong("prompt and reply must fit 1024 tokens, got 1500"))
    assert problem.detail == (
        "prompt and reply must fit 1024 tokens, got 1500. Shorten text or instructions, or ask for fewer max_tokens."
    )


def test_a_detail_is_cut_at_what_make_shows() -> None:
    """1,024 characters, the last an ellipsis."""
    problem = of(errors.NotFound("x" * 2000))
    assert problem.detail == "x" * 1023 + "…"


def test_a_subclass_without_a_row_takes_its_parents() -> None:
    """Nearest class in the method resolution order."""

    class StoreFull(errors.StoreError):
        pass

    assert row_of(StoreFull("full")).code == "store_unavailable"
    assert row_of(KeyError("x")).code == "internal_error"
    assert row_of(HTTPException(418)).status == 418
