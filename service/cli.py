"""The command `coloq`. What a command needs is imported inside it, so that help and completion answer at once."""

import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from agent.errors import ColoqError, InvalidConfig


def _later(load: Callable[[], typer.Typer], help_text: str) -> typer.Typer:
    """A group of commands whose file is imported only when one of them is asked for."""

    class Later(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return get_group(load()).list_commands(ctx)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            return get_group(load()).get_command(ctx, cmd_name)

    return typer.Typer(cls=Later, no_args_is_help=True, help=help_text)


def _models() -> typer.Typer:
    from service.cli_models import models_app

    return models_app


def _tuning() -> typer.Typer:
    from service.cli_tuning import tune_app

    return tune_app


def _policies() -> typer.Typer:
    from service.cli_policies import policies_app

    return policies_app


def _tenants() -> typer.Typer:
    from service.cli_tenants import tenant_app

    return tenant_app


def _keys() -> typer.Typer:
    from service.cli_tenants import key_app

    return key_app


def _rewards() -> typer.Typer:
    import service.cli_reward_models  # noqa: F401 - its commands join the group
    from service.cli_rewards import rewards_app

    return rewards_app


def _bench() -> typer.Typer:
    from service.cli_bench import bench_app

    return bench_app


class _Commands(TyperGroup):
    """Commands whose expected errors are printed, not raised."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command. A ColoqError becomes lines on stderr and exit status 2 (configuration) or 1."""
        try:
            return super().invoke(ctx)
        except ColoqError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2 if isinstance(error, InvalidConfig) else 1) from error


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Coloq: a content agent that answers in your tenants' languages, and learns from what it answered.",
)
config_app = typer.Typer(no_args_is_help=True, help="Check, show and explain the configuration.")
app.add_typer(config_app, name="config")
app.add_typer(_later(_tenants, "Tenants of a running node."), name="tenant")
app.add_typer(_later(_keys, "API keys of tenants."), name="key")
app.add_typer(_later(_models, "Embedded models: real weights from the Python package index."), name="model")
app.add_typer(_later(_tuning, "Tuning runs of a running node."), name="tune")
app.add_typer(_later(_rewards, "Preference pairs and reward models of a running node."), name="rewards")
app.add_typer(_later(_bench, "Measure a node: load, training beside it, swaps."), name="bench")
app.add_typer(_later(_policies, "Published policies of a running node."), name="policies")

ConfigPath = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The node's configuration (TOML).")]
DEFAULT_CONFIG = Path("node.toml")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"coloq {version('coloq')}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options that stand before any command."""


@app.command()
def init(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")] = DEFAULT_CONFIG,
    tenant: Annotated[str, typer.Option(help="Id of the first tenant.")] = "demo",
    language: Annotated[list[str] | None, typer.Option(help="ISO 639-1 code; repeat for more. Default: en.")] = None,
) -> None:
    """Write a first configuration with one tenant, and print the tenant's API key once. Never overwrites."""
    from agent.language import FastTextDetector
    from service.cli_tenants import tenant_id
    from service.config_file import check_languages, parse
    from service.config_text import starter
    from service.secrets import new_key

    key = new_key(tenant_id(tenant))
    text = starter(tenant, list(dict.fromkeys(language or ["en"])), key.hash)
    check_languages(parse(text, name=path.name), FastTextDetector().labels)
    _write_new(path, text)
    typer.echo(f"Wrote {path}. API key of tenant {tenant}, shown this once:\n\n  {key.plain}\n")
    typer.echo(f"Next: coloq serve --config {path}")


@app.command()
def serve(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Run the node until SIGTERM or Ctrl-C."""
    from service.serve import serve as serve_node

    serve_node(config, typer.echo)


@app.command()
def plan(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", metavar="FILE", help="The node's configuration. Default: node.toml if there is one."
        ),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(help="A card (h100-80gb, h200-141gb, a100-40gb, l40s-48gb, rtx4090-24gb) or a number of GiB."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A folder, a Hugging Face id or a shape (qwen2.5-1.5b, -7b, -32b, -72b, llama-13b)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Show what the node would hold in memory; needs no GPU. Exit status 2 when it does not fit."""
    from service.cli_plan import show_plan

    if config is None and DEFAULT_CONFIG.is_file():
        config = DEFAULT_CONFIG
    show_plan(config, gpu_name=gpu, model=model, as_json=as_json)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where the report goes.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the tuning run.")] = 0,
) -> None:
    """Start a node, send briefs, tune, swap policies under traffic, roll back; writes DIR/report.html."""
    from rich.console import Console

    from service.demo.command import play_demo

    try:
        play_demo(output, seed=seed, console=Console())
    except KeyboardInterrupt:
        typer.echo("Stopped; nothing is left running.", err=True)
        raise typer.Exit(130) from None


@app.command()
def openapi() -> None:
    """Print the OpenAPI 3.1 document of every route as JSON. Needs no node."""
    import json

    from service.http.document import openapi_document

    typer.echo(json.dumps(openapi_document(), indent=2, ensure_ascii=False))


@config_app.command("check")
def check(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Validate the file and the secrets in the environment; report every broken rule."""
    from agent.language import FastTextDetector
    from service.config_file import check_languages, load
    from service.secrets import Secrets

    loaded = load(config)
    check_languages(loaded, FastTextDetector().labels)
    Secrets.from_environment(os.environ)
    languages = sorted({language for tenant in loaded.tenants for language in tenant.languages})
    typer.echo(f"{config}: valid. Tenants: {len(loaded.tenants)}. Languages: {', '.join(languages) or 'none'}.")


@config_app.command("show")
def show(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Print the effective configuration, defaults included, secrets masked."""
    from service.config_file import load
    from service.config_text import effective_toml
    from service.secrets import Secrets

    typer.echo(effective_toml(load(config), Secrets.from_environment(os.environ)), nl=False)


@config_app.command("reference")
def reference() -> None:
    """Print a Markdown table of every key: type, default, meaning."""
    from service import config_text

    typer.echo(config_text.reference(), nl=False)


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise InvalidConfig(str(path), "exists already and is left as it is; name another file") from error
    except OSError as error:
        raise InvalidConfig(str(path), f"cannot be written: {error.strerror}") from error
