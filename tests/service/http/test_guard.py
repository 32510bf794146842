"""How a key is read from a request."""

import pytest
from starlette.requests import Request

from agent.errors import NotAuthenticated
from service.http.guard import bearer_key


def request(*authorization: str) -> Request:
    headers = [(b"authorization", value.encode()) for value in authorization]
    return Request({"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": headers})


@pytest.mark.parametrize("header", ["Bearer k1", "bearer k1", "BEARER  k1", " Bearer k1 "])
def test_the_scheme_is_read_in_any_case(header: str) -> None:
    """RFC 9110: schemes are case-insensitive."""
    assert bearer_key(request(header)) == "k1"


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ((), "got no Authorization header"),
        (("Basic azE6",), "got one without 'Bearer '"),
        (("sk-0123456789",), "got one without 'Bearer '"),
        (("Bearer",), "got none or several"),
        (("Bearer a b",), "got none or several"),
        (("Bearer a", "Bearer b"), "send one Authorization header, got 2"),
    ],
)
def test_anything_else_is_refused_without_repeating_it(headers: tuple[str, ...], message: str) -> None:
    """A key that was pasted without its scheme must not come back in an error that a scenario logs."""
    with pytest.raises(NotAuthenticated, match=message) as raised:
        bearer_key(request(*headers))
    assert "sk-0123456789" not in str(raised.value)
    assert "azE6" not in str(raised.value)
