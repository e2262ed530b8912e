"""`edge-agent repo serve`, the HTTP half: the public part of the tree, read-only, with ranges.

What is not listed here is not served; keys lie in the same folder.
"""

import socket
import threading
import time
from typing import Self

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from agent.core.errors import RefusedError, UnavailableError
from agent.repository.layout import BUNDLE_FILE, Repository

START_S_MAX = 10.0
CONNECTIONS_MAX = 256


def site(repo: Repository) -> Starlette:
    """The web application over `repo`."""

    async def bundle(_request: Request) -> Response:
        try:
            text = await run_in_threadpool(repo.bundle)
        except (UnavailableError, RefusedError) as error:
            return PlainTextResponse(str(error), 503)
        return PlainTextResponse(text)

    async def root(_request: Request) -> Response:
        path = repo.folder / "root.json"
        return FileResponse(path) if path.is_file() else PlainTextResponse("unsigned", 404)

    return Starlette(
        routes=[
            Route(f"/{BUNDLE_FILE}", bundle),
            Route("/root.json", root),
            Mount("/metadata", StaticFiles(directory=repo.metadata)),
            Mount("/blobs", StaticFiles(directory=repo.blobs.parent)),
        ]
    )


class WebServer:
    """Serves `site(repo)` on a thread of its own.  Enter it to start; `port` may be 0.

    `tls`: certificate chain and key as PEM files; devices on other machines want https.

    Raises on entering:
        UnavailableError: the address cannot be bound, or certificate and key are no pair.
    """

    def __init__(
        self, repo: Repository, host: str, port: int, *, tls: tuple[str, str] | None = None
    ) -> None:
        self._server = uvicorn.Server(
            uvicorn.Config(
                site(repo),
                host=host,
                port=port,
                log_config=None,
                access_log=False,
                lifespan="off",
                ssl_certfile=tls[0] if tls else None,
                ssl_keyfile=tls[1] if tls else None,
                limit_concurrency=CONNECTIONS_MAX,
                timeout_graceful_shutdown=2,
            )
        )
        self._host, self._port = host, port

    @property
    def url(self) -> str:
        """Where it serves."""
        port = self._server.servers[0].sockets[0].getsockname()[1]
        scheme = "https" if self._server.config.is_ssl else "http"
        return f"{scheme}://{f'[{self._host}]' if ':' in self._host else self._host}:{port}/"

    def __enter__(self) -> Self:
        config = self._server.config
        try:
            config.load()
        except OSError as error:  # ssl's own are some, too
            pair = f"{config.ssl_certfile} and {config.ssl_keyfile}"
            why = error.strerror or str(error)
            raise UnavailableError(f"cannot serve https with {pair}: {why}") from error
        self._thread = threading.Thread(
            target=self._server.run, args=([self._listener()],), name="repo-http", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + START_S_MAX
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise UnavailableError(f"nothing is served on {self._host}:{self._port}")
            time.sleep(0.01)
        return self

    def _listener(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            return socket.create_server((self._host, self._port), family=family)
        except OSError as error:
            why = error.strerror or str(error)
            raise UnavailableError(
                f"cannot listen on {self._host}:{self._port} ({why}); is the port taken?"
            ) from error

    def __exit__(self, *exc: object) -> None:
        self._server.should_exit = True
        self._thread.join(START_S_MAX)
