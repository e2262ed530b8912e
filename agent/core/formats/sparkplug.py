"""Sparkplug B: births, and then only what changed; a reading is what is known of a device by then.

Reasons of its own: `birth` (nothing says what the payload's aliases mean), `historical` (it is of
the past, sent after the fact, and there is no place for it among what is live).  Messages that are
no readings (deaths, commands, the state of hosts) give none.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from sys import float_info
from weakref import WeakKeyDictionary

from agent.core.formats.peeking import MEMBERS_MAX
from agent.core.formats.plan import Found, Plan, Tally, TopicReader
from agent.core.formats.records import RejectError, columns_of, told
from agent.core.formats.sparkplug_births import Census, Device, Node, Sort
from agent.core.formats.sparkplug_wire import (
    ABSENT,
    NUMBERS,
    Metric,
    Payload,
    kind_of,
    parse,
    quick,
    value,
)

_NAMESPACE = "spBv1.0"
_LEVELS = {
    **dict.fromkeys(("NBIRTH", "NDATA", "NDEATH", "NCMD"), 4),
    **dict.fromkeys(("DBIRTH", "DDATA", "DDEATH", "DCMD"), 5),
}
_BD_SEQ = b"bdSeq"
_SEQ_END = 256
_FLOAT_MAX = float_info.max
_ROUTES_SPARE = 1024


@dataclass(frozen=True, slots=True)
class _Route:
    """What a topic says: DATA, BIRTH, DEATH or nothing of ours, and of whom."""

    verb: str = ""
    node: str = ""
    device: str = ""

    @property
    def key(self) -> str:
        return f"{self.node}/{self.device}" if self.device else self.node


@dataclass(frozen=True, slots=True)
class _Fit:
    """A plan on a sort of device.

    quick    of each metric, how its value is read
    picks    for each field of the plan the metric's number, that of the NaN where there is none
    wanted   the numbers of those metrics
    refusal  why its readings cannot be used; empty if they can
    """

    quick: tuple[Callable[[Metric], float], ...]
    picks: tuple[int, ...]
    wanted: frozenset[int]
    refusal: str


class SparkplugReader(TopicReader):
    """Reads Sparkplug B; what it learns of devices is in `census`, which outlives it."""

    def __init__(self, plan: Plan, census: Census) -> None:
        self._fields = [path.encode() for path in plan.fields]
        self._census = census
        self._routes: dict[bytes, _Route] = {}
        self._routes_max = 4 * census.devices_max + _ROUTES_SPARE  # births and data of each
        self._fits: WeakKeyDictionary[Sort, _Fit] = WeakKeyDictionary()
        self._latest: list[Device] = []

    def read_with(
        self,
        topics: Sequence[bytes] | None,
        payloads: Sequence[bytes],
        origin: Sequence[int],
        tally: Tally,
    ) -> Found:
        """See `TopicReader.read_with`; the keys are group/node[/device]."""
        rows: list[list[float]] = []
        times: list[float | None] = []
        numbers: list[int] = []
        devices: list[Device] = []
        for payload, number in zip(payloads, origin, strict=True):
            try:
                taken = self._taken(payload, b"" if topics is None else topics[number], tally)
            except RejectError as error:
                tally.reject(error.reason, str(error))
                continue
            if taken is None:
                continue
            device, picks, stamp = taken
            known = device.values
            rows.append([known[slot] for slot in picks])
            times.append(stamp)
            numbers.append(number)
            devices.append(device)
        self._latest = devices
        keys = [device.key for device in devices]
        return Found(numbers, columns_of(rows, len(self._fields)), times, keys)

    def peek(self, pick: float) -> Mapping[str, float | str] | None:
        """See `TopicReader.peek`."""
        if not self._latest:
            return None
        device = self._latest[int(pick * len(self._latest))]
        metrics = zip(device.sort.names, device.sort.types, device.values, strict=False)
        return {
            name.decode(errors="replace"): known if kind in NUMBERS else f"a {kind_of(kind)}"
            for (name, kind, known), _ in zip(metrics, range(MEMBERS_MAX), strict=False)
        }

    # ---- one payload ----

    def _taken(
        self, raw: bytes, topic: bytes, tally: Tally
    ) -> tuple[Device, tuple[int, ...], float | None] | None:
        """Of whom it is a reading, of which metrics, and when; None if it is none.  RejectError."""
        route = self._routes.get(topic) or self._route(topic)
        if not route.verb:
            return None
        if route.verb == "BIRTH":
            device, payload = self._birth(raw, route, tally)
        else:
            payload = parse(raw)
            if route.verb == "DEATH":
                self._death(payload, route, tally)
                return None
            device = self._device(payload, route, tally)
        fit = self._fits.get(device.sort) or self._fit(device.sort)
        _lay_over(device, payload, fit)
        if fit.refusal:
            raise RejectError("type", fit.refusal)
        if self._fields and not fit.wanted:
            return None  # an edge node among its devices, say: no sensor of this stream
        return device, fit.picks, _stamp(payload)

    def _route(self, topic: bytes) -> _Route:
        levels = topic.decode(errors="replace").split("/")
        if levels[:2] == [_NAMESPACE, "STATE"]:
            return _Route()
        verb = levels[2] if len(levels) > 2 else ""
        if levels[0] != _NAMESPACE or _LEVELS.get(verb) != len(levels) or "" in levels:
            why = f"{told(topic)} is no topic of the form {_NAMESPACE}/GROUP/TYPE/NODE[/DEVICE]"
            raise RejectError("malformed", why)
        group, _, node, *device = levels[1:]
        route = _Route()
        if verb[1:] != "CMD":
            route = _Route(verb[1:], f"{group}/{node}", *device)
        if len(self._routes) >= self._routes_max:
            self._routes.clear()
        self._routes[topic] = route
        return route

    def _device(self, payload: Payload, route: _Route, tally: Tally) -> Device:
        node = self._census.nodes.get(route.node)
        if node is not None:
            self._follow(node, payload.seq, route, tally)
            device = node.devices.get(route.device)
            if device is not None:
                return device
        raise self._census.unknown(route.node, route.device, route.key)

    def _birth(self, raw: bytes, route: _Route, tally: Tally) -> tuple[Device, Payload]:
        try:
            payload = parse(raw)
        except RejectError as error:
            self._census.refused(route.node, route.device, error)  # aliases may have changed
            raise
        node = self._census.nodes.get(route.node)
        if node is not None and route.device:
            self._follow(node, payload.seq, route, tally)
        metrics = [
            (metric.name, metric.datatype, None if metric.alias == ABSENT else metric.alias)
            for metric in payload.metrics
        ]
        device = self._census.born(route.node, route.device, metrics)
        node = self._census.nodes[route.node]
        if node.seq is None and payload.seq < _SEQ_END:
            node.seq = payload.seq
        if not route.device:
            node.born = _bd_seq(payload)
        return device, payload

    def _death(self, payload: Payload, route: _Route, tally: Tally) -> None:
        node = self._census.nodes.get(route.node)
        if node is None:
            return
        if route.device:
            self._follow(node, payload.seq, route, tally)
        elif node.born is not None and _bd_seq(payload) not in (None, node.born):
            return  # the will of a connection before this one
        self._census.died(route.node, route.device)

    def _follow(self, node: Node, seq: int, route: _Route, tally: Tally) -> None:
        before = node.seq
        if seq < _SEQ_END and not node.follows(seq):
            self._census.gaps += 1
            why = f"{route.node} went from number {before} to {seq}: messages were lost on the way"
            tally.sentences["seq"] = why

    # ---- what is wanted of a device ----

    def _fit(self, sort: Sort) -> _Fit:
        nothing = len(sort.names)
        picks = tuple(sort.by_name.get(path, nothing) for path in self._fields)
        wanted = frozenset(picks) - {nothing}
        odd = [slot for slot in sorted(wanted) if sort.types[slot] not in NUMBERS]
        refusal = ""
        if odd:
            kind = kind_of(sort.types[odd[0]])
            refusal = f"{_name(sort, odd[0])} is of type {kind}, not a number"
        fit = _Fit(tuple(map(quick, sort.types)), picks, wanted, refusal)
        self._fits[sort] = fit
        return fit


def _lay_over(device: Device, payload: Payload, fit: _Fit) -> None:
    """What `payload` says over what was known.

    Raises:
        RejectError: it says something that is wanted and cannot be used, which is not known from
            here on; or nothing but history.  What else it says has been taken.
    """
    slots, known, readers = device.slots, device.values, fit.quick
    wrong: RejectError | None = None
    past = live = False
    for metric in payload.metrics:
        slot = slots.get(metric.alias)
        if slot is None and (slot := device.sort.by_name.get(metric.name)) is None:
            what = f"alias {metric.alias}" if metric.alias != ABSENT else told(metric.name)
            why = f"{device.key} sends {what}, which its birth certificate does not name"
            wrong = RejectError("birth", why)
            continue
        found = readers[slot](metric)
        if not -_FLOAT_MAX <= found <= _FLOAT_MAX or metric.is_historical or metric.is_null:
            if metric.is_historical:
                past = True
                continue
            try:
                found = _looked_at(metric, device.sort.types[slot])
            except RejectError as error:
                found = math.nan
                if slot in fit.wanted:
                    wrong = RejectError(error.reason, f"{_name(device.sort, slot)} {error}")
        known[slot] = found
        live = True
    if wrong is not None:
        raise wrong
    if past and not live:
        raise RejectError("historical", f"{device.key} sends what it kept: only live is scored")


def _looked_at(metric: Metric, datatype: int) -> float:
    return value(metric, datatype) if datatype in NUMBERS else math.nan


def _stamp(payload: Payload) -> float | None:
    """Seconds: of the payload, else of its newest metric; None if nothing says."""
    millis = payload.timestamp
    if millis == ABSENT:
        stamps = [m.timestamp for m in payload.metrics if m.timestamp != ABSENT]
        millis = max(stamps, default=ABSENT)
    return None if millis == ABSENT else millis / 1000.0


def _bd_seq(payload: Payload) -> int | None:
    for metric in payload.metrics:
        if metric.name == _BD_SEQ and not metric.is_null:
            found = metric.long_value if metric.HasField("long_value") else metric.int_value
            return None if found == ABSENT else found % _SEQ_END
    return None


def _name(sort: Sort, slot: int) -> str:
    return sort.names[slot].decode(errors="replace")
