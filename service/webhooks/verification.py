"""Whether a call of an inbound hook comes from somebody who knows the hook's secret."""

import base64
import hashlib
import hmac
from collections.abc import Mapping

from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from agent.errors import HookNotVerified
from service.webhooks.hook import Check, Verification

_PREFIX = "sha256="


def verify(check: Check, headers: Mapping[str, str], body: bytes) -> None:
    """Let a call pass.

    Args:
        headers: by lower-case name.

    Raises:
        HookNotVerified: what the hook asks for is missing or wrong. The message repeats nothing that came.
    """
    if check.kind is Verification.NONE:
        return
    assert check.secret is not None
    if check.kind is Verification.STANDARD_WEBHOOKS:
        _verify_standard(check.secret, headers, body)
        return
    assert check.header is not None
    came = headers.get(check.header.lower())
    if came is None:
        raise HookNotVerified(f"this hook needs the header {check.header}, got none")
    expected = [check.secret] if check.kind is Verification.HEADER else _signatures(check.secret, body)
    if not any(hmac.compare_digest(came.removeprefix(_PREFIX).encode(), item.encode()) for item in expected):
        raise HookNotVerified(
            f"the header {check.header} must hold this hook's secret or signature, got something else"
        )


def _verify_standard(secret: str, headers: Mapping[str, str], body: bytes) -> None:
    try:
        Webhook(secret).verify(body, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError) as error:
        raise HookNotVerified("the Standard Webhooks signature must verify with this hook's secret") from error


def _signatures(secret: str, body: bytes) -> list[str]:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).digest()
    return [digest.hex(), base64.b64encode(digest).decode()]
