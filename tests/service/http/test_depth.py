"""How deep a body may nest."""

import httpx
import pytest

from service.http.depth import MAX_DEPTH, depth_exceeds


@pytest.mark.parametrize(
    ("body", "deepest"),
    [
        (b"{}", 1),
        (b'{"a":[{"b":1},{"b":2}]}', 3),
        (b"[" * 40 + b"]" * 40, 40),
        (b'{"a":"[[[[[[[[[["}', 1),
        (b'{"a":"\\"[[[["}', 1),
        (b'{"a":"\\\\","b":[[]]}', 3),
        (b"[[],[],[],[],[],[],[],[]]", 2),
    ],
)
def test_depth_counts_open_brackets_outside_of_strings(body: bytes, deepest: int) -> None:
    """It exceeds every limit below its depth, and not its depth itself; escaped quotes do not end a string."""
    assert depth_exceeds(body, deepest - 1)
    assert not depth_exceeds(body, deepest)


@pytest.mark.parametrize("body", [b"[" * 2000, b'{"a":' * 33 + b"1" + b"}" * 33])
async def test_a_body_that_nests_too_deep_is_422(
    client: httpx.AsyncClient, tenant_key: dict[str, str], body: bytes
) -> None:
    """Before a parser recurses into it, and whether or not it is JSON."""
    headers = {**tenant_key, "Content-Type": "application/json"}
    response = await client.post("/v1/content", headers=headers, content=body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert response.json()["detail"] == f"the body must nest at most {MAX_DEPTH} levels deep, got more"
