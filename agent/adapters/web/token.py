"""The bearer token of the endpoint: read from its file, which is made at first start."""

import os
import secrets
import stat
from pathlib import Path

import structlog

from agent.core.errors import RefusedError

TOKEN_BYTES = 32
LENGTH_MIN = 16
LENGTH_MAX = 512

log = structlog.get_logger(__name__)


def read_token(path: Path) -> str:
    """The token in the file at `path`; if there is no such file, a fresh one, readable by us only.

    Raises:
        RefusedError: the file cannot be read or made, or what is in it is no token.
    """
    try:
        text = _read(path) if path.exists() else _make(path)
    except OSError as error:
        raise RefusedError(f"cannot read the token in {path}: {error.strerror or error}") from error
    token = text.strip()
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise RefusedError(f"the token in {path} must be one word of plain ASCII")
    if not LENGTH_MIN <= len(token) <= LENGTH_MAX:
        raise RefusedError(f"the token in {path} must have {LENGTH_MIN} to {LENGTH_MAX} characters")
    return token


def _read(path: Path) -> str:
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        # Mounted secrets are often 0444: worth a word, no reason to stay down.
        log.warning("token_readable_by_others", path=str(path))
    return path.read_text(encoding="utf-8", errors="replace")


def _make(path: Path) -> str:
    token = secrets.token_urlsafe(TOKEN_BYTES)
    path.parent.mkdir(parents=True, exist_ok=True)
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(opened, "w", encoding="ascii") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(file.fileno())
    log.info("token_made", path=str(path))
    return token
