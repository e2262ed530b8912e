"""The last events, numbered, for whoever listens on /events.  Not a queue per listener.

Every listener has a place in the one backlog and reads on from there, so a listener that is slow
costs nothing and can hold nobody up: what it has not read in time is overwritten, and the numbers
tell it so.
"""

import asyncio
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any

from agent.adapters.web.saying import encode

EVENTS_MAX = 100
EVENT_BYTES_MAX = 16 * 1024
LISTENERS_MAX = 8
HEARTBEAT_S = 15.0
RETRY_MS = 3000  # how long a browser waits before it comes back


class Backlog:
    """`tell` from any thread; `listen` on the loop that `open` named."""

    def __init__(self, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        # Numbers start again with each run: the prefix tells an id of this run from one of another.
        self.run = os.urandom(4).hex()
        self.listeners = 0
        self._events: deque[tuple[int, bytes]] = deque(maxlen=EVENTS_MAX)
        self._last = 0
        self._lock = threading.Lock()
        self._heartbeat_s = heartbeat_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bells: set[asyncio.Event] = set()
        self._ringing = False
        self._closed = False

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on listeners on `loop` are woken."""
        with self._lock:
            self._loop = loop

    def close(self) -> None:
        """On the loop: let every listener go."""
        with self._lock:
            self._loop = None
        self._closed = True
        self._ring()

    def tell(self, event: Mapping[str, Any]) -> None:
        """Number the event and keep it; from any thread, and never waits for a listener."""
        body = _encode(event)
        with self._lock:
            self._last += 1
            self._events.append((self._last, body))
            # One wake-up at most is on its way, however many events come.
            if self._loop is None or self._ringing:
                return
            self._ringing = True
            self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        with self._lock:
            self._ringing = False
        for bell in self._bells:
            bell.set()

    async def listen(self, last_id: str) -> AsyncIterator[bytes]:
        """Server-sent events after `last_id`, or all that are kept if it is not of this run.

        Ends when the backlog closes.  Comments keep the connection alive, and tell of events that
        were overwritten before they could be sent.
        """
        at = self._place(last_id)
        bell = asyncio.Event()
        self._bells.add(bell)
        try:
            yield f"retry: {RETRY_MS}\n\n".encode()
            while not self._closed:
                bell.clear()
                at, text = self._after(at)
                if text:
                    yield text
                    continue
                try:
                    await asyncio.wait_for(bell.wait(), self._heartbeat_s)
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            self._bells.discard(bell)

    def _place(self, last_id: str) -> int:
        run, _, number = last_id.partition("-")
        if run != self.run or not (number.isascii() and number.isdigit()) or len(number) > 18:
            return 0
        return min(int(number), self._last)

    def _after(self, at: int) -> tuple[int, bytes]:
        with self._lock:
            kept = list(self._events)
        missed = kept[0][0] - 1 - at if kept else 0
        parts = [f": {missed} events are gone\n\n".encode()] if missed > 0 else []
        for number, body in kept:
            if number > at:
                parts.append(b"id: %s-%d\ndata: %s\n\n" % (self.run.encode(), number, body))
        return max(at, kept[-1][0] if kept else 0), b"".join(parts)


def _encode(event: Mapping[str, Any]) -> bytes:
    """One line of JSON.  An event too large for a page is cut down to what happened and why."""
    body = encode(dict(event))
    if len(body) > EVENT_BYTES_MAX:
        short = {name: str(event.get(name, ""))[:1000] for name in ("type", "time", "model", "why")}
        body = encode(short | {"cut": True})
    return body
