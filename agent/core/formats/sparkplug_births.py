"""Who lives on a Sparkplug stream: edge nodes and devices, and what births said of their metrics.

Births give metrics names, types and aliases; later messages may carry only aliases, and only what
changed.  So each device has its last values here.  Bounded: in devices, and in bytes about them.
"""

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

import msgspec

from agent.core.errors import RefusedError
from agent.core.formats.records import RejectError

NAME_BYTES_MAX = 1024
BYTES_MAX = 64 * 2**20  # that births may take in memory
KEPT_BYTES_MAX = 2**20  # of births over a restart; what is beyond waits to be born again
REFUSALS_MAX = 1000  # births whose refusal is remembered
_METRIC_BYTES = 200  # of one in memory, beside its name


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Sort:
    """What a birth declares: names and types of metrics.  Devices of one make share it."""

    names: tuple[bytes, ...]
    types: tuple[int, ...]
    by_name: Mapping[bytes, int]


@dataclass(slots=True, eq=False)
class Device:
    """An edge node's own metrics, or those of one device.

    slots   alias -> number of the metric in `sort`
    values  of every metric, and NaN behind the last; NaN: null, not known, or no number
    """

    key: str
    sort: Sort
    slots: dict[int, int]
    values: "array[float]"


@dataclass(slots=True, eq=False)
class Node:
    """One edge node.  `devices` are by name; its own metrics have the empty one."""

    devices: dict[str, Device] = field(default_factory=dict)
    born: int | None = None  # `bdSeq` of its birth
    seq: int | None = None  # of its latest message

    def follows(self, seq: int) -> bool:
        """Whether a message numbered `seq` is the next one, or the last once more (QoS 1); it is
        the latest from now on.
        """
        last, self.seq = self.seq, seq
        return last is None or seq in (last, (last + 1) % 256)


class _Kept(msgspec.Struct, array_like=True):
    """One node over a restart: its devices with the number of their sort, and their aliases."""

    name: str
    born: int | None
    devices: list[tuple[str, int, dict[int, int]]]


class _Book(msgspec.Struct, array_like=True):
    sorts: list[tuple[list[bytes], list[int]]]
    nodes: list[_Kept]


_book = msgspec.msgpack.Decoder(_Book)


class Census:
    """All nodes of one stream, by group/node.  `gaps`: how often a node's numbers did not go on."""

    def __init__(self, devices_max: int, bytes_max: int = BYTES_MAX) -> None:
        self.gaps = 0
        self.nodes: dict[str, Node] = {}
        self.devices_max = devices_max
        self._bytes_max = bytes_max
        self._devices = self._bytes = 0
        self._sorts: WeakValueDictionary[tuple[tuple[bytes, ...], tuple[int, ...]], Sort]
        self._sorts = WeakValueDictionary()
        self._changed = False
        self._refused: dict[tuple[str, str], RejectError] = {}  # births, the latest last

    def born(
        self, node: str, device: str, metrics: Sequence[tuple[bytes, int, int | None]]
    ) -> Device:
        """A birth: name, type and alias of each metric.  Its node is made if it is not there.

        Raises:
            RejectError: it cannot be taken.  What was known of the device is forgotten then, too:
                its aliases may mean something else now.
        """
        self.died(node, device)
        try:
            return self._admitted(node, device, metrics)
        except RejectError as error:
            self.refused(node, device, error)
            raise

    def refused(self, node: str, device: str, error: RejectError) -> None:
        """A birth could not be taken; what was known of the device is forgotten."""
        self.died(node, device)
        if len(self._refused) >= REFUSALS_MAX:
            del self._refused[next(iter(self._refused))]
        self._refused[node, device] = error

    def unknown(self, node: str, device: str, key: str) -> RejectError:
        """Why nothing is known of a device."""
        refused = self._refused.get((node, device))
        if refused is None:
            return RejectError("birth", f"no birth certificate of {key} was seen yet")
        reason = "keys" if refused.reason == "keys" else "birth"
        return RejectError(reason, f"the birth certificate of {key} was refused: {refused}")

    def _admitted(
        self, node: str, device: str, metrics: Sequence[tuple[bytes, int, int | None]]
    ) -> Device:
        names = tuple(name for name, _, _ in metrics)
        aliases = [alias for _, _, alias in metrics if alias is not None]
        if not all(0 < len(name) <= NAME_BYTES_MAX for name in names):
            why = f"a birth has a metric without a name of 1 to {NAME_BYTES_MAX} bytes"
            raise RejectError("malformed", why)
        if len(set(names)) < len(names) or len(set(aliases)) < len(aliases):
            raise RejectError("duplicate_key", "a name or an alias stands twice in a birth")
        slots = {alias: slot for slot, (_, _, alias) in enumerate(metrics) if alias is not None}
        return self._settle(node, device, names, tuple(kind for _, kind, _ in metrics), slots)

    def _settle(
        self,
        node: str,
        device: str,
        names: tuple[bytes, ...],
        types: tuple[int, ...],
        slots: dict[int, int],
    ) -> Device:
        if self._devices >= self.devices_max:
            raise RejectError("keys", f"there are {self.devices_max} sensors already (keys_max)")
        if self._bytes + _weight(names) > self._bytes_max:
            raise RejectError("keys", f"births take {self._bytes} bytes already")
        sort = self._sorts.get((names, types))
        if sort is None:
            sort = Sort(names, types, {name: slot for slot, name in enumerate(names)})
            self._sorts[names, types] = sort
        made = Device(
            f"{node}/{device}" if device else node,
            sort,
            slots,
            array("d", [math.nan]) * (len(names) + 1),
        )
        self.nodes.setdefault(node, Node()).devices[device] = made
        self._devices += 1
        self._bytes += _weight(names)
        self._changed = True
        return made

    def died(self, node: str, device: str = "") -> None:
        """Forget a device; with a node all of its devices."""
        for whose in [(node, device)] if device else [w for w in self._refused if w[0] == node]:
            self._refused.pop(whose, None)
        home = self.nodes.get(node)
        if home is None:
            return
        for name in [device] if device else list(home.devices):
            if (gone := home.devices.pop(name, None)) is not None:
                self._devices -= 1
                self._bytes -= _weight(gone.sort.names)
                self._changed = True
        if not home.devices:
            del self.nodes[node]

    # ---- over a restart ----

    def kept(self) -> bytes | None:
        """What `recall` wants, without values; None if nothing has changed since last asked."""
        if not self._changed:
            return None
        self._changed = False
        numbers: dict[int, int] = {}
        book, room = _Book([], []), KEPT_BYTES_MAX
        for name, node in reversed(self.nodes.items()):  # the youngest are the surest
            takes = sum(_kept_bytes(each, numbers) for each in node.devices.values())
            if takes > room:
                continue
            room -= takes
            book.nodes.append(_Kept(name, node.born, list(_noted(node, numbers, book))))
        return msgspec.msgpack.encode(book)

    def recall(self, raw: bytes) -> None:
        """Before the first message: what an earlier process knew.  Raises RefusedError."""
        try:
            book = _book.decode(raw)
            for node in reversed(book.nodes):
                for device, number, slots in node.devices:
                    names, types = book.sorts[number]
                    if len(types) != len(names) or not all(
                        0 <= slot < len(names) for slot in slots.values()
                    ):
                        raise RefusedError("births that were kept cannot be read")
                    self._settle(node.name, device, tuple(names), tuple(types), slots)
                    self.nodes[node.name].born = node.born
        except (msgspec.MsgspecError, IndexError, RejectError) as error:
            raise RefusedError(f"births that were kept cannot be read: {error}") from error
        self._changed = False


def _noted(
    node: Node, numbers: dict[int, int], book: _Book
) -> Iterator[tuple[str, int, dict[int, int]]]:
    for name, device in node.devices.items():
        sort = device.sort
        if id(sort) not in numbers:
            numbers[id(sort)] = len(numbers)
            book.sorts.append((list(sort.names), list(sort.types)))
        yield name, numbers[id(sort)], device.slots


def _kept_bytes(device: Device, numbers: Mapping[int, int]) -> int:
    """At the most, roughly."""
    names = () if id(device.sort) in numbers else device.sort.names
    return len(device.key) + 8 * len(device.slots) + sum(map(len, names)) + 6 * len(names) + 32


def _weight(names: Sequence[bytes]) -> int:
    return sum(map(len, names)) + _METRIC_BYTES * (len(names) + 1)
