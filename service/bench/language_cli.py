"""`coloq bench language` on the command line."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from service.bench.language.samples import Split

_QUICK_REPLIES = 20


def language_command(
    replies: Annotated[int, typer.Option(min=5, help="Replies of each kind, domain and language.")] = 200,
    split: Annotated[
        Split, typer.Option(help="`tune` judges what thresholds may be chosen by, `report` what they were not.")
    ] = Split.REPORT,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where JSON and the table go.")] = Path("bench"),
    quick: Annotated[bool, typer.Option("--quick", help="Few replies: sees that it works.")] = False,
) -> None:
    """Judge clean replies, and replies with one sentence in five in another language, in 26 languages; on one core.

    Ends with an error when fewer than 98 % of the wrong sentences are caught in a kind of text, over all languages, or
    more than 3 % of its clean replies fail.
    """
    from service.bench.language.contract import LanguageOptions, bench_language

    options = LanguageOptions(out, replies, split)
    bench_language(replace(options, num_replies=_QUICK_REPLIES, num_timings=5) if quick else options, Console())
