"""`coloq tune` and `coloq policies`: tuning runs and policies of a running node, through its admin API.

Results go to stdout, problems and progress to stderr. The admin key comes from COLOQ_ADMIN_KEY alone, so that it stands
in no shell history and no process list.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from agent.errors import ColoqError, InvalidInput, NotFound
from service.cli_gate import gate_lines, gate_table
from service.http.client import AdminClient, NodeRefused, valid_body
from service.http.tuning_schema import EvaluationView, RunBody, RunSummary, RunView, StepView
from trainer.records import RunState

ADMIN_KEY = "COLOQ_ADMIN_KEY"
POLL_S = 0.5
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells use it."""

tune_app = typer.Typer(help="Tuning runs of a running node.", no_args_is_help=True)
policies_app = typer.Typer(help="Published policies of a running node.", no_args_is_help=True)

Url = Annotated[str, typer.Option("--url", envvar="COLOQ_URL", help="Where the node listens.")]
DEFAULT_URL = "http://127.0.0.1:8080"
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's id.")]


@tune_app.command("start")
def start_command(
    language: Annotated[list[str] | None, typer.Option(help="Draw prompts in this language; may be repeated.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Tune on this tenant's prompts, for it alone.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    group_size: Annotated[int | None, typer.Option(help="Sibling replies per prompt.")] = None,
    prompts_per_step: Annotated[int | None, typer.Option(help="Prompts claimed for one step.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest sibling reply, in tokens.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="AdamW's learning rate.")] = None,
    publish_every: Annotated[int | None, typer.Option(help="Publish after so many steps.")] = None,
    gate: Annotated[
        bool | None, typer.Option("--gate/--no-gate", help="Compare with the active policy before publishing.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of prompt choice and sampling; drawn without it.")] = None,
    watch: Annotated[bool, typer.Option("--watch/--no-watch", help="Follow the run until it ends.")] = True,
    url: Url = DEFAULT_URL,
) -> None:
    """Start a tuning run. What is not given comes from the node's configuration."""
    with admin_client(url) as client:
        body = valid_body(
            RunBody,
            {
                "languages": language or [],
                "steps": steps,
                "group_size": group_size,
                "prompts_per_step": prompts_per_step,
                "max_tokens": max_tokens,
                "learning_rate": learning_rate,
                "publish_every": publish_every,
                "gate": gate,
                "seed": seed,
                "tenant": tenant,
            },
        )
        run = client.start(body)
        typer.echo(run.id)
        if watch:
            _follow(client, run.id)


@tune_app.command("status")
def status_command(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run's id; without one, all runs.")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Show one run with its steps, or all runs."""
    with admin_client(url) as client:
        if run is None:
            _print_runs(client.runs().runs)
        else:
            _print_run(client.run(run))


@tune_app.command("watch")
def watch_command(run: RunArgument, url: Url = DEFAULT_URL) -> None:
    """Follow a run until it ends. Exits 1 unless it succeeded or was stopped; Ctrl-C leaves the run alone."""
    with admin_client(url) as client:
        _follow(client, run)


@tune_app.command("stop")
def stop_command(run: RunArgument, url: Url = DEFAULT_URL) -> None:
    """Stop a run after its current step, or give an interrupted one up. What it had published stays."""
    with admin_client(url) as client:
        stopped = client.stop(run)
        typer.echo(f"{stopped.id} is {stopped.state.value} after {stopped.steps_done} of {stopped.num_steps} steps")


@tune_app.command("resume")
def resume_command(
    run: RunArgument,
    watch: Annotated[bool, typer.Option("--watch/--no-watch", help="Follow the run until it ends.")] = True,
    url: Url = DEFAULT_URL,
) -> None:
    """Go on with an interrupted run from its last checkpoint."""
    with admin_client(url) as client:
        resumed = client.resume(run)
        typer.echo(f"{resumed.id} goes on after {resumed.steps_done} of {resumed.num_steps} steps")
        if watch:
            _follow(client, run)


@tune_app.command("report")
def report_command(
    run: RunArgument,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where page and charts go. Default: RUN-report.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the run and its series as JSON.")] = False,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write TensorBoard event files into DIR/RUN.")
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Draw a run's curves: report.html and PNG files; with --json or --tensorboard alone, only those."""
    from service.report.page import dump, write_report
    from service.report.tensorboard import write_events

    with admin_client(url) as client:
        view = client.run(run)
        if as_json:
            typer.echo(dump(view))
        try:
            if tensorboard is not None:
                typer.echo(f"events: {write_events(view, tensorboard)}", err=True)
            if out is not None or not (as_json or tensorboard):
                typer.echo(f"report: {write_report(view, out or Path(f'{view.id}-report'))}", err=True)
        except OSError as error:
            raise InvalidInput(str(error.filename or out), f"cannot be written: {error.strerror}") from error


@policies_app.command("list")
def list_command(url: Url = DEFAULT_URL) -> None:
    """Show published policies, newest first. Version 0 is the untuned model."""
    with admin_client(url) as client:
        run = Column("run", no_wrap=True)
        table = Table("", "version", "method", "parent", run, "published", "held-out reward", box=None)
        for policy in client.policies().policies:
            table.add_row(
                "active" if policy.active else "",
                str(policy.version),
                policy.method,
                _or_dash(policy.parent),
                _or_dash(policy.run_id),
                f"{policy.created_at:%Y-%m-%d %H:%M:%S}",
                _gain(policy.evaluation),
            )
        Console().print(table)


@policies_app.command("show")
def show_command(
    version: Annotated[int, typer.Argument(min=0, help="A published policy's version; 0 is the untuned model.")],
    url: Url = DEFAULT_URL,
) -> None:
    """Show one published policy with what the gate found, by language and metric."""
    with admin_client(url) as client:
        policy = next((row for row in client.policies().policies if row.version == version), None)
        if policy is None:
            raise NotFound(f"no published policy {version}; `coloq policies list` shows them")
        typer.echo(
            f"policy {policy.version}{' (active)' if policy.active else ''}, {policy.method}, "
            f"of {_or_dash(policy.run_id)}, published {policy.created_at:%Y-%m-%d %H:%M:%S}"
        )
        if policy.evaluation is None:
            typer.echo("no held-out comparison was made of it")
        else:
            typer.echo(
                f"held-out reward {_gain(policy.evaluation)}, beside policy {policy.evaluation.baseline_version}"
            )
            _print_gate(policy.evaluation)


@policies_app.command("activate")
def activate_command(
    version: Annotated[int, typer.Argument(min=0, help="A published policy's version; 0 is the untuned model.")],
    url: Url = DEFAULT_URL,
) -> None:
    """Roll back or forward. Requests in flight finish on the policy they began with."""
    with admin_client(url) as client:
        typer.echo(f"policy {client.activate(version).version} is active")


@contextmanager
def admin_client(url: str) -> Iterator[AdminClient]:
    """A client with the admin key; any problem ends the command with its text on stderr and exit code 1."""
    with told_problems(), AdminClient(url, admin_key()) as client:
        yield client


@contextmanager
def told_problems() -> Iterator[None]:
    """Any problem ends the command with its text on stderr and exit code 1."""
    try:
        yield
    except ColoqError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


def admin_key() -> str:
    """The admin key of the environment. Raises NodeRefused when there is none."""
    key = os.environ.get(ADMIN_KEY, "").strip()
    if not key:
        raise NodeRefused(f"{ADMIN_KEY} must hold the node's admin key, got nothing; the node printed it once")
    if not re.fullmatch(r"[!-~]+", key):
        raise NodeRefused(f"{ADMIN_KEY} must hold the node's admin key alone, got other characters than a key has")
    return key


def _follow(client: AdminClient, run_id: str) -> None:
    try:
        run = _watch(client, run_id)
    except KeyboardInterrupt:
        typer.echo(f"{run_id} goes on; `coloq tune stop {run_id}` stops it", err=True)
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(_outcome(run))
    if run.state is RunState.INTERRUPTED:
        typer.echo(f"`coloq tune resume {run.id}` goes on with it", err=True)
    if run.state in (RunState.FAILED, RunState.REJECTED, RunState.INTERRUPTED):
        raise typer.Exit(1)


def _watch(client: AdminClient, run_id: str) -> RunView:
    """Show a run's steps as they come, until it is final."""
    run = client.run(run_id)
    shown = 0
    with _progress() as progress:
        task = progress.add_task(run.id, total=run.num_steps, step="waits for its first step")
        while True:
            shown = _show_new_steps(progress, task, run, shown)
            if run.state.final:
                return run
            time.sleep(POLL_S)
            run = client.run(run_id)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[step]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def _show_new_steps(progress: Progress, task: TaskID, run: RunView, shown: int) -> int:
    for step in run.steps[shown:]:
        progress.console.print(_step_line(step), highlight=False)
        progress.update(task, completed=step.step, step=f"reward {_figure(step.reward_mean)}")
    return len(run.steps)


def _step_line(step: StepView) -> str:
    return (
        f"step {step.step:>4}  reward {_figure(step.reward_mean)}  loss {_figure(step.loss)}"
        f"  version {step.version}  {step.num_sequences} replies"
    )


def _outcome(run: RunView) -> str:
    line = f"{run.id} {run.state.value} after {run.steps_done} of {run.num_steps} steps"
    if run.published:
        line += f"; published {', '.join(f'policy {version}' for version in run.published)}"
    return f"{line}; {run.reason}" if run.reason else line


def _print_runs(runs: list[RunSummary]) -> None:
    # An id is what other commands take: in a narrow terminal the other columns give way.
    table = Table(Column("run", no_wrap=True), "state", "steps", "started", "published", "reason", box=None)
    for run in runs:
        table.add_row(
            run.id,
            run.state.value,
            f"{run.steps_done}/{run.num_steps}",
            f"{run.started_at:%Y-%m-%d %H:%M:%S}",
            ", ".join(map(str, run.published)) or "-",
            run.reason or "-",
        )
    Console().print(table)


def _print_run(run: RunView) -> None:
    typer.echo(_outcome(run) if run.state.final else f"{run.id} {run.state.value}")
    for step in run.steps:
        typer.echo(_step_line(step))
    if run.evaluation is not None:
        typer.echo(f"held-out reward {_gain(run.evaluation)}")
        _print_gate(run.evaluation)


def _print_gate(evaluation: EvaluationView) -> None:
    for line in gate_lines(evaluation):
        typer.echo(line)
    if evaluation.report is not None:
        Console().print(gate_table(evaluation.report))


def _gain(evaluation: EvaluationView | None) -> str:
    if evaluation is None:
        return "-"
    return f"{_figure(evaluation.baseline_reward)} -> {_figure(evaluation.reward)}"


def _figure(value: float | None) -> str:
    return f"{value:.4f}" if value is not None else "n/a"


def _or_dash(value: object) -> str:
    return str(value) if value is not None else "-"
