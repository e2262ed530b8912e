"""What commands share: options by the same name, and how they end.

A command that fails says one sentence on stderr and exits 2 for wrong usage, 1 for failure.  Output
that a script may read goes to stdout, everything for people to stderr or the console.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from agent.core.errors import MisfitError, RefusedError, UnavailableError, UnfitError
from agent.core.names import is_id

Broker = Annotated[
    str, typer.Option("--mqtt", help="The broker; else EDGE_AGENT__MQTT__URL.", metavar="URL")
]
Root = Annotated[
    str, typer.Option("--root", help="First level of every topic; else EDGE_AGENT__MQTT__ROOT.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Patience = Annotated[
    float, typer.Option("--timeout", min=0, help="Seconds to wait for the answer.")
]

PIPE_WIDTH = 240


def screen() -> Console:
    """Stdout, for tables of what others wrote: no word of theirs is read as markup.

    A pipe has no width: there each row gets its line, for who greps.
    """
    console = Console(markup=False)
    return console if console.is_terminal else Console(width=PIPE_WIDTH, markup=False)


@contextmanager
def ending() -> Iterator[None]:
    """Everything a command does: what it raises on purpose ends it in order."""
    try:
        yield
    except (RefusedError, UnavailableError, MisfitError, UnfitError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@contextmanager
def usage() -> Iterator[None]:
    """Reading arguments: what is refused here was written wrong by whoever called us."""
    try:
        yield
    except RefusedError as error:
        fail(str(error), code=2)


def fail(sentence: str, code: int = 1) -> NoReturn:
    """Say why on stderr and end with `code`."""
    typer.echo(f"edge-agent: {sentence}", err=True)
    raise typer.Exit(code)


def checked_id(what: str, text: str) -> str:
    """`text` if it can be the name of a device, group, model or stream; else wrong usage."""
    if not is_id(text):
        fail(f"{text!r} is no {what}: letters, digits, . _ - and at most 64", code=2)
    return text
