"""Editors of a node's replies, over its HTTP API: what they are sent, what they say of it, what is learnt from that.

    briefs ─► answers ─► post_edits ─► exported_pairs ─► trained_model ─► … ─► answers ─► preference_rate

What an editor likes is a function of the text, which the node never sees; it sees only edits.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from tests.integration.node_process import NodeProcess

Brief = Mapping[str, Any]
"""A body of POST /v1/content."""
NUM_EDITORS = 10


class Editor(Protocol):
    """Rewrites replies by a taste."""

    def edit(self, text: str) -> str:
        """The text as the editor would have it."""
        ...


@dataclass(frozen=True)
class Answer:
    """A brief, and one reply."""

    brief: Brief
    request_id: str
    text: str
    policy_version: int
    language_verdict: str

    @property
    def language(self) -> str:
        return str(self.brief["language"])


@contextmanager
def stage(name: str, durations_s: dict[str, float] | None = None) -> Iterator[None]:
    """Print what a stage took, and note it."""
    began = time.perf_counter()
    yield
    duration_s = time.perf_counter() - began
    if durations_s is not None:
        durations_s[name] = round(duration_s, 1)
    print(f"{name}: {duration_s:.1f} s", flush=True)  # noqa: T201 - where the test's time goes


async def answers(http: httpx.AsyncClient, node: NodeProcess, briefs: Sequence[Brief]) -> list[Answer]:
    """One fresh reply to each brief."""

    async def answer(brief: Brief) -> Answer:
        response = await http.post("/v1/content", json=dict(brief), headers=node.tenant_headers)
        assert response.status_code == 200, response.text
        reply = response.json()
        verdict = reply["language_verdict"]["verdict"]
        return Answer(brief, reply["request_id"], reply["text"], reply["policy_version"], verdict)

    return list(await asyncio.gather(*map(answer, briefs)))


async def post_edits(http: httpx.AsyncClient, node: NodeProcess, replies: Sequence[Answer], editor: Editor) -> None:
    """Each reply's edit, from NUM_EDITORS end users in turn; of an empty reply, which a random model may give, none."""
    for number, reply in enumerate(replies):
        text = editor.edit(reply.text)
        if not text:
            continue
        edit = {"text": text, "published": True}
        said = {"request_id": reply.request_id, "edit": edit, "end_user": f"editor-{number % NUM_EDITORS}"}
        response = await http.post("/v1/feedback", json=said, headers=node.tenant_headers)
        assert response.status_code == 200, response.text


async def exported_pairs(http: httpx.AsyncClient, node: NodeProcess, language: str) -> list[dict[str, Any]]:
    """A language's preference pairs."""
    response = await http.get(f"/admin/rewards/{language}/pairs", headers=node.admin_headers)
    return [json.loads(line) for line in response.text.splitlines()]


def held_out_of(pairs: Sequence[Mapping[str, Any]], replies: Sequence[Answer]) -> list[Answer]:
    """The replies whose pairs nothing is trained on."""
    texts = {pair["rejected"][0]["content"] for pair in pairs if pair["held_out"]}
    return [reply for reply in replies if reply.text in texts]


async def trained_model(http: httpx.AsyncClient, node: NodeProcess, language: str) -> dict[str, Any]:
    """Train a language's reward model; its training once it has ended."""
    response = await http.post(f"/admin/rewards/{language}/train", json={"seed": 0}, headers=node.admin_headers)
    assert response.status_code in (201, 202), response.text
    training: dict[str, Any] = response.json()
    while training["state"] == "running":
        await asyncio.sleep(0.2)
        found = await http.get(f"/admin/rewards/trainings/{training['id']}", headers=node.admin_headers)
        training = found.json()
    return training


def preference_rate(fresh: Sequence[Answer], served: Sequence[Answer], taste: Callable[[str], float]) -> float:
    """Share of fresh replies, of all briefs in turn, that editors like better than the one first served to the same
    brief; a tie is half a win."""
    first = [served[number % len(served)] for number in range(len(fresh))]
    pairs = [(taste(new.text), taste(old.text)) for new, old in zip(fresh, first, strict=True)]
    return sum((new > old) + 0.5 * (new == old) for new, old in pairs) / len(pairs)
