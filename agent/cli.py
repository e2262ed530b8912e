"""The doorbell: `edge-agent`.

Each command imports what it needs and nothing more, so that `health` answers at once and `run`
starts scoring before anything for people is loaded (structlog takes rich along where it finds it).
"""

import contextlib
import gc
import io
import os
import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line; exit 0, 1 for failure, 2 for wrong usage, 130 for Ctrl-C."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal's encoding may lack an arrow
    try:
        _main(sys.argv[1:])
    except KeyboardInterrupt:  # while importing, too
        sys.exit(INTERRUPTED)


def _main(arguments: list[str]) -> None:
    if arguments[:1] == ["health"]:
        from agent.commands import health

        sys.exit(health.main(arguments[1:]))
    if arguments[:1] == ["run"]:
        gc.disable()  # what imports make stays: to look through it again and again takes 0.1 s
        sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # ImportError, by the book
        from agent.commands import run

        sys.exit(run.main(arguments[1:]))
    from agent.commands.menu import app

    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # else it is tried when nobody can say a sentence any more
    except OSError as error:  # a full disk, a folder of somebody else's: it names which
        with contextlib.suppress(OSError):  # what cannot be said is not tried again at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1 if isinstance(error, BrokenPipeError) else f"edge-agent: {error}")
