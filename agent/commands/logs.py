"""Where logs go while a command runs: to stderr, and warnings only unless it is a server.

Stdout belongs to what a script may read.
"""

import logging
import sys

import structlog


def to_stderr(level: int = logging.WARNING) -> None:
    """From now on everything of `level` and above goes to stderr, and nothing else anywhere."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
