"""Readings that are posted to /v1/streams/NAME: one body is one payload in the stream's format.

An answer is held back until the readings are durably accounted for, as a broker is acknowledged no
sooner: 202 means that no power cut can lose them.  Whoever got no answer posts again.
"""

import asyncio
import itertools
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from agent.config import Stream
from agent.ports import Burst

BODY_BYTES_MAX = 1024 * 1024
RINGS_MAX = 64


@dataclass(frozen=True, slots=True, eq=False)
class Post:
    """One body that waits, and whoever waits for it."""

    payload: bytes
    arrived: float  # monotonic
    taken: asyncio.Future[bool]  # False: the stream closed first

    def answer(self, *, taken: bool) -> None:
        """Tell whoever waits, from any thread."""
        with suppress(RuntimeError):  # the endpoint's loop is closed: nobody waits any more
            self.taken.get_loop().call_soon_threadsafe(self._settle, taken)

    def _settle(self, taken: bool) -> None:
        if not self.taken.done():  # it may have given up waiting
            self.taken.set_result(taken)


class HttpSource:
    """The `Source` port over posts.  `offer` belongs to the endpoint, all else to the lane."""

    def __init__(self, stream: Stream) -> None:
        self.name = stream.name
        self.streams = (stream.name,)
        self.body_bytes_max = min(stream.payload_bytes_max, BODY_BYTES_MAX)
        self._posts: deque[Post] = deque()
        self._lock = threading.Lock()
        self._tickets = itertools.count()
        self._unaccepted: dict[int, Sequence[Post]] = {}
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._closed = False

    @property
    def waiting(self) -> int:
        """Posts that nobody has read yet."""
        return len(self._posts)

    def offer(self, payload: bytes) -> asyncio.Future[bool]:
        """On the endpoint's loop: hand a body over; the future says whether it was taken."""
        taken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        post = Post(payload, time.monotonic(), taken)
        with self._lock:
            if self._closed:
                taken.set_result(False)
                return taken
            if not self._posts:  # one ring for however many: the ear never fills
                self._bell.send(b"\0")
            self._posts.append(post)
        return taken

    def fileno(self) -> int | None:
        """Readable when a post has come."""
        return None if self._closed else self._ear.fileno()

    def wants_write(self) -> bool:
        """Never: nothing goes out here."""
        return False

    def read(self, readings_max: int) -> Sequence[Burst]:
        """The posts that have come, as one burst."""
        with self._lock:
            if not self._posts:
                return ()
            posts = [self._posts.popleft() for _ in range(min(readings_max, len(self._posts)))]
            if not self._posts:  # else the next read must still be rung for
                self._ear.recv(RINGS_MAX)
        ticket = next(self._tickets)
        self._unaccepted[ticket] = posts
        payloads = [post.payload for post in posts]
        return (Burst(self.name, payloads, posts[0].arrived, token=ticket),)

    def accept(self, tokens: Sequence[object]) -> None:
        """These are durably accounted for: let their senders go."""
        for token in tokens:
            for post in self._unaccepted.pop(token, ()) if isinstance(token, int) else ():
                post.answer(taken=True)

    def resume(self, mark: bytes) -> None:
        """There is nothing to resume: what was not accepted is posted again by its sender."""

    def tick(self, now: float) -> float:
        """Nothing to keep alive; the next time is far away."""
        return now + 3600.0

    def trouble(self) -> str:
        """Empty while posts can be taken."""
        return f"stream {self.name} is closed to posts" if self._closed else ""

    def close(self) -> None:
        """Take no more; tell all who wait that they were not heard.  Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            waiting = [*self._posts, *itertools.chain(*self._unaccepted.values())]
            self._posts.clear()
            self._unaccepted.clear()
            self._bell.close()
            self._ear.close()
        for post in waiting:
            post.answer(taken=False)
