"""The doorbell: `edge-agent`.

Each command imports what it needs and nothing more, so that `health` answers at once and `run`
starts scoring before anything for people is loaded.
"""

import sys


def main() -> None:
    """Run the command line; exit 0, 1 for failure, 2 for wrong usage."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["health"]:
        from agent.commands import health

        sys.exit(health.main(arguments[1:]))
    if arguments[:1] == ["run"]:
        from agent.commands import run

        sys.exit(run.main(arguments[1:]))
    from agent.commands.menu import app

    app()
