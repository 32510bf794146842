"""How deep a JSON body may nest: no model of this API goes deeper than a few levels, and parsers recurse."""

import re

from starlette.requests import Request

from agent.errors import InvalidInput
from service.http.disconnect import body_of

MAX_DEPTH = 32

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


async def require_shallow(request: Request) -> None:
    """Read the body and let it pass when it nests at most `MAX_DEPTH` deep.

    Raises:
        InvalidInput: it is deeper.
        HTTPException: 415, it is compressed.
        ClientGone: the caller hung up within the body.
    """
    if depth_exceeds(await body_of(request), MAX_DEPTH):
        raise InvalidInput("", f"the body must nest at most {MAX_DEPTH} levels deep, got more")


def depth_exceeds(body: bytes, limit: int) -> bool:
    """Whether arrays and objects nest deeper than ``limit``. What is no JSON may be told either way."""
    if body.count(b"{") + body.count(b"[") <= limit:
        return False
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", body)):
        depth += 1 if bracket in b"[{" else -1
        if depth > limit:
            return True
    return False
