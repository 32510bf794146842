"""`coloq rewards`: what people's feedback taught, of a running node, through its admin API."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from agent.errors import InvalidInput
from service.cli_tuning import DEFAULT_URL, Url, admin_key, told_problems
from service.http.rewards_client import PairsClient

rewards_app = typer.Typer(help="Preference pairs and reward models of a running node.", no_args_is_help=True)


@rewards_app.callback()
def root() -> None:
    """Commands of other files join this group, so it is one even while it has a single command."""


@rewards_app.command("export")
def export(
    language: Annotated[str, typer.Option(help="ISO 639-1 code of the pairs' language.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write them; without it, to the terminal.")
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Write a language's preference pairs as JSON lines in TRL's conversational format. A file is replaced whole, or,
    when anything fails, not at all."""
    with told_problems(), PairsClient(url, admin_key()) as client, client.pairs(language) as parts:
        if out is None:
            for part in parts:
                sys.stdout.buffer.write(part)
            sys.stdout.flush()
            return
        num_pairs = 0
        with _replaced(out) as file:
            for part in parts:
                num_pairs += part.count(b"\n")
                file.write(part)
    typer.echo(f"{num_pairs} pairs in {out}")


@contextmanager
def _replaced(path: Path) -> Iterator[BinaryIO]:
    """A file beside ``path`` that takes its place at the end of the block.

    Raises:
        InvalidInput: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.part")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise InvalidInput(str(path), f"cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
