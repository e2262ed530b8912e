"""Direct methods as commands.  Pure, but for the time it is told.

A method's payload is the arguments, or a whole native command where it has an id and an expiry of
its own.  A method that comes twice keeps its id, so that it is done once.
"""

import hashlib
import json
from collections import OrderedDict
from typing import Any

from agent.core.errors import RefusedError
from agent.core.strict import read_object
from agent.core.topics import Topics
from agent.core.wire import COMMAND_BYTES_MAX
from agent.ports import Clock, Message

PATIENCE_S = 30.0  # of whoever called, unless they said otherwise
REMEMBERED_S = 300.0
REMEMBERED_MAX = 256


class Methods:
    """Gives each method an id, and knows which answer belongs to which."""

    def __init__(self, topics: Topics, clock: Clock) -> None:
        self._topics = topics
        self._clock = clock
        self._seen: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        self._count = 0

    def command(self, name: str, rid: str, payload: bytes) -> Message:
        """The native command that the method `name` with request id `rid` stands for."""
        body = self._body(name, rid, payload)
        return Message(self._topics.command(name), body, response_topic=self._topics.answer(rid))

    def answered(self, topic: str) -> str | None:
        """The request id of the method that `topic` answers; None if it answers none."""
        whole = self._topics.answer("")
        return topic.removeprefix(whole) if topic.startswith(whole) else None

    def _body(self, name: str, rid: str, payload: bytes) -> bytes:
        if payload.strip() in (b"", b"null"):
            args: dict[str, Any] = {}
        else:
            try:
                args = read_object(payload, f"the method {name}", bytes_max=COMMAND_BYTES_MAX)
            except RefusedError:
                return payload  # the reader of commands says what is wrong with it
        if "id" in args and "expires" in args:
            return payload
        expires = self._clock.wall() + PATIENCE_S
        ident = self._id(name, rid, payload)
        return json.dumps({"schema": 1, "id": ident, "expires": expires, "args": args}).encode()

    def _id(self, name: str, rid: str, payload: bytes) -> str:
        now = self._clock.monotonic()
        while self._seen and next(iter(self._seen.values()))[1] < now - REMEMBERED_S:
            self._seen.popitem(last=False)
        key = hashlib.sha256(f"{name}\0{rid}\0".encode() + payload).digest()
        if key not in self._seen:
            self._count += 1
            ident = f"method-{key[:6].hex()}-{int(self._clock.wall() * 1000)}-{self._count}"
            self._seen[key] = (ident, now)
            if len(self._seen) > REMEMBERED_MAX:
                self._seen.popitem(last=False)
        return self._seen[key][0]
