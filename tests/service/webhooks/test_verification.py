"""Whether a call of a hook carries what the hook asks for."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from agent.errors import HookNotVerified, InvalidInput
from service.webhooks.hook import Check, Verification
from service.webhooks.hooks import new_check
from service.webhooks.signing import new_secret
from service.webhooks.verification import verify

SECRET = "correct-horse-battery"
BODY = '{"a":"ü"}'.encode()
DIGEST = hmac.new(SECRET.encode(), BODY, hashlib.sha256).digest()


def test_a_hook_without_verification_takes_any_call() -> None:
    """Its id is the credential."""
    verify(Check(), {}, BODY)


def test_a_header_must_hold_the_secret() -> None:
    """In any case of the header's name; the refusal repeats neither the secret nor what came."""
    check = new_check(Verification.HEADER, "X-Hook-Secret", SECRET)
    verify(check, {"x-hook-secret": SECRET}, BODY)
    for headers in ({}, {"x-hook-secret": "guess-guess-guess"}, {"x-hook-secret": "ü"}, {"x-other": SECRET}):
        with pytest.raises(HookNotVerified) as refused:
            verify(check, headers, BODY)
        assert SECRET not in str(refused.value)
        assert "guess" not in str(refused.value)


@pytest.mark.parametrize("came", [DIGEST.hex(), f"sha256={DIGEST.hex()}", base64.b64encode(DIGEST).decode()])
def test_an_hmac_is_over_the_bytes_of_the_body(came: str) -> None:
    """GitHub's form, Shopify's form, plain hex; one changed byte of the body is refused."""
    check = new_check(Verification.HMAC_SHA256, "X-Signature", SECRET)
    verify(check, {"x-signature": came}, BODY)
    with pytest.raises(HookNotVerified):
        verify(check, {"x-signature": came}, BODY + b" ")


def test_standard_webhooks_are_verified_with_their_library() -> None:
    """A call signed as ours are; another secret, no headers, a broken header and no text are refused."""
    check = new_check(Verification.STANDARD_WEBHOOKS, None, None)
    assert check.secret is not None
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(check.secret).sign("msg_1", now, BODY.decode()),
    }
    verify(check, headers, BODY)
    other = new_check(Verification.STANDARD_WEBHOOKS, None, new_secret())
    broken = [(other, headers, BODY), (check, {}, BODY), (check, headers, b"\xff")]
    broken += [(check, {**headers, "webhook-signature": value}, BODY) for value in ("v1", "v1,?", "v2,x")]
    for case in broken:
        with pytest.raises(HookNotVerified):
            verify(*case)


@pytest.mark.parametrize(
    ("kind", "header", "secret", "field"),
    [
        (Verification.NONE, "X-Key", None, "verification.kind"),
        (Verification.NONE, None, SECRET, "verification.kind"),
        (Verification.HEADER, None, SECRET, "verification.header"),
        (Verification.HEADER, "X Key", SECRET, "verification.header"),
        (Verification.HEADER, "X-Key", "short", "verification.secret"),
        (Verification.HEADER, "X-Key", "ü" * 20, "verification.secret"),
        (Verification.STANDARD_WEBHOOKS, "X-Key", None, "verification.header"),
        (Verification.STANDARD_WEBHOOKS, None, SECRET, "verification.secret"),
        (Verification.STANDARD_WEBHOOKS, None, "whsec_" + "?" * 20, "verification.secret"),
    ],
)
def test_a_check_that_could_not_work_is_refused(
    kind: Verification, header: str | None, secret: str | None, field: str
) -> None:
    """When it is stored, naming what to change."""
    with pytest.raises(InvalidInput) as refused:
        new_check(kind, header, secret)
    assert refused.value.field == field


def test_a_secret_is_made_when_none_is_given() -> None:
    """A fresh one for each hook, not in its repr."""
    first, second = (new_check(Verification.HEADER, "X-Key", None) for _ in range(2))
    assert first.secret is not None
    assert first.secret != second.secret
    assert first.secret not in repr(first)
