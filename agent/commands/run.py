"""`edge-agent run`: the daemon.  Parsed without typer, so that scoring starts first."""

import argparse
import gc
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from agent.config import Config, load
from agent.core.errors import RefusedError

PLACES = (Path("agent.toml"), Path("/etc/edge-agent/agent.toml"))
_WHERE = "its settings [default: EDGE_AGENT_CONFIG, agent.toml, /etc/edge-agent/agent.toml]"
LEVELS = ("debug", "info", "warning", "error")


def main(arguments: Sequence[str]) -> int:
    """Run the agent until it is told to stop; the exit status."""
    parser = argparse.ArgumentParser(
        prog="edge-agent run",
        description="The agent itself, until SIGTERM or Ctrl-C.",
        epilog="Example: edge-agent run --config agent.toml",
    )
    parser.add_argument("--config", metavar="FILE", help=_WHERE)
    parser.add_argument("--log", choices=LEVELS, default="info", help="least level to log")
    options = parser.parse_args(list(arguments))
    try:
        config = settings(options.config)
    except RefusedError as error:
        print(f"edge-agent: {error}", file=sys.stderr)  # noqa: T201  # for whoever called us
        return 2
    log_to_stderr(options.log)
    if config.engine.isolation == "process":
        from agent.worker import early

        early.start()  # imports what it needs while we do
    from agent import app

    gc.freeze()  # never to be looked through again
    gc.enable()  # `agent.cli` has turned it off
    return app.main(config)


def settings(path: str | None) -> Config:
    """The configuration in `path`, else in the usual places, else in the environment alone.

    Raises:
        RefusedError: it cannot be taken.
    """
    named = path or os.environ.get("EDGE_AGENT_CONFIG")
    if named:
        return load(Path(named), os.environ)
    return load(next((place for place in PLACES if place.is_file()), None), os.environ)


def log_to_stderr(level: str) -> None:
    """One line an event: for people on a terminal, JSON for whatever collects it elsewhere."""
    number = getattr(logging, level.upper())
    last: structlog.types.Processor = structlog.processors.JSONRenderer()
    if sys.stderr.isatty():
        last = structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
