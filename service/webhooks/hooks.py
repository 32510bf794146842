"""The tenants' inbound hooks."""

import base64
import binascii
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import JsonValue

from agent.errors import Conflict, InvalidInput, NotFound
from service.webhooks.config import WebhooksConfig
from service.webhooks.hook import Check, Hook, Verification
from service.webhooks.ports import HookRecords
from service.webhooks.records import Clock, utc_now
from service.webhooks.signing import SECRET_PREFIX, new_secret

MIN_SECRET_CHARS = 16
MAX_SECRET_CHARS = 256
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
_SECRET = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class HookChange:
    """What a tenant changes of a hook; None leaves it. Mapping and example belong together."""

    name: str | None = None
    enabled: bool | None = None
    mapping: dict[str, JsonValue] | None = None
    example: JsonValue = None
    check: Check | None = None


class Hooks:
    """Makes, changes, deletes and finds hooks. Mappings come checked. Methods raise StoreError."""

    def __init__(self, records: HookRecords, config: WebhooksConfig, clock: Clock = utc_now) -> None:
        self._records, self._config, self._clock = records, config, clock

    async def create(
        self, tenant: str, name: str, mapping: Mapping[str, JsonValue], example: JsonValue, check: Check
    ) -> Hook:
        """Make a hook with an unguessable id.

        Raises:
            Conflict: the tenant has as many as it may.
        """
        hook = Hook(
            id=f"hook_{secrets.token_urlsafe(24)}",
            tenant=tenant,
            name=name,
            enabled=True,
            mapping=dict(mapping),
            example=example,
            check=check,
            created_at=self._clock(),
        )
        limit = self._config.max_endpoints
        if not await self._records.add(hook, limit=limit):
            raise Conflict(f"a tenant may have {limit} hooks, and this one has as many; delete one first")
        return hook

    async def list(self, tenant: str) -> list[Hook]:
        """Oldest first."""
        return await self._records.list(tenant)

    async def get(self, tenant: str, hook_id: str) -> Hook:
        """A tenant's hook. Raises NotFound, for another tenant's too."""
        hook = await self._records.find(hook_id)
        if hook is None or hook.tenant != tenant:
            raise NotFound("there is no such hook")
        return hook

    async def called(self, hook_id: str) -> Hook:
        """The hook that a call names. Raises NotFound, for a disabled one too."""
        hook = await self._records.find(hook_id)
        if hook is None or not hook.enabled:
            raise NotFound("there is no such hook; check that its URL was copied whole and that it is enabled")
        return hook

    async def update(self, tenant: str, hook_id: str, change: HookChange) -> Hook:
        """Change a hook. Raises NotFound."""
        hook = await self.get(tenant, hook_id)
        changed = replace(
            hook,
            name=hook.name if change.name is None else change.name,
            enabled=hook.enabled if change.enabled is None else change.enabled,
            mapping=hook.mapping if change.mapping is None else change.mapping,
            example=hook.example if change.example is None else change.example,
            check=hook.check if change.check is None else change.check,
        )
        if not await self._records.replace(changed):
            raise NotFound("there is no such hook")
        return changed

    async def delete(self, tenant: str, hook_id: str) -> None:
        """Delete a hook; its address answers 404 from then on. Raises NotFound."""
        if not await self._records.remove(tenant, hook_id):
            raise NotFound("there is no such hook")


def new_check(kind: Verification, header: str | None, secret: str | None) -> Check:
    """How a hook's calls are verified, with a secret made here when none is given.

    Raises:
        InvalidInput: a header is missing or superfluous, or the secret does not fit the kind.
    """
    if kind is Verification.NONE:
        if header or secret:
            raise InvalidInput("verification.kind", "must be header, hmac_sha256 or standard_webhooks to have a secret")
        return Check()
    takes_header = kind is not Verification.STANDARD_WEBHOOKS
    if takes_header and not (header and _HEADER.fullmatch(header)):
        raise InvalidInput("verification.header", "must be a header's name: letters, digits and '-'")
    if header and not takes_header:
        raise InvalidInput("verification.header", "must be left out: Standard Webhooks names its headers")
    chosen = secret or new_secret()
    _require_secret(kind, chosen)
    return Check(kind, header, chosen)


def _require_secret(kind: Verification, secret: str) -> None:
    if not MIN_SECRET_CHARS <= len(secret) <= MAX_SECRET_CHARS or not _SECRET.fullmatch(secret):
        raise InvalidInput(
            "verification.secret",
            f"must have {MIN_SECRET_CHARS} to {MAX_SECRET_CHARS} plain ASCII characters without spaces",
        )
    if kind is Verification.STANDARD_WEBHOOKS and not _is_standard(secret):
        raise InvalidInput("verification.secret", "must be `whsec_` and base64")


def _is_standard(secret: str) -> bool:
    try:
        return secret.startswith(SECRET_PREFIX) and bool(
            base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
        )
    except binascii.Error:
        return False
