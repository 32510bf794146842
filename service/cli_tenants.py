"""`coloq tenant` and `coloq key`: tenants and their keys on a running node, through its admin API.

`coloq key new` alone needs no node: it makes a key for the configuration file. A key goes to stdout once, by itself, so
that a script can take it; everything else about it goes to stderr.
"""

import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from agent.errors import InvalidConfig, InvalidInput
from service.cli_tuning import DEFAULT_URL, Url, admin_key, told_problems
from service.config_text import tenants_toml
from service.http.client import valid_body
from service.http.tenant_client import TenantClient
from service.http.tenant_schema import IssuedKeyView, KeyBody, KeyView, TenantView
from service.tenancy.record import Scope

_TENANT = r"[a-z0-9][a-z0-9_-]{0,62}"

tenant_app = typer.Typer(help="Tenants of a running node.", no_args_is_help=True)
key_app = typer.Typer(help="API keys of tenants.", no_args_is_help=True)

Tenant = Annotated[str, typer.Argument(metavar="TENANT", help="A tenant's id.")]
KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="A key's id (`coloq key list`).")]


@tenant_app.command("list")
def list_tenants(url: Url = DEFAULT_URL) -> None:
    """Show tenants, their languages and what they used today."""
    with _client(url) as client:
        heading = Column("tenant", no_wrap=True)
        table = Table(heading, "languages", "keys", "requests today", "tokens today", "settings from", box=None)
        for tenant in client.tenants().tenants:
            table.add_row(*_row(tenant))
        Console().print(table)


@tenant_app.command("export")
def export(
    tenant: Annotated[str | None, typer.Argument(metavar="[TENANT]", help="One tenant; without it, all.")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Print tenants as `[[tenants]]` tables, without keys; `coloq tenant apply` reads them."""
    with _client(url) as client:
        views = [client.tenant(tenant)] if tenant is not None else client.tenants().tenants
        typer.echo(tenants_toml([view.settings for view in views]), nl=False)


@tenant_app.command("apply")
def apply(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A TOML file with `[[tenants]]` tables.")],
    url: Url = DEFAULT_URL,
) -> None:
    """Add or replace every tenant of a file, which may be a node's configuration. Keys in it are left out."""
    with _client(url) as client:
        known = {view.settings.id for view in client.tenants().tenants}
        for settings in _tenants_of(path):
            tenant = str(settings.get("id", ""))
            if tenant in known:
                client.replace(tenant, settings)
            else:
                client.create(settings)
            typer.echo(f"tenant {tenant} {'replaced' if tenant in known else 'added'}")


@tenant_app.command("delete")
def delete(tenant: Tenant, url: Url = DEFAULT_URL) -> None:
    """Remove a tenant and its keys. What it wrote stays in the journal; tuning draws from it no more."""
    with _client(url) as client:
        client.delete(tenant)
        typer.echo(f"tenant {tenant} deleted")


@tenant_app.command("audit")
def audit(
    limit: Annotated[int, typer.Option(min=1, max=200, help="Entries to show.")] = 20, url: Url = DEFAULT_URL
) -> None:
    """Show the newest acts of operators and tenants' admin keys."""
    with _client(url) as client:
        for entry in client.audit(limit).entries:
            whose = f" of {entry.tenant}" if entry.tenant is not None else ""
            typer.echo(f"{_time(entry.at)}  {entry.action}  {entry.path}  {entry.actor}{whose}")


@key_app.command("new")
def new(tenant: Annotated[str, typer.Argument(help="Id of the tenant that will hold the key.")]) -> None:
    """Make an API key for the configuration file and print it once, with the hash that goes there; needs no node."""
    from service.secrets import new_key

    key = new_key(tenant_id(tenant))
    typer.echo(f"API key of tenant {tenant}, shown this once:\n\n  {key.plain}\n")
    typer.echo(f'Add its hash to that tenant\'s key_hashes in the configuration:\n\n  "{key.hash}",')


@key_app.command("list")
def list_keys(tenant: Tenant, url: Url = DEFAULT_URL) -> None:
    """Show a tenant's keys, those that ended included."""
    with _client(url) as client:
        table = Table(Column("key", no_wrap=True), "name", "scopes", "state", "last used", box=None)
        for key in client.keys(tenant).keys:
            scopes = ", ".join(scope.value for scope in key.scopes)
            table.add_row(key.id, key.name, scopes, _state(key), _time(key.last_used_at))
        Console().print(table)


@key_app.command("create")
def create(
    tenant: Tenant,
    name: Annotated[str, typer.Option(help="What uses the key.")],
    scope: Annotated[
        list[Scope] | None, typer.Option(help="What it may do; repeat for more. Default: generate, feedback, read.")
    ] = None,
    days: Annotated[float | None, typer.Option(min=0.001, max=36_500, help="Days until it ends by itself.")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Make a key on a running node and print it once."""
    expires_at = datetime.now(UTC) + timedelta(days=days) if days is not None else None
    scopes = scope or [Scope.GENERATE, Scope.FEEDBACK, Scope.READ]
    with _client(url) as client:
        _show(client.make_key(tenant, valid_body(KeyBody, {"name": name, "scopes": scopes, "expires_at": expires_at})))


@key_app.command("rotate")
def rotate(
    tenant: Tenant,
    key: KeyId,
    overlap_hours: Annotated[float, typer.Option(min=0, max=720, help="Hours for which the old key still works.")] = 24,
    url: Url = DEFAULT_URL,
) -> None:
    """Put a new key in place of another and print it once."""
    with _client(url) as client:
        _show(client.rotate_key(tenant, key, overlap_hours * 3600))


@key_app.command("revoke")
def revoke(tenant: Tenant, key: KeyId, url: Url = DEFAULT_URL) -> None:
    """End a key at once."""
    with _client(url) as client:
        typer.echo(f"{client.revoke_key(tenant, key).id} is revoked")


def tenant_id(tenant: str) -> str:
    """The id itself. Raises InvalidConfig when it is none."""
    if not re.fullmatch(_TENANT, tenant):
        raise InvalidConfig("tenant", f"must be lower-case letters, digits, `-` and `_`, at most 63, got {tenant!r}")
    return tenant


@contextmanager
def _client(url: str) -> Iterator[TenantClient]:
    with told_problems(), TenantClient(url, admin_key()) as client:
        yield client


def _tenants_of(path: Path) -> list[dict[str, Any]]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("tenants", [])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(str(path), f"must be a TOML file: {error}") from error
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise InvalidInput(str(path), "must have `[[tenants]]` tables, got none")
    return [{name: value for name, value in table.items() if name != "key_hashes"} for table in tables]


def _row(tenant: TenantView) -> tuple[str, ...]:
    used = tenant.used_today
    languages = ", ".join(sorted(tenant.settings.languages))
    numbers = (str(tenant.num_keys), str(used.requests), str(used.tokens))
    return (tenant.settings.id, languages, *numbers, tenant.origin.value)


def _show(key: IssuedKeyView) -> None:
    typer.echo(f"{key.id}, {', '.join(scope.value for scope in key.scopes)}; shown this once:", err=True)
    typer.echo(key.key)


def _state(key: KeyView) -> str:
    if key.revoked_at is not None:
        return f"revoked {_time(key.revoked_at)}"
    if key.expires_at is not None:
        ended = key.expires_at <= datetime.now(UTC)
        return f"{'ended' if ended else 'ends'} {_time(key.expires_at)}"
    return "valid"


def _time(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}" if at is not None else "-"
