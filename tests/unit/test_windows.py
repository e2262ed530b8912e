"""Windows against a slow, obvious account of them, reading by reading; and the law of the count."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.errors import MisfitError, RefusedError, UnfitError
from agent.core.features import Rows
from agent.core.manifest import Window
from agent.core.windows import Spans, Windower

EPOCH = 1_732_180_000


class Plain:
    """One sensor, one reading at a time, everything remembered."""

    def __init__(self, window: Window, late_s: float) -> None:
        self.w, self.late_s = window, late_s
        self.size = window.size.readings or round(window.size.seconds * 1e6)
        step = window.step if window.kind == "sliding" else None
        self.step = self.size if step is None else step.readings or round(step.seconds * 1e6)
        self.newest = self.floor = -math.inf
        self.arrived = None
        self.waiting, self.seen, self.kept, self.session = [], 0, [], []
        self.open, self.covered = {}, set()  # open spans of time, by number
        self.last, self.closed = None, -math.inf
        self.late = self.expired = 0

    def span(self, readings):
        """(time, rows) as the model should see it; notes who is covered."""
        self.covered |= {v for _, v in readings}
        newest = readings[-self.w.length :]
        padded = [newest[0]] * (self.w.length - len(newest)) + newest
        return newest[-1][0], [v for _, v in padded]

    def push(self, t, v, now):
        if t < max(self.newest - self.late_s, self.floor):
            self.late += 1
            self.newest = max(self.newest, t)
            return []
        self.arrived = now
        self.newest = max(self.newest, t)
        self.waiting.append((t, v))
        if self.late_s:
            self.floor = max(self.floor, self.newest - self.late_s)
        return self.release(lambda t: not self.late_s or t <= self.floor)

    def release(self, ripe):
        ready = sorted((r for r in self.waiting if ripe(r[0])), key=lambda r: r[0])
        self.waiting = [r for r in self.waiting if not ripe(r[0])]
        return [span for t, v in ready for span in self.advance(t, v)]

    def advance(self, t, v):
        if self.w.kind == "session":
            return self.advance_session(t, v)
        if self.w.size.seconds is not None:
            return self.advance_timed(t, v)
        self.seen += 1
        if (self.seen - 1) % self.step >= self.size:
            self.expired += 1
            return []
        self.kept.append((t, v))
        at = self.seen - self.size
        if at < 0 or at % self.step:
            return []
        return [self.span(self.kept[-self.size :])]

    def advance_timed(self, t, v):
        spans = self.close_timed(t)
        self.last = t
        micro = round(t * 1e6)
        if micro % self.step >= self.size:
            self.expired += 1
        else:
            self.kept.append((t, v))
        for number in range((micro - self.size) // self.step + 1, micro // self.step + 1):
            self.open.setdefault(number, []).append((t, v))
        return spans

    def close_timed(self, t):
        spans = []
        for number in sorted(self.open):
            end = number * self.step + self.size
            if end <= round(t * 1e6):
                spans.append(self.span(self.open.pop(number)))
                self.closed = end / 1e6
        return spans

    def advance_session(self, t, v):
        spans = []
        if self.session:
            gap = t - self.session[-1][0] > self.w.gap
            long = self.w.size.seconds and t - self.session[0][0] >= self.w.size.seconds
            if gap or long:
                spans.append(self.span(self.session))
                self.session = []
        self.session.append((t, v))
        self.kept.append((t, v))
        if len(self.session) == self.w.size.readings:
            spans.append(self.span(self.session))
            self.session = []
        return spans

    def due(self, now):
        if self.arrived is None:
            return []
        spans = []
        if self.waiting and self.arrived + self.late_s <= now:
            self.floor = self.newest
            spans += self.release(lambda _: True)
        waited = now - self.arrived - self.late_s
        if self.w.kind == "session":
            if self.session and waited >= self.w.gap:
                spans.append(self.span(self.session))
                self.session = []
        elif self.w.size.seconds is not None and waited > 0 and self.last is not None:
            spans += self.close_timed(self.last + waited)
            if self.closed > self.last:
                self.floor = max(self.floor, self.closed)
        return spans

    @property
    def pending(self):
        return len(self.waiting) + len({v for _, v in self.kept} - self.covered)


def window(kind, size, **more) -> Window:
    return Window(kind=kind, size=size, **more)


WINDOWS = [
    window("tumbling", "3"),
    window("count", "1"),
    window("count", "70", rows=2),
    window("tumbling", "4", rows=6),
    window("sliding", "4", step="1"),
    window("sliding", "5", step="2", rows=3),
    window("sliding", "2", step="5"),
    window("tumbling", "10s", rows=3),
    window("sliding", "10s", step="3s", rows=4),
    window("sliding", "4s", step="10s", rows=2),
    window("sliding", "10s", step="10s", rows=1),
    window("session", "3", gap="4s", rows=3),
    window("session", "1", gap="4s", rows=1),
    window("session", "12s", gap="4s", rows=2),
    window("session", "100", gap="0s", rows=5),
]
READING = st.tuples(st.integers(0, 2), st.sampled_from([-7, -2, -1, 0, 0.5, 1, 1, 2, 3, 5, 30]))
LONG = st.lists(
    st.tuples(st.just(0), st.sampled_from([0, 0.5, 1])), min_size=70, max_size=140
)  # more at once than a buffer has room for
STEP = st.one_of(
    st.tuples(st.just("push"), st.lists(READING, max_size=12)),
    st.tuples(st.just("push"), LONG),
    st.tuples(st.just("wait"), st.sampled_from([0, 1, 2, 5, 40])),
    st.tuples(st.just("restart"), st.none()),
)


def seen(spans: Spans | None) -> list[tuple]:
    """(key, time, first feature of each row) per span."""
    if spans is None:
        return []
    assert spans.values.ndim == 3
    np.testing.assert_array_equal(spans.values[..., 1], -spans.values[..., 0])
    assert spans.keys.dtype == np.int32
    return [
        (int(k), float(t), v[:, 0].tolist())
        for k, t, v in zip(spans.keys, spans.times, spans.values, strict=True)
    ]


def by_key(spans: list[tuple]) -> list[tuple]:
    return sorted(spans, key=lambda span: span[0])  # stable: each key's in order


@settings(max_examples=700, deadline=None)
@given(
    st.sampled_from(WINDOWS),
    st.sampled_from([0.0, 0.0, 3.0]),
    st.lists(STEP, max_size=10),
)
def test_windows_are_what_the_plain_account_says_and_every_reading_is_accounted_for(
    win, late_s, steps
):
    windower = Windower(win, 2, late_s)
    plain = {key: Plain(win, late_s) for key in range(3)}
    now, event, number = 100.0, float(EPOCH), 0
    pushed = readings = rejected = expired = 0
    for what, detail in steps:
        expected: list[tuple] = []
        got: list[Spans] = []
        if what == "push":
            keys, times, values = [], [], []
            for key, ahead in detail:
                event, number = event + ahead, number + 1
                keys.append(key)
                times.append(event)
                values.append(float(number))
                expected += [(key, *s) for s in plain[key].push(event, float(number), now)]
            ids = np.array(values).reshape(-1, 1)
            rows = Rows(np.array(keys, np.int32), np.array(times), np.hstack([ids, -ids]))
            got.append(windower.push(rows, now))
            pushed += len(rows)
        elif what == "wait":
            now += detail
            expected = [(key, *s) for key in range(3) for s in plain[key].due(now)]
            spans = windower.due(now)
            got += [] if spans is None else [spans]
            due = windower.next_due()
            assert due is None or due > now
        else:
            raw = windower.snapshot()
            windower = Windower(win, 2, late_s)
            windower.restore(raw)
            for sensor in plain.values():  # silence counts anew
                sensor.arrived = sensor.arrived and now
            expected = [(key, *s) for key in range(3) for s in plain[key].due(now)]
            spans = windower.due(now)
            got += [] if spans is None else [spans]
        seen_spans = [span for spans in got for span in seen(spans)]
        if what == "push" and late_s == 0:
            assert seen_spans == expected
        else:
            assert by_key(seen_spans) == by_key(expected)
        readings += sum(spans.readings for spans in got)
        rejected += sum(sum(spans.rejected.values()) for spans in got)
        expired += sum(spans.expired for spans in got)
        assert pushed == readings + rejected + expired + windower.pending
        assert windower.pending == sum(sensor.pending for sensor in plain.values())
        assert rejected == sum(sensor.late for sensor in plain.values())
        assert expired == sum(sensor.expired for sensor in plain.values())


def rows(*times: float, key: int = 0) -> Rows:
    values = np.arange(len(times) * 2.0).reshape(-1, 2)
    return Rows(np.full(len(times), key, np.int32), EPOCH + np.array(times, float), values)


def test_without_a_window_each_row_is_a_span_however_late():
    windower = Windower(None, 2, 0.0)
    spans = windower.push(rows(3, 1, 2), 0.0)
    assert (spans.times - EPOCH).tolist() == [3, 1, 2]
    assert (spans.values.shape, spans.readings, windower.pending) == ((3, 2), 3, 0)
    assert windower.due(1e9) is None
    assert windower.next_due() is None
    fresh = Windower(None, 2, 0.0)
    fresh.restore(windower.snapshot())


@pytest.mark.parametrize(
    ("win", "late_s", "wait"),
    [
        (window("tumbling", "10s", rows=2), 0.0, 7.0),
        (window("tumbling", "10s", rows=2), 2.0, 9.0),
        (window("session", "9", gap="4s", rows=2), 0.0, 4.0),
        (window("session", "9", gap="4s", rows=2), 2.0, 6.0),
        (window("count", "2"), 2.0, 2.0),
    ],
)
def test_silence_closes_what_it_said_it_would_and_when(win, late_s, wait):
    windower = Windower(win, 2, late_s)
    windower.push(rows(2, 3), now=50.0)
    while (due := windower.next_due()) is not None and due < 50.0 + wait:
        assert windower.due(due) is None  # the held-back readings are let go; no span closes yet
    if due is not None:
        assert due == pytest.approx(50.0 + wait)
        assert windower.due(due - 0.01) is None
    spans = windower.due(50.0 + wait)
    assert spans is not None
    assert (spans.readings, spans.times.tolist()) == (2, [EPOCH + 3.0])
    assert windower.next_due() is None
    assert windower.due(1e6) is None


def test_what_arrives_for_a_span_that_silence_closed_is_late():
    windower = Windower(window("tumbling", "10s", rows=2), 2, 0.0)
    windower.push(rows(3), now=0.0)
    assert windower.due(7.0) is not None
    assert windower.push(rows(9.9), now=7.5).rejected == {"late": 1}
    assert windower.push(rows(10), now=8.0).rejected == {}


@pytest.mark.parametrize("at_once", [63, 64, 65, 128, 192, 1000])
def test_many_readings_at_once_make_the_spans_they_make_one_by_one(at_once):
    together, apart = (Windower(window("sliding", "2", step="1"), 2, 0.0) for _ in range(2))
    many = rows(*range(at_once))
    spans = together.push(many, 0.0)
    single = [
        apart.push(Rows(many.keys[i : i + 1], many.times[i : i + 1], many.values[i : i + 1]), 0.0)
        for i in range(at_once)
    ]
    np.testing.assert_array_equal(spans.values, np.concatenate([s.values for s in single]))
    assert len(spans) == at_once - 1


def test_values_have_the_type_asked_for():
    windower = Windower(window("count", "2"), 2, 0.0, np.float32)
    assert windower.push(rows(1, 2), 0.0).values.dtype == np.float32


def test_windows_nobody_could_hold_are_refused():
    with pytest.raises(MisfitError, match="shorter"):
        Windower(window("count", "1000000"), 4096, 0.0)
    with pytest.raises(UnfitError, match="longer"):
        Windower(window("sliding", "1h", step="100ms", rows=4), 2, 0.0)


def test_the_state_of_another_window_is_refused():
    one, other = (Windower(window("count", size), 2, 0.0) for size in ("2", "3"))
    for raw in (other.snapshot(), b"", b"junk", one.snapshot()[:-3]):
        with pytest.raises(RefusedError):
            one.restore(raw)


def test_a_flood_that_waits_is_let_go_and_still_counted():
    windower = Windower(window("count", "1000"), 1, 60.0)
    count = 300_000
    flood = Rows(np.zeros(count, np.int32), np.full(count, float(EPOCH)), np.zeros((count, 1)))
    spans = windower.push(flood, 0.0)
    assert (len(spans), spans.readings, windower.pending) == (300, 300_000, 0)
    assert windower.push(_one(EPOCH - 1.0), 0.0).rejected == {"late": 1}


def _one(time: float) -> Rows:
    return Rows(np.zeros(1, np.int32), np.array([time]), np.zeros((1, 1)))
