"""`GET /admin/rewards/{language}/pairs`: JSON lines that TRL reads."""

import json
from dataclasses import replace

import httpx
import pytest

from agent.brief import Brief, Kind
from agent.errors import StoreError
from rewards.preference import PairSource, PreferencePair
from service.http.fakes import FakeNode

PAIR = PreferencePair(
    "p1",
    Brief("acme", Kind.CREATE, "de", instructions="Eine Klingel.", end_user="anna"),
    chosen="Zażółć\n🙂",
    rejected="Nein.",
    source=PairSource.EDIT,
    end_user="anna",
    held_out=True,
)


async def test_pairs_are_json_lines_in_trls_format_without_people(
    client: httpx.AsyncClient, admin_key: dict[str, str], node: FakeNode
) -> None:
    """One object a line, the language's alone; nobody's name is in it."""
    english = replace(PAIR.brief, language="en")
    node.pairs.all = [PAIR, replace(PAIR, id="p2", held_out=False), replace(PAIR, id="p3", brief=english)]
    response = await client.get("/admin/rewards/de/pairs", headers=admin_key)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/jsonl"
    assert response.headers["X-Num-Pairs"] == "2"
    first, second = [json.loads(line) for line in response.text.splitlines()]
    assert first == {
        "id": "p1",
        "source": "edit",
        "held_out": True,
        "prompt": [{"role": "user", "content": "[create, de]\n\nEine Klingel."}],
        "chosen": [{"role": "assistant", "content": "Zażółć\n🙂"}],
        "rejected": [{"role": "assistant", "content": "Nein."}],
    }
    assert (second["id"], second["held_out"]) == ("p2", False)
    assert "anna" not in response.text
    assert "acme" not in response.text


async def test_many_pairs_come_whole(client: httpx.AsyncClient, admin_key: dict[str, str], node: FakeNode) -> None:
    """More than one part of the answer holds, in order; none are an empty body."""
    node.pairs.all = [replace(PAIR, id=str(number)) for number in range(250)]
    response = await client.get("/admin/rewards/de/pairs", headers=admin_key)
    assert [json.loads(line)["id"] for line in response.text.splitlines()] == [str(number) for number in range(250)]
    empty = await client.get("/admin/rewards/fr/pairs", headers=admin_key)
    assert (empty.status_code, empty.text, empty.headers["X-Num-Pairs"]) == (200, "", "0")


@pytest.mark.parametrize("language", ["DE", "de-AT", "german"])
async def test_a_language_is_an_iso_code(client: httpx.AsyncClient, admin_key: dict[str, str], language: str) -> None:
    """422 that names the parameter."""
    response = await client.get(f"/admin/rewards/{language}/pairs", headers=admin_key)
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "language")


async def test_a_lost_store_is_told_before_anything_is_sent(
    client: httpx.AsyncClient, admin_key: dict[str, str], node: FakeNode
) -> None:
    """A problem, and no half file."""
    node.pairs.failure = StoreError("gone")
    response = await client.get("/admin/rewards/de/pairs", headers=admin_key)
    assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
