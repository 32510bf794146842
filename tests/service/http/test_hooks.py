"""`/v1/hooks-config` and `/v1/hooks/{hook}`: a platform's payload becomes a brief, without code."""

import hashlib
import hmac
from typing import Any

import httpx
import pytest

from agent.brief import Kind
from service.http.fakes import FakeNode

CONFIG = "/v1/hooks-config"
MAPPING = {
    "kind": "create",
    "language": {"from": "lang", "default": "de"},
    "instructions": {"from": "join(': ', ['Produkttext', product.title])"},
    "keywords": {"from": "product.tags"},
    "max_words": {"from": "words"},
}
EXAMPLE = {"lang": "en", "product": {"title": "Klingel", "tags": "Rad, Stadt"}}
FORM_MAPPING = {"kind": "create", "language": "de", "instructions": {"from": "title"}}
HOOK = {"name": "shop", "mapping": MAPPING, "example": EXAMPLE}


async def create(client: httpx.AsyncClient, key: dict[str, str], **fields: object) -> dict[str, Any]:
    response = await client.post(CONFIG, headers=key, json={**HOOK, **fields})
    assert response.status_code == 201, response.text
    body: dict[str, Any] = response.json()
    return body


async def test_a_payload_is_answered_as_its_brief_would_be(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str]
) -> None:
    """The caller needs no key; body and headers are those of POST /v1/content; the brief is the hook's tenant's."""
    hook = await create(client, tenant_key)
    response = await client.post(hook["path"], json={"product": {"title": "Klingel", "tags": ["Rad"]}, "words": "60"})
    assert response.status_code == 200, response.text
    assert response.json()["text"] == "Guten Tag."
    assert (response.headers["X-Policy-Version"], response.headers["X-Language-Verdict"]) == ("3", "pass")
    brief, _, request_id = node.content.calls[0]
    assert request_id == response.headers["X-Request-Id"]
    assert (brief.tenant, brief.kind, brief.language) == ("acme", Kind.CREATE, "de")
    assert (brief.instructions, brief.keywords, brief.max_words) == ("Produkttext: Klingel", ("Rad",), 60)
    assert brief.brand_terms == ("Klingelo",)


async def test_null_counts_as_not_given(client: httpx.AsyncClient, tenant_key: dict[str, str]) -> None:
    """A hook without verification is open to whoever knows its address."""
    hook = await create(client, tenant_key, verification=None)
    assert (hook["verification"], hook["secret"]) == ("none", None)
    assert (await client.post(hook["path"], json=EXAMPLE)).status_code == 200


async def test_a_mapping_may_give_every_field_of_a_brief(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str]
) -> None:
    """A form of address and a schema among them."""
    mapping = {**MAPPING, "register": {"from": "how", "default": "formal"}, "schema": {"type": "object"}}
    hook = await create(client, tenant_key, mapping=mapping)
    response = await client.post(hook["path"], json={"product": {"title": "Klingel"}, "how": "informal"})
    assert response.status_code == 200, response.text
    brief, *_ = node.content.calls[0]
    assert (brief.register, brief.schema) == ("informal", '{"type":"object"}')


@pytest.mark.parametrize("form", ["urlencoded", "multipart"])
async def test_forms_are_payloads_too(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str], form: str
) -> None:
    """Fields are texts; a name that comes twice is a list."""
    mapping = {
        "kind": "create",
        "language": {"from": "lang"},
        "instructions": {"from": "title"},
        "keywords": {"from": "tag"},
        "max_words": {"from": "words"},
    }
    example = {"lang": "de", "title": "x", "tag": ["a"], "words": "9"}
    hook = await create(client, tenant_key, mapping=mapping, example=example)
    fields: dict[str, Any] = {"lang": "de", "title": "Grüße & mehr", "words": "60", "tag": ["Rad", "Stadt"]}
    if form == "urlencoded":
        response = await client.post(hook["path"], data=fields)
    else:
        parts = [(name, (None, item)) for name in fields for item in _items(fields[name])]
        response = await client.post(hook["path"], files=parts)
    assert response.status_code == 200, response.text
    brief, *_ = node.content.calls[0]
    assert (brief.instructions, brief.keywords, brief.max_words) == ("Grüße & mehr", ("Rad", "Stadt"), 60)


def _items(value: object) -> list[str]:
    return value if isinstance(value, list) else [str(value)]


@pytest.mark.parametrize(
    ("content", "charset"),
    [
        ("title=Głośny+dzwonek".encode(), ""),  # as `curl -d` sends it
        (b"title=G%C5%82o%C5%9Bny%20dzwonek", ""),
        ("title=Głośny dzwonek".encode("iso-8859-2"), '; charset="ISO-8859-2"'),
        (b"title=G%B3o%B6ny+dzwonek", "; charset=iso-8859-2"),
    ],
)
async def test_a_form_is_read_in_utf_8_or_in_the_charset_that_it_declares(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str], content: bytes, charset: str
) -> None:
    """Percent-encoded or not."""
    hook = await create(client, tenant_key, mapping=FORM_MAPPING, example={"title": "x"})
    headers = {"Content-Type": f"application/x-www-form-urlencoded{charset}"}
    response = await client.post(hook["path"], content=content, headers=headers)
    assert response.status_code == 200, response.text
    brief, *_ = node.content.calls[0]
    assert brief.instructions == "Głośny dzwonek"


@pytest.mark.parametrize(
    ("content", "charset", "told"),
    [
        (b"title=G%B3o%B6ny", "", "the form must be text in utf-8"),
        (b"title=x", "; charset=klingon", "the form must be text in klingon"),
        (b"a=1&" * 201, "", "the form must have at most 200 fields, got 201"),
    ],
)
async def test_a_form_that_cannot_be_read_is_refused(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str], content: bytes, charset: str, told: str
) -> None:
    """No text is made of letters that were guessed."""
    hook = await create(client, tenant_key, mapping=FORM_MAPPING, example={"title": "x"})
    headers = {"Content-Type": f"application/x-www-form-urlencoded{charset}"}
    response = await client.post(hook["path"], content=content, headers=headers)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert response.json()["detail"].startswith(told)
    assert node.content.calls == []


@pytest.mark.parametrize(
    ("content", "content_type", "status", "code"),
    [
        (b"{broken", "application/json", 422, "invalid_request"),
        (b"\xff\xfe", "application/json", 422, "invalid_request"),
        (b'"text"', "application/json", 422, "invalid_request"),
        (b'{"product": {"title": NaN}}', "application/json", 422, "invalid_request"),
        (b"[" * 100_000, "application/json", 413, "body_too_large"),
        (b"[" * 2000, "application/json", 422, "invalid_request"),
        (b"", "application/json", 422, "invalid_request"),
        (b"<xml/>", "application/xml", 415, "unsupported_media_type"),
        (b"no boundary", "multipart/form-data", 422, "invalid_request"),
        (b'{"product": {"title": 7}}', "application/json", 422, "invalid_request"),
        (b'{"product": {"title": "x"}, "lang": "fr"}', "application/json", 422, "invalid_brief"),
        (b'{"product": {"title": "x"}, "words": "many"}', "application/json", 422, "invalid_request"),
        (b"{}", "application/json", 422, "invalid_request"),
    ],
)
async def test_a_payload_that_makes_no_brief_is_refused(
    client: httpx.AsyncClient,
    node: FakeNode,
    tenant_key: dict[str, str],
    content: bytes,
    content_type: str,
    status: int,
    code: str,
) -> None:
    """Before the engine is asked; the answer is a problem."""
    hook = await create(client, tenant_key)
    response = await client.post(hook["path"], content=content, headers={"Content-Type": content_type})
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert node.content.calls == []


async def test_json_without_its_media_type_is_taken(client: httpx.AsyncClient, tenant_key: dict[str, str]) -> None:
    """Some platforms declare text/plain, or nothing."""
    hook = await create(client, tenant_key)
    for headers in ({"Content-Type": "text/plain"}, {}):
        response = await client.post(hook["path"], content=b'{"product": {"title": "x"}}', headers=headers)
        assert response.status_code == 200


async def test_a_file_in_a_form_is_refused(client: httpx.AsyncClient, tenant_key: dict[str, str]) -> None:
    """Payloads are texts."""
    hook = await create(client, tenant_key)
    response = await client.post(hook["path"], data={"lang": "de"}, files={"title": ("a.txt", b"x")})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert response.json()["detail"] == "the form must hold texts only, got a file in title"


async def test_an_unknown_a_disabled_and_a_deleted_hook_are_404(
    client: httpx.AsyncClient, tenant_key: dict[str, str]
) -> None:
    """All alike, so that nobody learns which ids there were."""
    hook = await create(client, tenant_key)
    answers = [await client.post("/v1/hooks/hook_nonsense", json={})]
    await client.patch(f"{CONFIG}/{hook['id']}", headers=tenant_key, json={"enabled": False})
    answers.append(await client.post(hook["path"], json=EXAMPLE))
    assert (await client.delete(f"{CONFIG}/{hook['id']}", headers=tenant_key)).status_code == 204
    answers.append(await client.post(hook["path"], json=EXAMPLE))
    assert {(item.status_code, item.json()["detail"]) for item in answers} == {
        (404, "there is no such hook; check that its URL was copied whole and that it is enabled")
    }


async def test_a_hook_with_a_signature_takes_signed_calls_only(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str]
) -> None:
    """403 without; the signature is over the bytes of the body, of forms too."""
    verification = {"kind": "hmac_sha256", "header": "X-Signature"}
    hook = await create(client, tenant_key, verification=verification)
    body = b'{"product": {"title": "x"}}'
    signature = hmac.new(hook["secret"].encode(), body, hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json"}
    refused = await client.post(hook["path"], content=body, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "hook_not_verified")
    assert node.content.calls == []
    taken = await client.post(hook["path"], content=body, headers={**headers, "X-Signature": signature})
    assert taken.status_code == 200


async def test_a_hooks_secret_is_shown_once(client: httpx.AsyncClient, tenant_key: dict[str, str]) -> None:
    """When it is made, and when another verification is set."""
    hook = await create(client, tenant_key, verification={"kind": "header", "header": "X-Key"})
    secret = hook.pop("secret")
    assert len(secret) >= 32
    shown = await client.get(f"{CONFIG}/{hook['id']}", headers=tenant_key)
    assert shown.json() == hook
    assert secret not in (await client.get(CONFIG, headers=tenant_key)).text
    renamed = await client.patch(f"{CONFIG}/{hook['id']}", headers=tenant_key, json={"name": "other"})
    assert renamed.json() == {**hook, "name": "other", "secret": None}
    changed = await client.patch(
        f"{CONFIG}/{hook['id']}",
        headers=tenant_key,
        json={"verification": {"kind": "header", "header": "X-Key", "secret": "my-own-secret-here"}},
    )
    assert changed.json()["secret"] == "my-own-secret-here"
    assert (await client.post(hook["path"], json=EXAMPLE, headers={"X-Key": secret})).status_code == 403
    assert (await client.post(hook["path"], json=EXAMPLE, headers={"X-Key": "my-own-secret-here"})).status_code == 200


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"mapping": {"kind": "create", "language": "de"}}, "invalid_brief", "instructions"),
        ({"mapping": {**MAPPING, "language": "fr"}}, "invalid_brief", "language"),
        ({"mapping": {**MAPPING, "langauge": "de"}}, "invalid_request", "mapping.langauge"),
        ({"mapping": {**MAPPING, "text": {"from": "["}}}, "invalid_request", "mapping.text"),
        ({"mapping": {**MAPPING, "max_words": 0}}, "invalid_request", "max_words"),
        ({"mapping": {**MAPPING, "max_tokens": 9000}}, "invalid_brief", "max_tokens"),
        ({"mapping": {}}, "invalid_request", "mapping"),
        ({"example": {}}, "invalid_request", "mapping.instructions"),
        ({"verification": {"kind": "header"}}, "invalid_request", "verification.header"),
    ],
)
async def test_a_mapping_is_tried_on_its_example_before_it_is_stored(
    client: httpx.AsyncClient, tenant_key: dict[str, str], change: dict[str, object], code: str, field: str
) -> None:
    """By POST and by PATCH; nothing is stored."""
    response = await client.post(CONFIG, headers=tenant_key, json={**HOOK, **change})
    assert (response.status_code, response.json()["code"]) == (422, code), response.text
    assert response.json()["errors"][0]["field"] == field
    assert (await client.get(CONFIG, headers=tenant_key)).json() == {"hooks": []}
    hook = await create(client, tenant_key)
    response = await client.patch(f"{CONFIG}/{hook['id']}", headers=tenant_key, json=change)
    assert (response.status_code, response.json()["code"]) == (422, code)
    assert (await client.get(f"{CONFIG}/{hook['id']}", headers=tenant_key)).json()["mapping"] == MAPPING


async def test_a_preview_shows_the_brief_and_generates_nothing(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str]
) -> None:
    """Of the example, or of a payload; a payload that makes none is refused as a call would be."""
    hook = await create(client, tenant_key)
    preview = f"{CONFIG}/{hook['id']}/preview"
    assert (await client.post(preview, headers=tenant_key, json={})).json() == {
        "brief": {
            "kind": "create",
            "language": "en",
            "instructions": "Produkttext: Klingel",
            "keywords": ["Rad", "Stadt"],
        }
    }
    other = await client.post(preview, headers=tenant_key, json={"payload": {"product": {"title": "x"}, "words": 5}})
    assert other.json()["brief"] == {
        "kind": "create",
        "language": "de",
        "instructions": "Produkttext: x",
        "max_words": 5,
    }
    refused = await client.post(preview, headers=tenant_key, json={"payload": {"product": {}}})
    assert refused.status_code == 422
    assert node.content.calls == []


async def test_another_tenants_hook_is_not_to_be_seen_or_changed(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str]
) -> None:
    """Knowing a hook's id lets one call it, no more."""
    hook = await create(client, tenant_key)
    foreign = await node.webhooks.hooks.get("acme", hook["id"])
    await node.webhooks.hooks.delete("acme", hook["id"])
    other = await node.webhooks.hooks.create("initech", "n", foreign.mapping, foreign.example, foreign.check)
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/preview")):
        body: dict[str, object] | None = None if method in {"GET", "DELETE"} else {}
        response = await client.request(method, f"{CONFIG}/{other.id}{path}", headers=tenant_key, json=body)
        assert response.status_code == 404
    # The fake knows no tenant initech, as after its deletion.
    assert (await client.post(f"/v1/hooks/{other.id}", json=EXAMPLE)).status_code == 404
