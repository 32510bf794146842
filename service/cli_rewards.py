"""`coloq rewards`: what people's feedback taught, of a running node, through its admin API."""

import typer

rewards_app = typer.Typer(help="Preference pairs and reward models of a running node.", no_args_is_help=True)


@rewards_app.callback()
def root() -> None:
    """Commands of other files join this group, so it is one even while it has a single command."""
