"""Whether the endpoint could be opened, for `edge-agent check`; opens it for a moment only."""

from pathlib import Path

from agent.adapters.web.server import listen
from agent.adapters.web.token import read_token
from agent.config import Http
from agent.core.errors import RefusedError


def probe(settings: Http) -> str:
    """A sentence on what will be answered where.

    Raises:
        RefusedError: the address or the token cannot be had; the text says what to do.
    """
    if settings.token_file:
        path = Path(settings.token_file)
        if path.exists():
            read_token(path)
        guard = "with a token" if path.exists() else "with a token that is made at first start"
    elif settings.is_loopback:
        guard = "for this machine only"
    else:
        raise RefusedError(f"http.bind {settings.bind} is open to others and needs http.token_file")
    listen(settings).close()
    return f"{settings.bind} is free, {guard}"
