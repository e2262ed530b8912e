"""The endpoint's own thread and event loop, so that it answers while everything else stalls."""

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
import uvicorn

from agent.adapters.web import inference
from agent.adapters.web.backlog import HEARTBEAT_S, Backlog
from agent.adapters.web.door import Door
from agent.adapters.web.guards import HEADER_BYTES_MAX, Guards, Names
from agent.adapters.web.posts import ACCEPT_S_MAX, POSTS, post_route
from agent.adapters.web.routes import Shown, application
from agent.adapters.web.source import BODY_BYTES_MAX as POST_BYTES_MAX
from agent.adapters.web.source import HttpSource
from agent.config import Http, Stream
from agent.core.errors import RefusedError
from agent.core.health import HealthReport
from agent.ports import Questions

KNOCKING_MAX = 512  # connections that the kernel keeps for us
# Let in per turn of the loop: few, so that they are listened to before the next come (see door.py).
ACCEPTS_MAX = 4
SEND_BYTES_MAX = 64 * 1024
STOP_S_MAX = 5.0
DATE_S = 1.0  # that the date in an answer may be behind

log = structlog.get_logger(__name__)


class WebFaces:
    """The `Faces` port over HTTP.

    Args:
        settings: where to listen, and under which further names.
        token: the bearer token; demanded for all but /livez and /readyz where it is given.
        stale_s: how long after the last `show` the agent still counts as alive.
        door: limits on connections, where they are to differ from the defaults.
        heartbeat_s: how long /events may be silent.
        accept_s_max: how long a post may wait for its readings to be accounted for.
    """

    def __init__(
        self,
        settings: Http,
        *,
        token: str | None = None,
        stale_s: float = 5.0,
        door: Door | None = None,
        heartbeat_s: float = HEARTBEAT_S,
        accept_s_max: float = ACCEPT_S_MAX,
    ) -> None:
        if not settings.is_loopback and not token:
            sentence = f"http.bind {settings.bind} is open to others and needs http.token_file"
            raise RefusedError(sentence)
        self._settings = settings
        self._token = token
        self._door = door or Door()
        self._accept_s_max = accept_s_max
        self._shown = Shown(stale_s)
        self._backlog = Backlog(heartbeat_s=heartbeat_s)
        self._sources: dict[str, HttpSource] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: _Server | None = None
        self._desk: Questions | None = None
        self.port = 0  # the real one, once started

    def source(self, stream: Stream) -> HttpSource:
        """The readings posted to /v1/streams/NAME; to be asked for before `start`."""
        assert self._thread is None, "the endpoint is open already"
        self._sources[stream.name] = HttpSource(stream)
        return self._sources[stream.name]

    def start(self) -> None:
        """Listen; answers from now on, at first that nothing has been heard of the agent.

        Raises:
            RefusedError: the address cannot be had; the text says what to do.
        """
        listener = listen(self._settings)
        self.port = int(listener.getsockname()[1])
        names = Names.of(self._settings.address[0], self.port, self._settings.hosts)
        routes = inference.routes(self._shown, lambda: self._desk)
        if self._sources:
            routes.append(post_route(self._sources, accept_s_max=self._accept_s_max))
        app = Guards(
            application(self._shown, self._backlog, routes),
            names=names,
            token=self._token,
            posts=self._posts,
        )
        config = uvicorn.Config(
            app,
            http=self._door.protocol(),
            ws="none",
            loop="asyncio",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="critical",  # what it would log is the client's doing; our guards log bugs
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=ACCEPTS_MAX,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=HEADER_BYTES_MAX,
        )
        self._server = _Server(config)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._run, args=(self._loop, self._server, listener), name="web", daemon=True
        )
        self._thread.start()
        log.info("web_listening", address=f"{self._settings.address[0]}:{self.port}")

    def _posts(self, path: str) -> int:
        if inference.is_question(path):
            return inference.BYTES_MAX
        return POST_BYTES_MAX if self._sources and path.startswith(POSTS) else 0

    def questions_to(self, desk: Questions) -> None:
        """From now on `desk` answers what is asked at /v2; from any thread."""
        self._desk = desk

    def show(self, report: HealthReport) -> None:
        """See `Faces.show`."""
        self._shown.last = (report, time.monotonic())

    def tell(self, event: Mapping[str, Any]) -> None:
        """See `Faces.tell`."""
        self._backlog.tell(event)

    def stop(self) -> None:
        """Close the door, let go of everybody, end the thread.  Idempotent."""
        thread, loop, self._thread = self._thread, self._loop, None
        if thread is None or loop is None:
            return
        try:
            loop.call_soon_threadsafe(self._leave)
        except RuntimeError:
            log.warning("web_was_down_already")
        thread.join(STOP_S_MAX)

    def _leave(self) -> None:
        assert self._server is not None
        self._server.leave()
        self._backlog.close()
        self._door.close(asking_only=True)

    def _run(
        self, loop: asyncio.AbstractEventLoop, server: uvicorn.Server, listener: socket.socket
    ) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._serve(server, listener))
        finally:
            listener.close()

    async def _serve(self, server: uvicorn.Server, listener: socket.socket) -> None:
        self._backlog.open(asyncio.get_running_loop())
        await server.serve(sockets=[listener])
        self._door.close(asking_only=False)
        await asyncio.sleep(0)  # aborted transports close their sockets in the next turn


class _Server(uvicorn.Server):
    """uvicorn looks ten times a second whether it should end, which was half of what an idle agent
    did; we tell it, and it looks at the clock for its date header only.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        """End; on its own loop."""
        self.should_exit = True
        self._leaving.set()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DATE_S):
                    await self._leaving.wait()
        await self._let_nobody_in()

    async def _let_nobody_in(self) -> None:
        """What asyncio (of 3.11) accepts in the turn in which its server closes, nobody closes."""
        loop = asyncio.get_running_loop()
        for listener in [one for server in self.servers for one in server.sockets]:
            with contextlib.suppress(NotImplementedError):  # of Windows' loop
                loop.remove_reader(listener.fileno())
        for _ in range(2):  # who was just accepted gets a transport, and a place
            await asyncio.sleep(0)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # asyncio takes one number for accepts per turn and for the kernel's queue; we want two.
        for listener in sockets or ():
            listener.listen(KNOCKING_MAX)


def listen(settings: Http) -> socket.socket:
    """A socket that listens where `settings` say.

    Raises:
        RefusedError: the address cannot be had.
    """
    host, port = settings.address
    try:
        found: Sequence[Any] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, OverflowError) as error:
        raise RefusedError(f"http.bind {settings.bind}: no such address here ({error})") from error
    try:
        if os.name == "posix":  # elsewhere this would let another program take our port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Connections inherit it: what the kernel keeps for who does not read is bounded as well.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES_MAX)
        if hasattr(socket, "TCP_DEFER_ACCEPT"):  # let the kernel keep who connects and says nothing
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
        # From here the kernel takes connections, so whoever asks at once waits and is not refused.
        listener.listen(KNOCKING_MAX)
    except (OSError, OverflowError) as error:
        listener.close()
        why = getattr(error, "strerror", None) or str(error)
        raise RefusedError(
            f"http.bind {settings.bind} cannot be had ({why}); name another"
        ) from error
    return listener
