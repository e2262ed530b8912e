"""What happened, told once: through the outbox to the broker, and to whoever listens here."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from agent.core import wire
from agent.core.topics import Topics
from agent.ports import Clock, Entry, Faces, Gap, Outbox, Record

_WHY = {
    "full": "there was no room for {} in the outbox",
    "expired": "{} waited longer than store.outbox_ttl",
    "refused": "the broker will never take {}",
    "damaged": "the disk has damaged {}",
}


class Events:
    """Events are kept and sent like scores, before them."""

    def __init__(self, topics: Topics, outbox: Outbox, faces: Faces, clock: Clock) -> None:
        self._topics = topics
        self._outbox = outbox
        self._faces = faces
        self._clock = clock

    def tell(self, kind: str, model: str, why: str, **more: Any) -> None:
        """`kind` is one of `wire.EVENT_TYPES`.  From any thread; never waits."""
        self._outbox.add(Entry([self._record(kind, model, why, **more)]))

    def gap(self, gap: Gap) -> Record:
        """What tells of a gap.  It does not go through the outbox: the gap itself waits there."""
        what = "score rows" if gap.stream else "events" if gap.model else "records"
        told = {
            "id": gap.id,
            "epoch": self._outbox.epoch(),
            "stream": gap.stream,
            "from_seq": gap.first_seq,
            "to_seq": gap.last_seq,
            "count": gap.rows,
            "reason": gap.reason,
        }
        why = _WHY.get(gap.reason, "{} were given up")  # a disk may have spoilt the reason
        return self._record("gap", gap.model, why.format(f"{gap.rows} {what}"), gap=told)

    def _record(self, kind: str, model: str, why: str, **more: Any) -> Record:
        now = datetime.fromtimestamp(self._clock.wall(), UTC).isoformat(timespec="milliseconds")
        body = wire.event(kind, now_iso=now.replace("+00:00", "Z"), model=model, why=why, **more)
        self._faces.tell(msgspec.json.decode(body))
        return Record(self._topics.events, body, priority=0, model=model)
