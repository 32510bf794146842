"""`GET /admin/requests/{request_id}`: the episode, its reward with every part, and what people said."""

import httpx

from rewards.score import Ungradable
from service.http.agent_node import AgentNode
from service.http.fakes import FakeNode
from tests.service.feedback.samples import episode


async def test_a_request_is_shown_with_its_reward_and_feedback(
    agent_client: httpx.AsyncClient, tenant_key: dict[str, str], admin_key: dict[str, str], agent_node: AgentNode
) -> None:
    """The present judges' parts and weights: of "This is the new bell." in English fidelity, repetition and substance
    are 1; nobody asked for a length, so that part has a weight and no value, and the reward is 1."""
    brief = {"kind": "create", "language": "en", "instructions": "A bell.", "keywords": ["bell"], "end_user": "anna"}
    written = (await agent_client.post("/v1/content", json=brief | {"n": 2}, headers=tenant_key)).json()
    said = {"request_id": written["request_id"], "rating": 2, "comment": "Dull."}
    assert (await agent_client.post("/v1/feedback", json=said, headers=tenant_key)).status_code == 200
    response = await agent_client.get(f"/admin/requests/{written['request_id']}", headers=admin_key)
    assert response.status_code == 200, response.text
    shown = response.json()
    assert (shown["tenant"], shown["language"], shown["policy_version"]) == ("acme", "en", 3)
    assert shown["brief"] | brief == shown["brief"]
    assert (shown["text"], shown["other_texts"]) == (written["text"], written["alternatives"])
    assert [(item["served"], item["last_version"]) for item in shown["completions"]] == [(True, 3), (False, 3)]
    assert shown["language_verdict"] == written["language_verdict"]
    assert (shown["reward"]["judge"], shown["reward"]["value"], shown["reward"]["ungradable"]) == ("panel@3", 1.0, None)
    parts = {part["name"]: (part["value"], part["weight"]) for part in shown["reward"]["parts"]}
    assert parts["fidelity"] == (1.0, 1.0)
    assert parts["length"] == (None, 0.5)
    assert parts["substance"] == parts["repetition"] == (1.0, 0.5)
    assert [(piece["rating"], piece["comment"]) for piece in shown["feedback"]] == [(2, None), (None, "Dull.")]


async def test_a_reply_that_cannot_be_graded_says_why(
    client: httpx.AsyncClient, admin_key: dict[str, str], node: FakeNode
) -> None:
    """The reason stands in the value's place, which is null and never 0."""
    node.panel.judge = lambda _: Ungradable("the judge is away", "fake@1")
    node.episodes.all.append(episode("req_1"))
    reward = (await client.get("/admin/requests/req_1", headers=admin_key)).json()["reward"]
    assert reward == {
        "judge": "fake@1",
        "value": None,
        "ungradable": "the judge is away",
        "parts": [{"name": "fake", "value": None, "weight": 1.0}],
    }


async def test_a_request_that_is_not_kept_is_told_apart(client: httpx.AsyncClient, admin_key: dict[str, str]) -> None:
    """404 with the code of feedback's, and a hint at the ids of calls for several languages."""
    response = await client.get("/admin/requests/req_9", headers=admin_key)
    assert (response.status_code, response.json()["code"]) == (404, "reply_not_kept")
    assert "ends with its language" in response.json()["detail"]
