"""Languages at the HTTP surface: repaired replies, fallbacks, allowances, and what an operator is told."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from agent.config import AgentConfig, LanguageSettings, PromptOverrides, TenantSettings
from agent.errors import InvalidInput
from agent.fakes import CharEncoder
from service.config import NodeConfig
from service.http.agent_node import AgentNode
from service.http.app import create_app
from service.http.fakes import FakeAuthenticator, FakeMetrics, FakeNode
from service.tenancy.fakes import MemoryTenantStore
from service.tenancy.registry import TenantRegistry
from service.tenancy.rules import TenantRules
from service.tenants import Tenants

GERMAN = "Unsere neue Klingel ist laut und leicht."
ENGLISH = "Our new bicycle bell is loud and light."
ACME = TenantSettings(
    id="acme",
    languages={
        "de": LanguageSettings(prompts=PromptOverrides(create="Texte: {{ instructions }}")),
        "en": LanguageSettings(),
    },
    fallback_language="de",
)
BRIEF: dict[str, Any] = {"kind": "create", "instructions": "Eine Klingel."}


class _Rig:
    def __init__(self, tenant: TenantSettings, agent: AgentConfig) -> None:
        self.node = AgentNode([tenant], agent=agent, says=GERMAN)
        app = create_app(self.node, FakeAuthenticator({"k": tenant}, "admin"), NodeConfig(agent=agent), FakeMetrics())
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://node", headers={"Authorization": "Bearer k"}
        )

    async def write(self, **body: Any) -> httpx.Response:
        return await self.client.post("/v1/content", json={**BRIEF, **body})


@pytest.fixture(scope="module")
def shared() -> _Rig:
    """Made once: a detector takes a while to load."""
    return _Rig(ACME, AgentConfig())


@pytest.fixture
def rig(shared: _Rig) -> _Rig:
    shared.node.says, shared.node.reply = GERMAN, None
    shared.node.engine.requests.clear()
    return shared


async def test_a_repaired_reply_says_so_in_body_and_header(rig: _Rig) -> None:
    """One of two sentences is written again; the tokens of both generations are counted."""
    rig.node.reply = lambda request: GERMAN if "sentence" in request.request_id else f"{GERMAN} {ENGLISH}"
    answer = await rig.write(language="de")
    reply = answer.json()
    assert reply["text"] == f"{GERMAN} {GERMAN}"
    assert answer.headers["X-Language-Verdict"] == reply["language_verdict"]["verdict"] == "repaired"
    assert [item["verdict"] for item in reply["language_verdict"]["sentences"]] == ["pass", "repaired"]
    assert reply["usage"]["completion_tokens"] == len(f"{GERMAN} {ENGLISH}") + 1 + len(GERMAN) + 1


async def test_an_operator_sees_what_was_sampled_and_what_was_served(rig: _Rig) -> None:
    """The text with a sentence put in beside the completion that it was made from, which was not served as it is."""
    rig.node.reply = lambda request: GERMAN if "sentence" in request.request_id else f"{GERMAN} {ENGLISH}"
    request_id = (await rig.write(language="de")).json()["request_id"]
    shown = (await rig.client.get(f"/admin/requests/{request_id}", headers={"Authorization": "Bearer admin"})).json()
    assert (shown["text"], shown["trainable"]) == (f"{GERMAN} {GERMAN}", False)
    assert shown["repairs"] == [{"method": "sentence", "outcome": "repaired"}]
    assert [(item["text"], item["served"]) for item in shown["completions"]] == [(f"{GERMAN} {ENGLISH}", False)]


async def test_a_stream_is_not_repaired(rig: _Rig) -> None:
    """What was told cannot be taken back: its verdict is failed."""
    rig.node.says = ENGLISH
    answer = await rig.write(language="de", stream=True)
    assert '"verdict":"failed"' in answer.text
    assert len(rig.node.engine.requests) == 1


@pytest.mark.parametrize("asked", [{}, {"language": "fr"}, {"language": "de-AT"}, {"languages": ["de"]}])
async def test_a_language_that_is_left_out_or_lacking_is_the_fallback(rig: _Rig, asked: dict[str, Any]) -> None:
    """The reply says which language it is in; a regional tag is its language."""
    reply = (await rig.write(**asked)).json()
    assert reply.get("results", [reply])[0]["language"] == "de"


async def test_each_of_several_languages_must_be_there(rig: _Rig) -> None:
    """Two results in one language are not what was asked for."""
    answer = await rig.write(languages=["en", "fr"])
    assert answer.status_code == 422
    assert "languages must be one of this tenant's languages (de, en), got 'fr'" in answer.text


async def test_without_repair_and_fallback_a_node_does_as_before() -> None:
    """A reply in a wrong language is served as it is, and a language that is left out or lacking is refused."""
    rig = _Rig(ACME.model_copy(update={"fallback_language": None}), AgentConfig(repair="off"))
    rig.node.says = ENGLISH
    assert (await rig.write(language="de")).headers["X-Language-Verdict"] == "failed"
    assert len(rig.node.engine.requests) == 1
    assert "language is required" in (await rig.write()).text
    assert "got 'fr'" in (await rig.write(language="fr")).text


async def test_a_tenants_template_is_what_the_model_reads(rig: _Rig) -> None:
    """The product's own is read for the other language."""
    await rig.write(language="de")
    rig.node.says = ENGLISH
    await rig.write(language="en")
    german, english = (CharEncoder.split(request.prompt_token_ids)[1] for request in rig.node.engine.requests)
    assert (german, english) == ("Texte: Eine Klingel.", "Write this text: Eine Klingel.")


async def test_a_chat_in_a_named_language_is_sampled_again(rig: _Rig) -> None:
    """With the header or metadata; a conversation whose language was guessed is left alone."""
    rig.node.reply = lambda request: GERMAN if "retry" in request.request_id else ENGLISH
    body = {"model": "coloq", "messages": [{"role": "user", "content": "Schreibe einen kurzen Satz über Klingeln."}]}
    named = await rig.client.post("/v1/chat/completions", json=body, headers={"X-Language": "de"})
    assert named.headers["X-Language-Verdict"] == "repaired"
    assert named.json()["choices"][0]["message"]["content"] == GERMAN
    guessed = await rig.client.post("/v1/chat/completions", json=body)
    assert (guessed.headers["X-Language"], guessed.headers["X-Language-Verdict"]) == ("de", "failed")


async def test_a_repair_is_told_how_long_its_caller_is_held() -> None:
    """By the preference of the call, also of one that outlives its caller."""
    node = FakeNode(tenants=Tenants.of([ACME]))
    app = create_app(node, FakeAuthenticator({"k": ACME}, "admin"), NodeConfig(), FakeMetrics())
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://node", headers={"Authorization": "Bearer k"}
    ) as client:
        await client.post("/v1/content", json=BRIEF)
        await client.post("/v1/content", json=BRIEF, headers={"Prefer": "wait=7"})
        job = await client.post("/v1/content", json=BRIEF, headers={"Prefer": "wait=8", "Idempotency-Key": "one"})
    assert (job.status_code, node.content.waits_s) == (200, [25.0, 7.0, 8.0])


RULES = TenantRules(labels={"de", "en", "ga"}, parts={"fidelity"}, second_labels={"de", "en"}, templates={"de", "en"})


@pytest.fixture
async def operator() -> AsyncIterator[httpx.AsyncClient]:
    tenants = Tenants()
    node = FakeNode(tenancy=TenantRegistry(MemoryTenantStore(), tenants, RULES))
    app = create_app(node, FakeAuthenticator({}, "admin"), NodeConfig(), FakeMetrics())
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://node", headers={"Authorization": "Bearer admin"}
    ) as client:
        yield client


async def test_what_is_odd_about_a_tenants_languages_is_told_when_it_is_written(operator: httpx.AsyncClient) -> None:
    """Irish is accepted: replies are judged in it. That the gate's detector cannot tell it, and that it borrows the
    English templates, stands in the answer, now and later."""
    made = await operator.post("/admin/tenants", json={"id": "acme", "languages": {"de": {}, "ga": {}}})
    assert made.status_code == 201
    gate, templates = made.json()["warnings"]
    assert gate.startswith("languages.ga: the promotion gate's detector cannot tell it")
    assert templates == "languages.ga: has no prompt templates of its own, so that English ones name it"
    assert (await operator.get("/admin/tenants/acme")).json()["warnings"] == [gate, templates]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"languages": {"is": {}}}, "languages.is must be a language that the detector knows, got 'is'"),
        (
            {"languages": {"de": {"prompts": {"create": "{{ range(9) }}"}}}},
            "languages.de.prompts.create must use",
        ),
        (
            {"languages": {"de": {"foreign_languages": ["en"]}}},
            "languages.de.foreign_languages needs a foreign_share above 0, got 0",
        ),
        (
            {"languages": {"de": {"foreign_share": 0.1, "foreign_languages": ["xx"]}}},
            "languages.de.foreign_languages must be ISO 639-1 codes, got 'xx'",
        ),
        (
            {"languages": {"de": {}}, "fallback_language": "en"},
            "fallback_language must be one of the tenant's languages (de), got 'en'",
        ),
        ({"languages": {"de": {"foreign_share": 1.5}}}, "languages.de.foreign_share"),
        ({"languages": {"de": {"glossary": {"": "x"}}}}, "languages.de.glossary"),
        ({"languages": {"de": {"prompts": {"chat": "x"}}}}, "languages.de.prompts.chat"),
    ],
)
async def test_bad_language_settings_are_refused_with_the_field_and_the_reason(
    operator: httpx.AsyncClient, settings: dict[str, Any], said: str
) -> None:
    """When they are written, not when a request trips over them."""
    answer = await operator.post("/admin/tenants", json={"id": "acme", **settings})
    assert answer.status_code == 422
    problem = answer.json()
    told = [problem["detail"], *(item["field"] for item in problem.get("errors", []))]
    assert any(said in line for line in told), told


def test_rules_name_every_broken_field() -> None:
    """The first is the error's field, the others follow in its message."""
    settings = LanguageSettings(prompts=PromptOverrides(create="{{ x }}", rewrite="{% set y = 1 %}"))
    with pytest.raises(InvalidInput) as caught:
        RULES.check(TenantSettings(id="acme", languages={"de": settings}))
    assert caught.value.field == "languages.de.prompts.create"
    assert "languages.de.prompts.rewrite: must print" in caught.value.message
