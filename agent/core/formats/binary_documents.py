"""CBOR and MessagePack: one map, or an array of maps."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import cbor2
import msgpack

from agent.core.formats.plan import Found, Plan, Tally
from agent.core.formats.records import Picker, RejectError, object_of

_DEPTH_MAX = 64


class BinaryReader:
    """Reads payloads that one call of `decode` turns into Python objects."""

    def __init__(self, plan: Plan, decode: Callable[[bytes], Any]) -> None:
        """Raises RefusedError if the plan contradicts itself."""
        self._picker = Picker(plan)
        self._decode = decode

    def read(self, payloads: Sequence[bytes], origin: Sequence[int], tally: Tally) -> Found:
        """See `Reader.read`."""
        for payload, number in zip(payloads, origin, strict=True):
            try:
                decoded = self._decode(payload)
            except RejectError as error:
                tally.reject(error.reason, str(error))
                continue
            for record in decoded if isinstance(decoded, list) else [decoded]:
                self._picker.take(record, number, tally)
        return self._picker.found()


def cbor_reader(plan: Plan) -> BinaryReader:
    """CBOR; its tagged date-times may stand for the event time."""
    return BinaryReader(plan, uncbor)


def msgpack_reader(plan: Plan) -> BinaryReader:
    """MessagePack; its timestamps may stand for the event time."""
    return BinaryReader(plan, unmsgpack)


def uncbor(payload: bytes) -> Any:
    """The one item in `payload`.  Raises RejectError."""
    try:
        return _cbor_item(payload, allow_duplicate_keys=False)
    except Exception as error:  # noqa: BLE001  # a tag's decoder raises whatever it likes
        why = error
    try:
        _cbor_item(payload, allow_duplicate_keys=True)
    except Exception:  # noqa: BLE001  # as above
        raise RejectError("malformed", f"the payload is no CBOR: {why}") from None
    raise RejectError("duplicate_key", "a member stands twice in one map")


def _cbor_item(payload: bytes, *, allow_duplicate_keys: bool) -> Any:
    stream = io.BytesIO(payload)
    decoder = cbor2.CBORDecoder(
        stream, max_depth=_DEPTH_MAX, allow_duplicate_keys=allow_duplicate_keys
    )
    item = decoder.decode()
    if stream.tell() != len(payload):  # what follows would be lost in silence
        msg = "bytes follow after its end"
        raise ValueError(msg)
    return item


def unmsgpack(payload: bytes) -> Any:
    """The one object in `payload`.  Raises RejectError."""
    try:
        return msgpack.unpackb(
            payload, strict_map_key=False, timestamp=1, object_pairs_hook=object_of
        )
    except Exception as error:  # noqa: BLE001  # documented to raise others than its own
        why = str(error) or type(error).__name__
        raise RejectError("malformed", f"the payload is no MessagePack: {why}") from None
