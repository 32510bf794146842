"""`coloq policies`: who gets which policy of a running node, through its admin API."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from service.cli_tuning import DEFAULT_URL, Url, admin_client, policies_app
from service.http.canary_schema import (
    CanaryBody,
    CanaryView,
    DifferenceView,
    PinBody,
    PromoteBody,
    RollbackBody,
    TrialView,
)
from service.http.client import NodeRefused, valid_body

__all__ = ["policies_app"]

Version = Annotated[int, typer.Argument(min=0, help="A published policy's version; 0 is the untuned model.")]
Tenant = Annotated[str | None, typer.Option(help="One tenant's own policy, not everybody's.")]


@policies_app.command("promote")
def promote_command(
    version: Version,
    tenant: Tenant = None,
    force: Annotated[bool, typer.Option("--force", help="Also when its last trial found harm.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Give a policy to everybody, or to one tenant. Its canary, if there is one, ends."""
    with admin_client(url) as client:
        client.promote(version, valid_body(PromoteBody, {"tenant": tenant, "force": force}))
        typer.echo(f"policy {version} answers {tenant or 'everybody'}")


@policies_app.command("rollback")
def rollback_command(
    version: Version,
    to: Annotated[int | None, typer.Option(min=0, help="What to go back to; by default the one before.")] = None,
    tenant: Tenant = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Take a policy back that is active, or that a canary tries."""
    with admin_client(url) as client:
        serving = client.roll_back(version, valid_body(RollbackBody, {"to": to, "tenant": tenant}))
        typer.echo(f"policy {serving.version} answers {tenant or 'everybody'}")


@policies_app.command("canary")
def canary_command(
    target: Annotated[str, typer.Argument(metavar="VERSION|status|stop", help="A version to try, or what to do.")],
    share: Annotated[float | None, typer.Option(help="Share of the end users, at most 0.5.")] = None,
    language: Annotated[list[str] | None, typer.Option(help="A language that takes part; may be repeated.")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Try a policy on a share of the traffic, show how it stands, or stop it."""
    with admin_client(url) as client:
        if target == "status":
            _print_status(client.canary())
        elif target == "stop":
            typer.echo(_line(client.stop_canary()))
        else:
            body = valid_body(CanaryBody, {"share": share, "languages": language or []})
            typer.echo(_line(client.start_canary(_version(target), body)))


@policies_app.command("pin")
def pin_command(
    version: Version,
    tenant: Annotated[str, typer.Option(help="The tenant to keep on it.")],
    language: Annotated[str | None, typer.Option(help="One of its languages; by default all.")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Keep a tenant on a policy, whatever becomes active."""
    with admin_client(url) as client:
        client.pin(version, valid_body(PinBody, {"tenant": tenant, "language": language}))
        typer.echo(f"{_whom(tenant, language)} stays with policy {version}")


@policies_app.command("unpin")
def unpin_command(
    version: Version,
    tenant: Annotated[str, typer.Option(help="The tenant that is kept on it.")],
    language: Annotated[str | None, typer.Option(help="One of its languages; by default the tenant's own pin.")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Let a tenant follow what is active again."""
    with admin_client(url) as client:
        client.unpin(version, tenant, language)
        typer.echo(f"{_whom(tenant, language)} is not pinned to policy {version}")


def _whom(tenant: str, language: str | None) -> str:
    return tenant if language is None else f"{tenant} in {language}"


def _version(text: str) -> int:
    if not text.isdecimal():
        raise NodeRefused(f"canary must be followed by a version, status or stop, got {text}")
    return int(text)


def _print_status(view: CanaryView) -> None:
    typer.echo(_line(view.running) if view.running is not None else "no canary is running")
    if view.running is not None:
        _print_differences(view.differences)
        for language in sorted(view.num_candidate.keys() | view.num_stable.keys()):
            ours, theirs = view.num_candidate.get(language, 0), view.num_stable.get(language, 0)
            typer.echo(f"{language}: {ours} replies of the candidate, {theirs} of the stable policy")
        for missing in view.missing:
            typer.echo(f"not shown yet: {missing}")
    for tenant, version in sorted(view.tenant_policies.items()):
        typer.echo(f"tenant {tenant} has policy {version} of its own")
    for trial in view.ended[:5]:
        typer.echo(f"ended: {_line(trial)}")


def _print_differences(differences: list[DifferenceView]) -> None:
    table = Table("language", "measure", "candidate", "stable", "worse by", "interval", "allowed", "finding", box=None)
    for found in differences:
        table.add_row(
            found.language,
            found.measure.value,
            f"{found.candidate_mean:.3f} ({found.num_candidate})",
            f"{found.stable_mean:.3f} ({found.num_stable})",
            f"{found.harm:.3f}",
            f"{found.lower:.3f} to {found.upper:.3f}",
            f"{found.allowed:.3f}",
            found.finding.value,
        )
    Console().print(table)


def _line(trial: TrialView) -> str:
    who = f"{trial.kind.value} of policy {trial.candidate} beside policy {trial.stable}"
    if trial.outcome is not None:
        return f"{who}: {trial.outcome.value}; {trial.reason}"
    share = f", {trial.share:.0%} of the end users" if trial.kind.value == "canary" else ""
    return f"{who}{share}, in {', '.join(trial.languages)}"
