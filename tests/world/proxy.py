"""A TCP proxy on the loopback that hurts the connections through it, on command.

It stands between the agent and a real server and does what networks do: cuts, stalls (no byte, no
FIN: a black hole), slows, delays, slices into small pieces, dies after n bytes.  It loses and
changes nothing of what it does carry.  One thread, started and ended by the `with` block.
"""

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

READ_BYTES_MAX = 64 * 1024
HELD_BYTES_MAX = 256 * 1024  # per direction; then the sender feels back-pressure
SLICE_GAP_S = 0.0005  # or the receiving kernel would put the slices together again
CONNECT_S_MAX = 5.0


class Pipe:
    """One direction of one connection: what was read and not yet passed on."""

    def __init__(self, source: socket.socket, sink: socket.socket, *, up: bool) -> None:
        self.source, self.sink, self.up = source, sink, up
        self.held: deque[tuple[float, bytes]] = deque()  # (not before, bytes)
        self.held_bytes = 0
        self.not_before = 0.0
        self.ended = False  # the source has said its FIN
        self.closed = False  # and the sink was told


class Proxy:
    """`with Proxy(broker.port) as proxy:` then connect to `proxy.port`.

    Every command holds for connections open now and later, until `heal`.  Counters: `connections`
    accepted so far, `bytes_up` (to the server) and `bytes_down` passed on so far, `cuts` made.
    """

    def __init__(self, target_port: int, target_host: str = "127.0.0.1") -> None:
        self._target = (target_host, target_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.connections = self.bytes_up = self.bytes_down = self.cuts = 0
        self._pairs: list[tuple[Pipe, Pipe]] = []
        self._commands: deque[Callable[[], None]] = deque()
        self._wake_read, self._wake_write = socket.socketpair()
        self._running = True
        self._reset_faults()
        self._thread = threading.Thread(target=self._run, name="fault-proxy")

    def _reset_faults(self) -> None:
        self._stalled = self._refusing = False
        self._bytes_per_s = self._delay_s = 0.0
        self._slice_bytes = READ_BYTES_MAX
        self._bytes_left: int | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._do(self._stop)
        self._thread.join()
        self._listener.close()
        self._wake_read.close()
        self._wake_write.close()

    # ---- what can be done to the connections -----------------------------------------------------

    def cut(self, *, reset: bool = True) -> None:
        """End every connection now, with RST or (`reset=False`) FIN.  What is held is lost."""
        self._do(lambda: self._cut_all(reset=reset))

    def cut_after(self, count: int) -> None:
        """Pass exactly `count` more bytes, both directions together, then cut everything, once."""
        self._do(lambda: setattr(self, "_bytes_left", count))

    def refuse(self) -> None:
        """Cut everything, and every new connection as soon as it comes: the server is gone."""
        self._do(lambda: (setattr(self, "_refusing", True), self._cut_all(reset=True)))

    def stall(self) -> None:
        """A black hole: no byte passes and nobody is told.  After `heal` the held bytes pass on."""
        self._do(lambda: setattr(self, "_stalled", True))

    def slow(self, bytes_per_s: float) -> None:
        """Pass this much per second and direction."""
        self._do(lambda: setattr(self, "_bytes_per_s", bytes_per_s))

    def delay(self, seconds: float) -> None:
        """Every byte arrives this much later, each way; order is kept."""
        self._do(lambda: setattr(self, "_delay_s", seconds))

    def slice(self, piece_bytes: int) -> None:
        """Pass everything in pieces of this size: no packet arrives whole."""
        self._do(lambda: setattr(self, "_slice_bytes", piece_bytes))

    def heal(self) -> None:
        """The network is well again."""
        self._do(self._reset_faults)

    # ---- the thread ------------------------------------------------------------------------------

    def _do(self, command: Callable[[], object]) -> None:
        """Have the thread do it, and return once it is done."""
        done = threading.Event()
        self._commands.append(lambda: (command(), done.set()))
        self._wake_write.send(b"!")
        if not done.wait(10):
            raise AssertionError("the fault proxy's thread is gone")

    def _stop(self) -> None:
        self._cut_all(reset=True)
        self._running = False

    def _run(self) -> None:
        while self._running:
            with selectors.DefaultSelector() as selector:  # few sockets: made anew is simple
                wait = self._register(selector)
                ready = {key.fileobj for key, _ in selector.select(wait)}
            if self._wake_read in ready:
                self._wake_read.recv(4096)
                while self._commands:
                    self._commands.popleft()()
            if self._listener in ready:
                self._accept()
            for pair in list(self._pairs):
                try:
                    for pipe in pair:
                        self._pump(pipe, readable=pipe.source in ready)
                except OSError:
                    self._close(pair, reset=True)
                else:
                    if pair in self._pairs and all(pipe.closed for pipe in pair):
                        self._close(pair, reset=False)

    def _register(self, selector: selectors.BaseSelector) -> float | None:
        """What to wake for, and the longest wait until something held may pass."""
        selector.register(self._wake_read, selectors.EVENT_READ)
        selector.register(self._listener, selectors.EVENT_READ)
        if self._stalled:
            return None
        now, soonest = time.monotonic(), None
        wanted: dict[socket.socket, int] = {}
        for pipe in self._pipes():
            if not pipe.ended and pipe.held_bytes < HELD_BYTES_MAX:
                wanted[pipe.source] = wanted.get(pipe.source, 0) | selectors.EVENT_READ
            if pipe.held:
                wait = max(pipe.held[0][0], pipe.not_before) - now
                if wait <= 0:
                    wanted[pipe.sink] = wanted.get(pipe.sink, 0) | selectors.EVENT_WRITE
                else:
                    soonest = wait if soonest is None else min(soonest, wait)
        for connection, events in wanted.items():
            selector.register(connection, events)
        return soonest

    def _pipes(self) -> Iterator[Pipe]:
        for pair in self._pairs:
            yield from pair

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        self.connections += 1
        try:
            if self._refusing:
                raise ConnectionRefusedError
            server = socket.create_connection(self._target, CONNECT_S_MAX)
        except OSError:
            _end(client, reset=True)
            return
        for connection in (client, server):
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pairs.append((Pipe(client, server, up=True), Pipe(server, client, up=False)))

    def _pump(self, pipe: Pipe, *, readable: bool) -> None:
        if self._stalled:
            return
        now = time.monotonic()
        if readable and not pipe.ended:
            with contextlib.suppress(BlockingIOError):
                chunk = pipe.source.recv(READ_BYTES_MAX)
                pipe.ended = not chunk
                if chunk:
                    pipe.held.append((now + self._delay_s, chunk))
                    pipe.held_bytes += len(chunk)
        self._pass_on(pipe, now)
        if pipe.ended and not pipe.held and not pipe.closed:
            pipe.closed = True
            with contextlib.suppress(OSError):
                pipe.sink.shutdown(socket.SHUT_WR)

    def _pass_on(self, pipe: Pipe, now: float) -> None:
        while pipe.held and max(pipe.held[0][0], pipe.not_before) <= now:
            due, chunk = pipe.held.popleft()
            try:
                sent = pipe.sink.send(chunk[: self._allowance()])
            except BlockingIOError:
                sent = 0
            pipe.held_bytes -= sent
            if chunk[sent:]:
                pipe.held.appendleft((due, chunk[sent:]))
            if not sent:
                return
            self._account(pipe, sent, now)
            if self._bytes_left == 0:
                self._bytes_left = None
                self._cut_all(reset=True)
                return

    def _allowance(self) -> int:
        """How many bytes the next send may carry; at least one."""
        allowed = self._slice_bytes
        if self._bytes_per_s:
            allowed = min(allowed, max(1, int(self._bytes_per_s / 100)))
        if self._bytes_left is not None:
            allowed = min(allowed, max(1, self._bytes_left))
        return allowed

    def _account(self, pipe: Pipe, sent: int, now: float) -> None:
        if pipe.up:
            self.bytes_up += sent
        else:
            self.bytes_down += sent
        if self._bytes_left is not None:
            self._bytes_left -= sent
        if self._bytes_per_s:
            pipe.not_before = now + sent / self._bytes_per_s
        elif self._slice_bytes < READ_BYTES_MAX:
            pipe.not_before = now + SLICE_GAP_S

    def _cut_all(self, *, reset: bool) -> None:
        for pair in list(self._pairs):
            self.cuts += 1
            self._close(pair, reset=reset)

    def _close(self, pair: tuple[Pipe, Pipe], *, reset: bool) -> None:
        if pair in self._pairs:
            self._pairs.remove(pair)
            for pipe in pair:
                pipe.held.clear()
                _end(pipe.source, reset=reset)


def _end(connection: socket.socket, *, reset: bool) -> None:
    if reset:  # linger for 0 s: the other side gets RST and loses what it had not read
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
