"""Secrets and signatures."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from service.webhooks.records import SigningSecrets
from service.webhooks.signing import new_secret, rotated, signature_headers

NOW = datetime(2026, 1, 1, 0, 0, 0, 900_000, tzinfo=UTC)
BODY = '{"type":"job.completed","data":{"text":"Grüße"}}'


def test_a_secret_is_32_random_bytes_in_base64() -> None:
    """Standard Webhooks asks for 24 to 64 bytes behind `whsec_`."""
    secret = new_secret()
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert secret != new_secret()


def test_the_signature_is_hmac_sha256_over_id_timestamp_and_body() -> None:
    """Computed here from the specification, not with the library."""
    key = b"0123456789abcdef0123456789abcdef"
    secrets = SigningSecrets("whsec_" + base64.b64encode(key).decode())
    headers = signature_headers(secrets, "msg_1", BODY, NOW)
    # 2026-01-01T00:00:00Z is 56 years, 14 of them leap years: (56 * 365 + 14) * 86,400 s; fractions are cut.
    seconds = (56 * 365 + 14) * 86_400
    expected = hmac.new(key, f"msg_1.{seconds}.{BODY}".encode(), hashlib.sha256).digest()
    assert headers == {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(seconds),
        "webhook-signature": "v1," + base64.b64encode(expected).decode(),
    }


def test_a_rotation_signs_with_both_secrets_until_the_overlap_ends() -> None:
    """A receiver with either secret verifies; afterwards only one with the new secret does."""
    old = SigningSecrets(new_secret())
    now = datetime.now(UTC)
    both = rotated(old, now, now + timedelta(hours=1))
    headers = signature_headers(both, "msg_1", BODY, now)
    assert headers["webhook-signature"].count("v1,") == 2
    assert headers["webhook-signature"].count(" ") == 1
    for secret in (old.current, both.current):
        Webhook(secret).verify(BODY, headers)
    late = signature_headers(both, "msg_1", BODY, now + timedelta(hours=1))
    late["webhook-timestamp"] = headers["webhook-timestamp"]
    assert late["webhook-signature"].count("v1,") == 1
    with pytest.raises(WebhookVerificationError):
        Webhook(old.current).verify(BODY, late)


def test_a_second_rotation_ends_the_oldest_secret_at_once() -> None:
    """Two secrets sign at most: a leaked one is gone after two rotations."""
    first = SigningSecrets(new_secret())
    second = rotated(first, NOW, NOW + timedelta(hours=1))
    third = rotated(second, NOW, NOW + timedelta(hours=1))
    assert third.valid(NOW) == (third.current, second.current)


def test_a_rotation_without_overlap_ends_the_old_secret_at_once() -> None:
    """`rotation_overlap_s = 0`."""
    changed = rotated(SigningSecrets(new_secret()), NOW, NOW)
    assert changed.valid(NOW) == (changed.current,)


def test_secrets_are_not_in_their_repr() -> None:
    """A record that reaches a log or a traceback tells no secret."""
    secrets = SigningSecrets("whsec_geheim", "whsec_alt", NOW)
    assert "geheim" not in repr(secrets)
    assert "alt" not in repr(secrets).replace("previous_until", "")
