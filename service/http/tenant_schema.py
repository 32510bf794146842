"""Tenants, keys and the audit log as JSON, for the routes and for the CLI that calls them. No FastAPI in here."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from agent.config import UNLIMITED, LimitSettings, TenantSettings
from service.tenancy.audit import AuditEntry
from service.tenancy.record import KeyRecord, Origin, Scope, TenantRecord
from service.tenancy.registry import KeyOrder

MAX_PAGE = 200


class KeyBody(BaseModel):
    """A key to make."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "Make, newsletter scenario", "scopes": ["generate", "read"]}]},
    )

    name: str = Field(min_length=1, max_length=100, description="What uses the key; for people.")
    scopes: list[Scope] = Field(min_length=1, max_length=4, description="What the key may do.")
    expires_at: AwareDatetime | None = Field(default=None, description="When it ends by itself; null for never.")
    limits: LimitSettings = Field(default=UNLIMITED, description="Limits of this key, beside the tenant's.")

    def order(self) -> KeyOrder:
        """The key to make."""
        return KeyOrder(self.name, tuple(self.scopes), self.expires_at, self.limits)


class KeyView(BaseModel):
    """One key, without the key itself."""

    id: str = Field(examples=["key_3fa9c1d27b60"])
    name: str
    scopes: list[Scope]
    limits: LimitSettings
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    replaced_by: str | None = Field(description="The key that a rotation made.")
    last_used_at: datetime | None = Field(description="Up to a minute old; null when it never was.")

    @classmethod
    def of(cls, key: KeyRecord, last_used_at: datetime | None = None) -> "KeyView":
        return cls(
            id=key.id,
            name=key.name,
            scopes=list(key.scopes),
            limits=key.limits,
            created_at=key.created_at,
            expires_at=key.expires_at,
            revoked_at=key.revoked_at,
            replaced_by=key.replaced_by,
            last_used_at=last_used_at,
        )


class KeyList(BaseModel):
    """A tenant's keys, oldest first, those that ended included."""

    keys: list[KeyView]


class IssuedKeyView(KeyView):
    """A key that was just made."""

    key: str = Field(description="The key itself; shown this once.", examples=["clq_acme_…"])


class UsageView(BaseModel):
    """What was used since 00:00 UTC."""

    requests: int
    tokens: int


class TenantView(BaseModel):
    """One tenant. `settings` may be sent back with PUT."""

    settings: TenantSettings
    origin: Origin = Field(description="`file` while it follows the configuration file, `admin` once it was changed.")
    created_at: datetime
    updated_at: datetime
    revision: int
    num_keys: int = Field(description="Keys, those that ended included.")
    used_today: UsageView
    warnings: list[str] = Field(
        description="What is accepted in the settings and should be known, each with its field.",
        examples=[["languages.ga: has no prompt templates of its own, so that English ones name it"]],
    )

    @classmethod
    def of(cls, record: TenantRecord, used_today: tuple[int, int], warnings: Sequence[str] = ()) -> "TenantView":
        return cls(
            settings=record.settings,
            origin=record.origin,
            created_at=record.created_at,
            updated_at=record.updated_at,
            revision=record.revision,
            num_keys=len(record.keys),
            used_today=UsageView(requests=used_today[0], tokens=used_today[1]),
            warnings=list(warnings),
        )


class TenantList(BaseModel):
    """Tenants, sorted by id."""

    tenants: list[TenantView]


class AuditView(BaseModel):
    """One act."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    at: datetime
    actor: str = Field(description="Id of the key: `admin_…` for the node's own, `key_…` for a tenant's.")
    tenant: str | None
    action: str = Field(description="The operation's id in this document.", examples=["replace_tenant"])
    path: str
    status: int
    request_id: str
    before: str | None = Field(description="Digest of what was there; null when nothing was, or it is not known.")
    after: str | None

    @classmethod
    def of(cls, entry: AuditEntry) -> "AuditView":
        return cls.model_validate(entry)


class AuditQuery(BaseModel):
    """Which page of the audit log."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=MAX_PAGE, description="Entries of a page.")
    cursor: str | None = Field(default=None, max_length=64, description="`next_cursor` of the page before.")


class AuditPage(BaseModel):
    """Acts, newest first."""

    entries: list[AuditView]
    next_cursor: str | None = Field(description="Ask for older ones with `cursor`; null at the end.")


Overlap = Annotated[float, Field(ge=0, le=30 * 86_400)]
