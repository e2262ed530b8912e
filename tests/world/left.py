"""What an earlier run has left in the outbox, as a consumer understands it."""

import json
from pathlib import Path

from agent.adapters.sqlite.database import Database
from agent.adapters.sqlite.outbox import SqliteOutbox
from agent.ports import Entry, Record
from tests.world.site import DEVICE

ROWS = 3  # of a record


def left_waiting(folder: Path, records: int) -> list[bytes]:
    """Scores of another model that an earlier run has left in the outbox; their messages."""
    database = Database(folder / "agent.db")
    box = SqliteOutbox(database, 2**20)
    messages: list[bytes] = []
    for n in range(records):
        first = n * ROWS
        body = {"seq": first, "key": ["p1"] * ROWS, "time": [first] * ROWS, "score": [0.5] * ROWS}
        messages.append(json.dumps(body | {"release": 1}).encode())
        topic = f"edge/{DEVICE}/scores/left"
        box.add(Entry([Record(topic, messages[-1], ROWS, 1, "s", "left", first)]))
    database.close()
    box.close()
    return messages
