"""`coloq rewards train`, `cancel`, `list`, `show` and `activate`: reward models of a running node, through its admin
API. Results go to stdout, problems and progress to stderr."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from service.cli_rewards import rewards_app
from service.cli_tuning import DEFAULT_URL, INTERRUPTED, Url, admin_key, told_problems
from service.http.client import NodeRefused, valid_body
from service.http.reward_model_client import RewardModelClient
from service.http.reward_model_schema import HeldOutView, RewardTrainingView, TrainBody, VersionView
from service.reward_models.records import TrainingState

POLL_S = 0.5

Language = Annotated[str, typer.Option(help="ISO 639-1 code of a tenant's language.")]


@rewards_app.command("train")
def train(
    language: Language,
    epochs: Annotated[int | None, typer.Option(help="Times that every pair is trained on.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="AdamW's learning rate at the start.")] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of the LoRA adapter.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the head, the adapter and the order.")] = 0,
    watch: Annotated[bool, typer.Option("--watch/--no-watch", help="Follow the training until it ends.")] = True,
    url: Url = DEFAULT_URL,
) -> None:
    """Train a language's next reward model from feedback. Exits 1 unless it was accepted and is active."""
    with _client(url) as client:
        body = valid_body(TrainBody, {"epochs": epochs, "learning_rate": learning_rate, "rank": rank, "seed": seed})
        training = client.train(language, body)
        typer.echo(training.id)
        if watch:
            _follow(client, training)


@rewards_app.command("cancel")
def cancel(
    training: Annotated[str, typer.Argument(metavar="TRAINING", help="A training's id.")], url: Url = DEFAULT_URL
) -> None:
    """End a training; nothing of it is kept."""
    with _client(url) as client:
        ended = client.cancel(training)
        typer.echo(f"{ended.id} is {ended.state.value}")


@rewards_app.command("list")
def list_reward_models(url: Url = DEFAULT_URL) -> None:
    """Show languages with their versions, and the newest trainings."""
    with _client(url) as client:
        listed = client.reward_models()
    models = Table("language", "version", "state", "accuracy", "pairs", "held out", "made", box=None)
    for language in listed.languages:
        if not language.versions:
            models.add_row(language.language, "-", "no reward model", "-", "-", "-", "-")
        for version in language.versions:
            models.add_row(
                language.language,
                str(version.version),
                "active" if version.active else "accepted" if version.accepted else "rejected",
                _figure(version.accuracy),
                str(version.num_pairs),
                str(version.num_held_out),
                f"{version.created_at:%Y-%m-%d %H:%M}",
            )
    Console().print(models)
    if listed.trainings:
        trainings = Table(Column("training", no_wrap=True), "language", "state", "version", "steps", box=None)
        for item in listed.trainings:
            steps = f"{item.step}/{item.num_steps or '?'}"
            trainings.add_row(item.id, item.language, item.state.value, str(item.version), steps)
        Console().print(trainings)


@rewards_app.command("show")
def show(
    language: Language,
    version: Annotated[
        int | None, typer.Argument(metavar="[VERSION]", help="Default: the active one, or else the newest.")
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Show what a version was worth on held-out pairs, and the gate's verdict."""
    with _client(url) as client:
        models = client.language(language)
        wanted = version if version is not None else models.active_version
        chosen = [item for item in models.versions if wanted is None or item.version == wanted]
        if not chosen:
            name = f"reward model {wanted}" if wanted is not None else "reward model"
            raise NodeRefused(f"there is no {name} of {language}")
        _print_version(language, chosen[0])


@rewards_app.command("activate")
def activate(
    version: Annotated[int, typer.Argument(min=0, metavar="VERSION", help="An accepted version; 0 judges by none.")],
    language: Language,
    url: Url = DEFAULT_URL,
) -> None:
    """Roll back or forward. The reward model judges from now on, without a restart."""
    with _client(url) as client:
        models = client.activate_version(language, version)
        active = f"reward model {models.active_version}" if models.active_version else "no reward model"
        typer.echo(f"{active} of {language} is active")


@contextmanager
def _client(url: str) -> Iterator[RewardModelClient]:
    with told_problems(), RewardModelClient(url, admin_key()) as client:
        yield client


def _follow(client: RewardModelClient, training: RewardTrainingView) -> None:
    try:
        ended = _watch(client, training)
    except KeyboardInterrupt:
        typer.echo(f"{training.id} goes on; `coloq rewards cancel {training.id}` ends it", err=True)
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(f"reward model {ended.version} of {ended.language} {ended.state.value}: {ended.reason or '-'}")
    if ended.state is not TrainingState.ACCEPTED:
        raise typer.Exit(1)


def _watch(client: RewardModelClient, training: RewardTrainingView) -> RewardTrainingView:
    """Show a training's steps as they come, until it has ended."""
    with _progress() as progress:
        task = progress.add_task(training.id, total=None, loss="waits for its first step")
        while not training.state.final:
            time.sleep(POLL_S)
            training = client.training(training.id)
            loss = f"loss {_figure(training.loss)}"
            progress.update(task, completed=training.step, total=training.num_steps, loss=loss)
    return training


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def _print_version(language: str, version: VersionView) -> None:
    state = "active" if version.active else "accepted" if version.accepted else "rejected"
    typer.echo(f"reward model {version.version} of {language}, {state}, on {version.backbone}")
    typer.echo(version.report.verdict.reason)
    pairs = _counts(version.report.num_training), _counts(version.report.num_held_out)
    typer.echo(f"trained on {pairs[0]}; held out {pairs[1]}; {version.report.num_too_long} too long")
    rows = Table("", "this version", "the one before", box=None)
    baseline = version.report.baseline
    for name, figure in _figures(version.report.candidate).items():
        rows.add_row(name, figure, _figures(baseline).get(name, "-") if baseline is not None else "-")
    Console().print(rows)


def _figures(report: HeldOutView) -> dict[str, str]:
    figures = {
        "accuracy": f"{report.accuracy.value:.3f} [{report.accuracy.low:.3f}, {report.accuracy.high:.3f}]",
        "accuracy with length": _figure(report.raw_accuracy),
        "Brier score": _figure(report.brier),
        "calibration error": _figure(report.calibration_error),
        "length correlation": _figure(report.length_correlation),
        "length correlation before": _figure(report.raw_length_correlation),
    }
    return figures | {
        f"accuracy on {source}": f"{share.value:.3f} ({share.num_pairs} pairs)"
        for source, share in report.by_source.items()
    }


def _counts(counts: dict[str, int]) -> str:
    sources = ", ".join(f"{source} {count}" for source, count in counts.items())
    return f"{sum(counts.values())} pairs ({sources})"


def _figure(value: float | None) -> str:
    return f"{value:.3f}" if value is not None else "-"
