"""Which QoS 1 messages of a stream the broker may send again.  Pure.

A broker sends a message again, with the same packet id and DUP set, when it did not see our PUBACK.
A message is in one of three states here: *open* (given to the lane, not yet accounted for),
*settled* (accounted for, but the broker may not know), and forgotten (the broker has confirmed that
it read our PUBACK, or has used the packet id again).  The mark is the open and settled ones: it is
stored together with the scores, and by then all of them are settled.

What this cannot tell apart: two messages with equal bytes on one topic, where the broker used the
packet id again within the time of one commit and the agent was killed in that very moment.
"""

import struct
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

from agent.core.errors import RefusedError

MID_BYTES = 2
KEY_BYTES = MID_BYTES + 8
_VERSION = 1
_LENGTHS = struct.Struct("!BBH")  # version, bytes of the stream's name, bytes of its topic filter


def key(mid: bytes, topic: bytes, payload: bytes) -> bytes:
    """What a message is recognised by: its packet id and a 64-bit hash of topic and payload.

    Properties are left out: the broker counts the expiry interval down.
    """
    return mid + blake2b(topic + b"\0" + payload, digest_size=8).digest()


@dataclass(slots=True, eq=False)
class Token:
    """One burst, as its source remembers it.

    keys      of its QoS 1 messages, joined, in the order they were read
    mids      to be acknowledged on the connection that stands now
    shared    those that other streams' bursts hold as well
    """

    keys: bytes = b""
    mids: list[bytes] = field(default_factory=list)
    shared: set[bytes] = field(default_factory=set)
    accepted: bool = False
    confirmed: bool = False


_EARLIER = Token(accepted=True, confirmed=True)  # all that an earlier process accounted for


class Ledger:
    """The messages of one stream that may come again.

    Args:
        plain: the broker sends again without DUP and under new packet ids, but before anything new
            (rumqttd does).  Then messages are recognised by their hash, from the beginning of a
            connection to the first that is unknown.
    """

    def __init__(self, *, plain: bool = False) -> None:
        self._tokens: deque[Token] = deque()  # not confirmed, in the order they were read
        self._former: dict[bytes, tuple[bytes, Token]] = {}  # by packet id, of earlier connections
        self._is_plain = plain
        self._replay: dict[bytes, list[tuple[bytes, Token]]] = {}  # by hash, for a plain broker

    @property
    def is_replaying(self) -> bool:
        """Whether messages that came before are still expected from a plain broker."""
        return bool(self._replay)

    def add(self, token: Token) -> None:
        """`token` goes to the lane, or is settled already and waits for its confirmation."""
        self._tokens.append(token)

    def find(self, mid: bytes, its_key: bytes) -> Token | None:
        """The burst in which a message that comes with DUP was delivered; asked once."""
        if self._is_plain:
            return self._find_by_hash(its_key[MID_BYTES:])
        known = self._former.pop(mid, None)
        return known[1] if known and known[0] == its_key else None

    def _find_by_hash(self, its_hash: bytes) -> Token | None:
        alike = self._replay.get(its_hash)
        if not alike:
            self._replay.clear()  # the first new message ends the replay
            return None
        _, token = alike.pop(0)
        if not alike:
            del self._replay[its_hash]
        return token

    def used(self, mids: Iterable[bytes]) -> None:
        """New messages came with these packet ids: the former ones are settled for good."""
        if self._former:
            for mid in self._former.keys() & set(mids):
                del self._former[mid]

    def confirm(self) -> None:
        """Forget what has been confirmed."""
        while self._tokens and self._tokens[0].confirmed:
            self._tokens.popleft()

    def reconnected(self, *, kept: bool) -> None:
        """A new connection stands; `kept`: the broker still has our session."""
        if not kept:  # packet ids start afresh, and nothing of before will come again
            self._former.clear()
        settled = [k for k, token in self._known() if token.confirmed and kept]
        self._replay.clear()
        self._expect(b"".join(settled), _EARLIER)
        still_open = deque[Token]()
        for token in self._tokens:
            token.mids.clear()
            token.shared.clear()
            if kept:
                self._expect(token.keys, token)
            else:
                token.keys = b""
            if token.accepted:
                token.confirmed = True
            else:
                still_open.append(token)
        self._tokens = still_open

    def mark(self) -> bytes:
        """The keys of all that is open or settled."""
        settled = [k for k, token in self._known() if token.confirmed]
        return b"".join(settled) + b"".join([token.keys for token in self._tokens])

    def load(self, keys: bytes) -> None:
        """Take over what an earlier process had settled."""
        self._expect(keys, _EARLIER)

    def _known(self) -> Iterable[tuple[bytes, Token]]:
        return [
            *self._former.values(),
            *(entry for alike in self._replay.values() for entry in alike),
        ]

    def _expect(self, keys: bytes, token: Token) -> None:
        if self._is_plain:
            for k in _split(keys):
                self._replay.setdefault(k[MID_BYTES:], []).append((k, token))
        else:
            self._former.update({k[:MID_BYTES]: (k, token) for k in _split(keys)})


def pack(stream: str, topic: str, keys: bytes) -> bytes:
    """A mark that can be stored."""
    name, filter_ = stream.encode(), topic.encode()
    return _LENGTHS.pack(_VERSION, len(name), len(filter_)) + name + filter_ + keys


def unpack(mark: bytes) -> tuple[str, str, bytes]:
    """Stream, topic filter and keys of a stored mark.

    Raises:
        RefusedError: it was not written by `pack`.
    """
    try:
        version, name_bytes, filter_bytes = _LENGTHS.unpack_from(mark)
        at = _LENGTHS.size + name_bytes
        name, filter_ = mark[_LENGTHS.size : at].decode(), mark[at : at + filter_bytes].decode()
    except (struct.error, UnicodeDecodeError) as error:
        raise RefusedError(f"not the mark of an MQTT stream: {error}") from error
    keys = mark[at + filter_bytes :]
    if version != _VERSION or len(keys) % KEY_BYTES or len(mark) < at + filter_bytes:
        raise RefusedError("not the mark of an MQTT stream, or one of a later version")
    return name, filter_, keys


def _split(keys: bytes) -> Iterable[bytes]:
    return (keys[at : at + KEY_BYTES] for at in range(0, len(keys), KEY_BYTES))
