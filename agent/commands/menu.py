"""Every command of `edge-agent`, for its help and for those that people wait for.

`run` and `health` are here for their help only: `agent.cli` starts them without this.
"""

import sys
from typing import Annotated

import typer

from agent import __version__
from agent.commands import (
    check,
    deploying,
    fleet,
    health,
    model,
    providers,
    receipts,
    replay,
    repo,
    run,
)

app = typer.Typer(
    name="edge-agent",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Runs ONNX models on this device: a swap that proves itself, and undoes itself.",
    epilog="Example: edge-agent run --config agent.toml",
)

_OTHERS = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edge-agent {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")
    ] = False,
) -> None:
    del version


@app.command("run", context_settings=_OTHERS)
def _run(context: typer.Context) -> None:
    """The agent itself, until it is told to stop."""
    sys.exit(run.main(context.args))


@app.command("health", context_settings=_OTHERS)
def _health(context: typer.Context) -> None:
    """Whether the agent that runs here is ready; exit 0 or 1."""
    sys.exit(health.main(context.args))


app.command()(check.check)
app.command()(fleet.status)
app.add_typer(model.app, name="model")
app.add_typer(repo.app, name="repo")
app.command()(deploying.deploy)
app.command()(fleet.rollback)
app.command()(fleet.command)
app.add_typer(receipts.app, name="receipts")
app.command()(replay.replay)
app.command()(providers.providers)
