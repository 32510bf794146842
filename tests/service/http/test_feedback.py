"""`/v1/feedback`: what is taken, for which reply, and how it is shown; on the real agents with a scripted engine."""

from typing import Any

import httpx
import pytest

from agent.errors import StoreError
from agent.feedback import Comparison
from service.http.agent_node import AgentNode
from service.http.fakes import FakeNode
from tests.service.feedback.samples import episode

BRIEF = {"kind": "create", "language": "en", "instructions": "A bell."}


@pytest.fixture
def caller(agent_client: httpx.AsyncClient, tenant_key: dict[str, str]) -> httpx.AsyncClient:
    agent_client.headers.update(tenant_key)
    return agent_client


async def written(caller: httpx.AsyncClient, headers: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    response = await caller.post("/v1/content", json=BRIEF | changes, headers=headers)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def given(caller: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await caller.post("/v1/feedback", json=body)
    assert response.status_code == 200, response.text
    receipt: dict[str, Any] = response.json()
    return receipt


async def refused(caller: httpx.AsyncClient, **body: Any) -> tuple[int, str, str]:
    """Status, code and detail."""
    response = await caller.post("/v1/feedback", json=body)
    problem = response.json()
    return response.status_code, problem["code"], problem["detail"]


async def test_several_kinds_in_one_call_are_kept_and_listed(caller: httpx.AsyncClient) -> None:
    """Each as it came, oldest first; what was not said is null."""
    request_id = (await written(caller))["request_id"]
    said = {
        "rating": 4,
        "thumbs": "down",
        "edit": {"text": "This is the bell!", "published": True},
        "comment": "Too long.",
        "implicit": "published",
    }
    receipt = await given(caller, request_id=request_id, end_user="anna", **said)
    assert (receipt["request_id"], receipt["language"]) == (request_id, "en")
    assert receipt["kept"] == [{"kind": kind, "repeated": False} for kind in said]
    listed = (await caller.get("/v1/feedback", params={"request_id": request_id})).json()
    assert [(piece["kind"], piece[piece["kind"]]) for piece in listed["feedback"]] == list(said.items())
    assert {(piece["end_user"], piece["about"]) for piece in listed["feedback"]} == {("anna", None)}
    assert listed["feedback"][0]["comment"] is None


async def test_an_empty_text_counts_as_not_given(caller: httpx.AsyncClient) -> None:
    """As a form sends what nobody filled in, nor does null; a call of nothing else says nothing."""
    reply = await written(caller)
    empty = dict.fromkeys(("idempotency_key", "language", "about", "end_user", "comment", "edit", "thumbs"), "")
    receipt = await given(caller, **empty, request_id=reply["request_id"], rating="5")
    assert receipt["kept"] == [{"kind": "rating", "repeated": False}]
    listed = await caller.get("/v1/feedback", params={"request_id": reply["request_id"], "language": ""})
    (piece,) = listed.json()["feedback"]
    assert (piece["rating"], piece["end_user"], piece["comment"]) == (5, None, None)
    edit = {"text": "A ring.", "published": None}
    assert (await given(caller, request_id=reply["request_id"], edit=edit))["kept"][0]["kind"] == "edit"
    assert (await given(caller, request_id=reply["request_id"], edit=edit | {"published": ""}))["kept"][0]["repeated"]
    status, code, detail = await refused(caller, **empty, request_id=reply["request_id"])
    assert (status, code) == (422, "invalid_request")
    assert detail.startswith("the body must have at least one of")


async def test_the_same_said_twice_counts_once(caller: httpx.AsyncClient, agent_node: AgentNode) -> None:
    """Without a header by its content; with an Idempotency-Key by that, and another body under it is refused."""
    request_id = (await written(caller))["request_id"]
    assert (await given(caller, request_id=request_id, rating=5))["kept"] == [{"kind": "rating", "repeated": False}]
    assert (await given(caller, request_id=request_id, rating=5))["kept"] == [{"kind": "rating", "repeated": True}]
    caller.headers["Idempotency-Key"] = "act-1"
    assert (await given(caller, request_id=request_id, rating=1))["kept"][0]["repeated"] is False
    assert (await given(caller, request_id=request_id, rating=1))["kept"][0]["repeated"] is True
    status, code, _ = await refused(caller, request_id=request_id, rating=2)
    assert (status, code) == (422, "idempotency_key_reused")
    listed = (await caller.get("/v1/feedback", params={"request_id": request_id})).json()["feedback"]
    assert [piece["rating"] for piece in listed] == [5, 1]


async def test_a_reply_is_named_by_the_key_of_its_call(caller: httpx.AsyncClient) -> None:
    """However the key is quoted; a key that nobody used is a reply that is not kept."""
    request_id = (await written(caller, {"Idempotency-Key": '"order 7"'}))["request_id"]
    assert (await given(caller, idempotency_key="order 7", thumbs="up"))["request_id"] == request_id
    status, code, detail = await refused(caller, idempotency_key="order 8", thumbs="up")
    assert (status, code) == (404, "reply_not_kept")
    assert detail.startswith("there is no call with that idempotency key")


async def test_a_call_for_several_languages_has_a_reply_for_each(caller: httpx.AsyncClient) -> None:
    """Named by the whole call's id and a language, or by its own id; without a language the answer names them."""
    body = await written(caller, language=None, languages=["de", "en"])
    whole, of_de = body["request_id"], body["results"][0]["request_id"]
    assert of_de == f"{whole}-de"
    assert (await given(caller, request_id=whole, language="de", rating=3))["request_id"] == of_de
    assert (await given(caller, request_id=of_de, rating=2))["language"] == "de"
    listed = await caller.get("/v1/feedback", params={"request_id": whole, "language": "de-AT"})
    assert [piece["rating"] for piece in listed.json()["feedback"]] == [3, 2]
    expected = (422, "invalid_request", "language must be a language of that call (de, en), got none")
    assert await refused(caller, request_id=whole, rating=3) == expected
    expected = (422, "invalid_request", "language must be that of the reply, de, got en")
    assert await refused(caller, request_id=of_de, language="en", rating=3) == expected


async def test_a_chat_completion_is_named_by_its_id(caller: httpx.AsyncClient, agent_node: AgentNode) -> None:
    """One of several choices is named by its text, and may be compared with another one."""
    texts = iter(["The first bell.", "The second bell."])
    agent_node.reply = lambda _: next(texts)
    ask = {"model": "coloq", "n": 2, "messages": [{"role": "user", "content": "Say something about the bell."}]}
    completion = (await caller.post("/v1/chat/completions", json=ask)).json()
    comparison = {"verdict": "better", "than_text": "The first bell."}
    await given(caller, request_id=completion["id"], about="The second bell.", comparison=comparison)
    (piece,) = (await caller.get("/v1/feedback", params={"request_id": completion["id"]})).json()["feedback"]
    assert piece["about"] == "The second bell."
    assert piece["comparison"] == comparison | {"than_request_id": None}


async def test_a_comparison_with_another_reply_keeps_its_text(caller: httpx.AsyncClient, agent_node: AgentNode) -> None:
    """Of the same brief; one of another brief says nothing of the text."""
    first = (await written(caller))["request_id"]
    agent_node.says = "Another bell."
    second = (await written(caller))["request_id"]
    other = (await written(caller, instructions="A saddle."))["request_id"]
    await given(caller, request_id=first, comparison={"verdict": "worse", "than_request_id": second})
    (piece,) = await agent_node.feedback.desk.of_episode(agent_node.journal.episodes[0])
    assert piece.opinion == Comparison(False, "Another bell.", second)
    detail = "comparison.than_request_id must be a reply to the same brief, got one to another"
    comparison = {"verdict": "worse", "than_request_id": other}
    assert await refused(caller, request_id=first, comparison=comparison) == (422, "invalid_request", detail)
    comparison = {"verdict": "worse", "than_request_id": "req_none"}
    assert (await refused(caller, request_id=first, comparison=comparison))[:2] == (404, "reply_not_kept")


BROKEN: list[tuple[dict[str, Any], str, str]] = [
    ({}, "", "the body must have at least one of rating, thumbs, comparison, edit, comment, implicit, got none"),
    ({"rating": 6}, "rating", "rating must be between 1 and 5, got 6"),
    ({"thumbs": "sideways"}, "thumbs", 'thumbs must be one of up, down, got "sideways"'),
    ({"edit": {"text": ""}}, "edit.text", 'edit.text must have at least 1 character, got ""'),
    ({"stars": 5}, "stars", "unknown field stars; known fields are about, comment"),
    ({"comparison": {"verdict": "worse"}}, "comparison", "comparison must have one of than_request_id and than_text"),
    ({"rating": 1, "idempotency_key": "k"}, "request_id", "request_id must be there, or idempotency_key in its place"),
    ({"rating": 1, "about": "Not its text."}, "about", "about must be one of the reply's own texts, word for word"),
]


async def test_a_broken_rule_names_its_field(
    client: httpx.AsyncClient, tenant_key: dict[str, str], node: FakeNode
) -> None:
    """The field and the rule, then what came; nothing is kept."""
    node.episodes.all.append(episode("req_1"))
    for body, field, rule in BROKEN:
        response = await client.post("/v1/feedback", json={"request_id": "req_1"} | body, headers=tenant_key)
        assert response.status_code == 422, body
        (error,) = response.json()["errors"]
        assert error["field"] == field
        assert error["message"].startswith(rule)
    assert node.kept_feedback.given == []


async def test_another_tenants_reply_is_not_kept(
    client: httpx.AsyncClient, tenant_key: dict[str, str], other_key: dict[str, str], node: FakeNode
) -> None:
    """Neither to rate nor to look at, and the answer is that for an id that nobody has."""
    node.episodes.all.append(episode("req_1"))
    body = {"request_id": "req_1", "rating": 5}
    assert (await client.post("/v1/feedback", json=body, headers=tenant_key)).status_code == 200
    for request_id in ("req_1", "req_9"):
        posted = await client.post("/v1/feedback", json=body | {"request_id": request_id}, headers=other_key)
        listed = await client.get("/v1/feedback", params={"request_id": request_id}, headers=other_key)
        for response in (posted, listed):
            assert (response.status_code, response.json()["code"]) == (404, "reply_not_kept")


async def test_feedback_outlives_its_reply(
    client: httpx.AsyncClient, tenant_key: dict[str, str], node: FakeNode
) -> None:
    """When the journal has dropped the reply what was said is still listed, and nothing more is taken."""
    node.episodes.all.append(episode("req_1"))
    body = {"request_id": "req_1", "rating": 5}
    assert (await client.post("/v1/feedback", json=body, headers=tenant_key)).status_code == 200
    node.episodes.all.clear()
    listed = await client.get("/v1/feedback", params={"request_id": "req_1"}, headers=tenant_key)
    assert [piece["rating"] for piece in listed.json()["feedback"]] == [5]
    assert (await client.post("/v1/feedback", json=body, headers=tenant_key)).json()["code"] == "reply_not_kept"


async def test_a_lost_store_keeps_nothing_and_says_so(
    client: httpx.AsyncClient, tenant_key: dict[str, str], node: FakeNode
) -> None:
    """503 with the time to wait: the caller may send it again."""
    node.episodes.all.append(episode("req_1"))
    node.kept_feedback.failure = StoreError("gone")
    response = await client.post("/v1/feedback", json={"request_id": "req_1", "rating": 5}, headers=tenant_key)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
