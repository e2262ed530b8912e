"""What a life has found wrong with its database, for the next start to see: a sentence a line in a
file beside it.

One doubt has the start look, as each does, and go on if it finds nothing: it may have been the
memory or the bus.  A second one, soon after, says that there is something which looking does not
find.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import structlog

DOUBTS_MAX = 2  # with so many a database is not looked at any more
BELIEVED_S = 600.0  # a life of so long without another one takes a doubt away

logger = structlog.get_logger(__name__)


def noted(path: Path) -> Sequence[str]:
    """The doubts about the database at `path`, oldest first."""
    try:
        return _file(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()


def note(path: Path, why: str) -> None:
    """One more.  Never raises: what cannot be noted is in the log alone."""
    try:
        with _file(path).open("a", encoding="utf-8") as file:
            file.write(" ".join(why.split()) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        logger.warning("cannot note a doubt", path=str(_file(path)), why=str(error))


def forget(path: Path) -> None:
    """All of them.  Never raises."""
    with contextlib.suppress(OSError):
        _file(path).unlink(missing_ok=True)


def _file(path: Path) -> Path:
    return path.with_name(f"{path.name}.doubts")
