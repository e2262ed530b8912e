"""The seal of a record that waits: whether what is read back is what was written.

SQLite looks after the form of its pages and not after what is in a row.  Two checksums: that of the
message says whether it may be sent, that of the labels whether they may be told in a gap.  They are
against disks, not against people.  The id is in neither: it is a place in the queue, and a message
in another place is still whole.
"""

import struct
import zlib
from typing import NamedTuple

from agent.adapters.sqlite.schema import PRIORITY_BITS

_SEAL = struct.Struct("<II")
_NONE = (
    "none"  # not of the type that a seal has, nor near it: no flipped bit makes one of the other
)

# The column, as it is to be selected: an earlier agent made no seals, and what waits since then is
# taken as it is; from there on a seal that is missing is one that does not hold.
SEAL = (
    f"CASE WHEN seal IS NULL AND (id & {(1 << PRIORITY_BITS) - 1})"
    f" <= (SELECT value FROM meta WHERE name='unsealed') THEN '{_NONE}' ELSE seal END"
)


class Labels(NamedTuple):
    """What is known of a record beside its message."""

    rows: int
    stream: str
    model: str
    first_seq: int
    at: float


def seal(topic: str, payload: bytes, labels: Labels) -> bytes:
    """Of a record as it is written."""
    return _SEAL.pack(_of_message(topic, payload), _of_labels(labels))


def message_holds(topic: object, payload: object, found: object) -> bool:
    """Whether topic and payload are as they were written; `found` is `SEAL` of them."""
    if not isinstance(topic, str) or not isinstance(payload, bytes):
        return False
    return found == _NONE or _part(found, 0) == _of_message(topic, payload)


def labels_hold(labels: Labels, found: object) -> bool:
    """Whether these are as they were written; `found` is `SEAL` of them."""
    return found == _NONE or _part(found, 1) == _of_labels(labels)


def _of_message(topic: str, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(topic.encode() + b"\n"))


def _of_labels(labels: Labels) -> int:
    return zlib.crc32(repr(tuple(labels)).encode())  # as which types, too


def _part(found: object, which: int) -> int | None:
    if not isinstance(found, bytes) or len(found) != _SEAL.size:
        return None
    part: int = _SEAL.unpack(found)[which]
    return part
