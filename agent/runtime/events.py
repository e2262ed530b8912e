"""What happened, told once: through the outbox to the broker, and to whoever listens here."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from agent.core import wire
from agent.core.topics import Topics
from agent.ports import Clock, Entry, Faces, Outbox, Record


class Events:
    """Events are kept and sent like scores, before them."""

    def __init__(self, topics: Topics, outbox: Outbox, faces: Faces, clock: Clock) -> None:
        self._topics = topics
        self._outbox = outbox
        self._faces = faces
        self._clock = clock

    def tell(self, kind: str, model: str, why: str, **more: Any) -> None:
        """`kind` is one of `wire.EVENT_TYPES`.  From any thread; never waits."""
        now = datetime.fromtimestamp(self._clock.wall(), UTC).isoformat(timespec="milliseconds")
        body = wire.event(kind, now_iso=now.replace("+00:00", "Z"), model=model, why=why, **more)
        self._outbox.add(Entry([Record(self._topics.events, body, priority=0, model=model)]))
        self._faces.tell(msgspec.json.decode(body))
