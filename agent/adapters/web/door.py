"""How many may be inside, and for how long: limits on connections, below HTTP.

A timeout per read is no defence: a client that sends a byte a second never meets it.  So one
connection carries one request, the whole of it has one absolute deadline, an answer that nobody
reads has another, and when the house is full the newest comer takes the place of the one that has
been making up its mind for longest.  Nobody loses its place before it was listened to once, so
whoever asks in one breath is answered, however many others drip.
"""

import asyncio
from typing import Any, ClassVar, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS_MAX = 32
REQUEST_S_MAX = 5.0
WRITE_S_MAX = 10.0

ASKED = (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)


class Door:
    """Counts the connections of one server."""

    def __init__(
        self,
        *,
        connections_max: int = CONNECTIONS_MAX,
        request_s_max: float = REQUEST_S_MAX,
        write_s_max: float = WRITE_S_MAX,
    ) -> None:
        self.connections_max = connections_max
        self.request_s_max = request_s_max
        self.write_s_max = write_s_max
        self.most = 0  # that were ever inside together
        self._inside: dict[Connection, None] = {}  # in the order they came

    @property
    def inside(self) -> int:
        """Connections there are."""
        return len(self._inside)

    @property
    def stuck(self) -> int:
        """Connections whose client does not read its answer."""
        return sum(connection.stuck for connection in list(self._inside))

    def protocol(self) -> type[asyncio.Protocol]:
        """What uvicorn is to make for each connection."""
        return type("Connection", (Connection,), {"door": self})

    def enter(self, connection: "Connection") -> bool:
        """Let it in, at another's cost if need be; False if all others have a right to stay."""
        if len(self._inside) >= self.connections_max:
            late = next((c for c in self._inside if c.listened_to and not c.asked), None)
            late = late or next((c for c in self._inside if c.stuck), None)
            if late is None:
                return False
            self.leave(late)
            late.drop()
        self._inside[connection] = None
        self.most = max(self.most, len(self._inside))
        return True

    def leave(self, connection: "Connection") -> None:
        """It is gone, or as good as."""
        self._inside.pop(connection, None)

    def close(self, *, asking_only: bool) -> None:
        """Put out everybody, or those who have not asked anything yet."""
        for connection in [c for c in self._inside if not (asking_only and c.asked)]:
            self.leave(connection)
            connection.drop()


class Connection(H11Protocol):
    """uvicorn's protocol under the limits of a `Door`."""

    door: ClassVar[Door]
    listened_to = False  # what it had sent when it came has been read
    asked = False  # the whole request has come
    stuck = False  # the client does not read its answer

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody knocks."""
        super().connection_made(cast("asyncio.Transport", transport))
        # With no slack, "paused" means exactly: the client leaves us sitting on its answer.
        self.transport.set_write_buffer_limits(high=0)
        if self.door.enter(self):
            self._wait(self.door.request_s_max)
            # The loop first reads from it in its next turn, which is over in the one after.
            self.loop.call_soon(self.loop.call_soon, self._listened)
        else:
            self.drop()

    def data_received(self, data: bytes) -> None:
        """Part of the request; what comes after it is thrown away, but for the end of the line."""
        if self.asked or self.transport.is_closing():
            return
        super().data_received(data)
        if self.conn.their_state in ASKED:
            self.asked = True
            if not self.stuck:
                self._wait(None)

    def send_400_response(self, msg: str) -> None:
        """It talks nonsense: say so, unless an answer has begun already."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.drop()

    def pause_writing(self) -> None:
        """The client does not read: it has so long to read all that there is."""
        super().pause_writing()
        self.stuck = True
        self._wait(self.door.write_s_max)

    def resume_writing(self) -> None:
        """It has."""
        super().resume_writing()
        self.stuck = False
        self._wait(None if self.asked else self.door.request_s_max)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over, whoever ended it."""
        self._wait(None)
        self.door.leave(self)
        super().connection_lost(exc)

    def drop(self) -> None:
        """End it at once, with nothing more said."""
        self._wait(None)
        self.transport.abort()

    def _listened(self) -> None:
        self.listened_to = True

    def _wait(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self.drop)

    def on_response_complete(self) -> Any:
        """One connection, one request: nothing is kept alive, no second request is begun."""
        self.server_state.total_requests += 1
