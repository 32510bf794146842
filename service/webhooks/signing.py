"""Signatures of Standard Webhooks (https://www.standardwebhooks.com), made with its own library."""

import base64
import math
import secrets
from datetime import datetime

from standardwebhooks import Webhook

from service.webhooks.records import SigningSecrets

SECRET_PREFIX = "whsec_"
_SECRET_BYTES = 32


def new_secret() -> str:
    """`whsec_` and base64 of 32 random bytes."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def rotated(current: SigningSecrets, now: datetime, until: datetime) -> SigningSecrets:
    """A new secret, with the current one signing too until ``until``; an older one ends at once."""
    return SigningSecrets(new_secret(), current.current if until > now else None, until if until > now else None)


def signature_headers(secrets_: SigningSecrets, message_id: str, body: str, now: datetime) -> dict[str, str]:
    """`webhook-id`, `webhook-timestamp` (of this try, whole seconds) and `webhook-signature`: one per valid secret."""
    signatures = [Webhook(secret).sign(message_id, now, body) for secret in secrets_.valid(now)]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(math.floor(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
