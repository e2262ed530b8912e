"""Open windows, held values and carried state go on after a crash at any point, exactly.

A reference run without a crash says what has to come out; the crashed run is given again what no
commit had accounted for, as a broker does, and must end with the same scores and the same account.
"""

from dataclasses import dataclass, field

import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.blocks import Block, Keys
from agent.ports import Burst, TensorSpec
from agent.runtime.accounts import Account
from agent.runtime.holds import Holds
from agent.runtime.limits import Limits
from agent.runtime.scoring import Scoring
from agent.runtime.seats import ready
from agent.runtime.shares import Shares
from tests.world.river import manifest, ref
from tests.world.scripted import ListSource, ScriptedSession

HOLDS = {"features": {"names": ["v", "w"], "missing": ["reject", "hold"]}}
WINDOWS = {
    "tumbling": {"window": {"kind": "tumbling", "size": "3"}},
    "sliding": {"window": {"kind": "sliding", "size": "4", "step": "1"}},
    "skipping": {"window": {"kind": "sliding", "size": "2", "step": "3"}},
    "timed": {"window": {"kind": "tumbling", "size": "5s", "rows": 4}},
    "session": {"window": {"kind": "session", "size": "9", "gap": "4s", "rows": 3}},
    "held": HOLDS,
    "held in windows": {**HOLDS, "window": {"kind": "tumbling", "size": "3"}},
    "state": {"state": {"h": "k"}},
    "state of windows": {"state": {"h": "k"}, "window": {"kind": "tumbling", "size": "2"}},
}


@dataclass
class Store:
    """What is durable."""

    log_bytes: int  # of steps, before all is stored anew
    account: bytes | None = None
    rows: dict = field(default_factory=dict)
    scores: list = field(default_factory=list)
    accepted: int = 0  # bursts, from the first on


def session(kind):
    """Scores the sum of all it is given: of every reading in a window, and of what came before."""
    width = 2 if "features" in kind else 1
    rows = 0
    if "window" in kind:
        rows = manifest(**kind).window.length
    shape = (None, width) if not rows else (None, rows, width)
    inputs = [TensorSpec("x", "float32", shape)]
    outputs = [TensorSpec("y", "float32", (None, 1))]
    if "state" in kind:
        inputs.append(TensorSpec("h", "float32", (None, 1)))
        outputs.append(TensorSpec("k", "float32", (None, 1)))

    def run(given):
        total = given[0].reshape(len(given[0]), -1).sum(axis=1, keepdims=True)
        total = total + (given[1] if len(given) > 1 else 0)
        return [total.astype(np.float32)] * len(outputs)

    return ScriptedSession(ref(1), inputs=inputs, outputs=outputs, run=run)


class Life:
    """One process: from what is durable, to its end."""

    def __init__(self, kind, store, late_s=0.0, *, redelivered=True):
        self.kind, self.store, self.late_s = kind, store, late_s
        self.holds = Holds()
        self.source = ListSource()
        account, shares = Account(), Shares()
        if store.account is not None:
            account = Account.restored(store.account, redelivered=redelivered)
            shares = Shares.restored(store.account) if redelivered else shares
        assert account.counts().balanced
        self.scoring = Scoring(
            model="m",
            stream="s",
            topic="t",
            epoch=1,
            keys=Keys(),
            account=account,
            shares=shares,
            limits=Limits(rows_max=4),
            released=lambda _: None,
            lost=lambda *_: None,
        )
        self.scoring.carrying.log_bytes_min = store.log_bytes
        self.scoring.carrying.load(sorted(store.rows.items()))
        self.session = session(kind)
        self.scoring.swap(ready(manifest(**kind), self.session, late_s))
        assert account.counts().balanced

    def push(self, readings, now):
        """A burst: (sensor, event time, value, second value or nan) each."""
        keys = np.array([self.scoring.keys.index(k) for k, *_ in readings], np.int32)
        times, v, w = (np.array([r[i] for r in readings], np.float64) for i in (1, 2, 3))
        hold = self.holds.open(self.source, Burst("s", [b"x"] * len(readings), now))
        block = Block(keys, times, {"v": v, "w": w}, now)
        self.scoring.push(block, hold, now)
        hold.parts -= 1

    def turn(self, now, answers):
        self.session.answer(answers)
        scoring = self.scoring
        for seat in scoring.seats():
            scoring.collect(seat, now)
        records = scoring.emit(now, 0.0)
        scoring.due(now)
        scoring.pump(now)
        self.commit(records)

    def commit(self, records):
        """All of it or nothing, as the outbox does it."""
        settled = self.holds.settled()
        row, account = self.scoring.carried(), self.scoring.stored()
        if row is not None:
            assert account is not None
            rows = {} if row.number == 0 else self.store.rows
            assert row.number == len(rows)
            self.store.rows = rows | ({row.number: row.body} if row.body else {})
        self.store.account = account or self.store.account
        for record in records:
            body = orjson.loads(record.payload)
            assert body["seq"] == len(self.store.scores)
            self.store.scores += zip(body["key"], body["time"], body["score"], strict=True)
        self.store.accepted += len(settled)

    def finish(self, now):
        for _ in range(500):
            if self.scoring.idle:
                return
            self.turn(now, 1)
        raise AssertionError("it never comes to rest")

    def close(self):
        self.session.close()
        self.source.close()


def counted(life):
    account = life.scoring.account
    return account.readings, account.scored, account.rejected, account.expired, account.held


VALUES = st.integers(1, 99)
READING = st.tuples(
    st.sampled_from("abc"), st.integers(-2, 4), VALUES, st.one_of(st.just(float("nan")), VALUES)
)
BURST = st.tuples(st.just("burst"), st.lists(READING, min_size=1, max_size=6))
TURN = st.tuples(st.just("turn"), st.integers(0, 3))
SILENCE = st.tuples(st.just("silence"), st.integers(1, 6))
STORY = st.lists(st.one_of(BURST, TURN, SILENCE), min_size=3, max_size=25)


@pytest.mark.parametrize("kind", WINDOWS.values(), ids=WINDOWS)
@settings(max_examples=40, deadline=None)
@given(story=STORY, data=st.data())
def test_a_crash_at_any_point_changes_neither_scores_nor_account(kind, story, data):
    """[delivery-5.1] Also with the whole stored anew every few steps."""
    crash = data.draw(st.integers(0, len(story)), label="crash before")
    again = data.draw(st.booleans(), label="a second crash right after")
    late_s = data.draw(st.sampled_from([0.0, 3.0]), label="late_s") if "window" in kind else 0.0
    if "features" in kind:  # values are held durably once a reading has lacked one
        story, crash = [("burst", [("c", 0, 1, float("nan"))]), *story], crash + 1
    log_bytes = data.draw(st.sampled_from([1, 10**6]), label="stored anew after")
    whole, crashed = Store(log_bytes), Store(log_bytes)
    told = run(kind, whole, story, late_s, None, again=False)
    assert run(kind, crashed, story, late_s, crash, again=again) == told
    assert crashed.scores == whole.scores


def run(kind, store, story, late_s, crash, *, again):
    """The whole story, with a crash before step `crash`; returns the account at its end.

    Every silence is waited out to its end before the crash can come: what time has closed cannot
    come again, and when the device is off nobody's silence is counted.
    """
    life = Life(kind, store, late_s)
    bursts, now, event = [], 50.0, 1000.0
    for n, (what, more) in enumerate(story):
        if n == crash:
            now = 50.0
            life = reborn(life, bursts, now, times=1 + again)
        if what == "burst":
            event += 1
            bursts.append([(k, event + dt, float(v), float(w)) for k, dt, v, w in more])
            life.push(bursts[-1], now)
            life.turn(now, 0)
        elif what == "turn":
            life.turn(now, more)
        else:
            now += 100.0
            event += more
            life.finish(now)
            life.turn(now, 0)
            life.finish(now)
    if crash is not None and crash >= len(story):
        life = reborn(life, bursts, now, times=1 + again)
    life.finish(now)
    told = counted(life)
    life.close()
    return told


def reborn(life, bursts, now, *, times):
    """Another process, by another clock, that is given again what was not accepted."""
    for _ in range(times):
        life.close()
        life = Life(life.kind, life.store, life.late_s)
        life.turn(now, 0)  # from here on silence is counted
        for burst in bursts[life.store.accepted :]:
            life.push(burst, now)
            life.turn(now, 0)
    return life


SESSIONS = WINDOWS["session"]
READINGS = [("a", 1000.0, 1.0, 2.0), ("b", 1000.0, 3.0, 4.0)]


def test_a_window_that_silence_had_closed_is_open_again_where_its_score_was_not_durable():
    store = Store(10**6)
    life = Life(SESSIONS, store)
    life.push(READINGS, 1.0)
    life.turn(1.0, 0)
    life.turn(100.0, 0)  # closed and on its way
    assert (life.scoring.account.flying, life.scoring.account.held) == (2, 0)
    life.close()
    life = Life(SESSIONS, store)
    assert counted(life) == (2, 0, {}, 0, 2)
    life.turn(1.0, 0)  # silence begins anew, by another clock
    life.finish(5.5)
    life.turn(5.5, 0)
    life.finish(5.5)
    assert counted(life) == (2, 2, {}, 0, 0)
    life.close()


@pytest.mark.parametrize("redelivered", [True, False])
def test_readings_in_windows_that_another_version_does_not_make_are_expired(redelivered):
    store = Store(10**6)
    life = Life(WINDOWS["tumbling"], store)
    life.push(READINGS, 1.0)
    life.turn(1.0, 0)
    life.close()
    life = Life(WINDOWS["sliding"], store, redelivered=redelivered)
    assert counted(life) == (2, 0, {}, 2, 0)
    life.push([("a", 1001.0 + n, 1.0, 2.0) for n in range(4)], 1.0)
    life.finish(1.0)
    assert counted(life) == (6, 4, {}, 2, 0)
    life.close()


def test_what_the_version_before_had_scored_is_not_counted_twice_after_a_restart_either():
    """[delivery-5.1] The windows were filled beside it, and are not full yet."""
    store = Store(10**6)
    life = Life({}, store)
    beside = session(WINDOWS["tumbling"])
    heir = ready(manifest(**WINDOWS["tumbling"]), beside, 0.0)
    life.scoring.beside.begin_shadow(heir, heir, 1.0)
    life.push([("a", 1000.0, 1.0, 2.0), ("a", 1001.0, 1.0, 2.0)], 1.0)
    life.finish(1.0)
    life.scoring.swap(heir)
    life.turn(1.0, 0)
    assert counted(life) == (2, 2, {}, 0, 0)
    life.close()
    beside.close()
    life = Life(WINDOWS["tumbling"], store)
    life.push([("a", 1002.0, 1.0, 2.0)], 1.0)
    life.finish(1.0)
    assert counted(life) == (3, 3, {}, 0, 0)
    assert store.scores[-1] == ("a", 1002.0, 3.0)
    life.close()


@pytest.mark.parametrize("damage", ["cut", "missing", "numbered otherwise"])
def test_a_story_that_is_not_whole_is_none_and_its_readings_are_expired(damage):
    store = Store(10**6)
    life = Life(WINDOWS["tumbling"], store)
    for n in range(3):
        life.push(READINGS[n % 2 :][:1], 1.0)
        life.turn(1.0, 0)
    life.close()
    if damage == "cut":
        store.rows[0] = store.rows[0][:-1]
    elif damage == "missing":
        del store.rows[1]
    else:
        store.rows = {n + 1: body for n, body in store.rows.items()}
    life = Life(WINDOWS["tumbling"], store)
    assert counted(life) == (3, 0, {}, 3, 0)
    life.close()


def one_by_one(store, count):
    """A life that has so many readings in a window, each stored by itself."""
    life = Life(WINDOWS["tumbling"], store)
    for n in range(count):
        life.push([("a", 1000.0 + n, 1.0, 2.0)], 1.0)
        life.turn(1.0, 0)
    life.close()


def test_a_story_that_breaks_off_in_the_middle_leaves_nothing_in_the_windows():
    store = Store(10**6)
    one_by_one(store, 2)
    store.rows[max(store.rows)] = msgspec.msgpack.encode([[], [b"\xc1"], b""])
    life = Life(WINDOWS["tumbling"], store)
    assert counted(life) == (2, 0, {}, 2, 0)
    life.push([("a", 1010.0 + n, 5.0, 2.0) for n in range(3)], 1.0)
    life.finish(1.0)
    assert [score for _, _, score in store.scores] == [15.0]
    assert counted(life) == (5, 3, {}, 2, 0)
    life.close()


def test_of_a_story_whose_end_is_missing_the_readings_that_are_not_in_it_are_expired():
    store = Store(10**6)
    one_by_one(store, 2)
    del store.rows[max(store.rows)]
    life = Life(WINDOWS["tumbling"], store)
    assert counted(life) == (2, 0, {}, 1, 1)
    life.push([("a", 1010.0 + n, 5.0, 2.0) for n in range(2)], 1.0)
    life.finish(1.0)
    assert counted(life) == (4, 3, {}, 1, 0)
    life.close()


def test_what_the_version_before_did_is_no_part_of_the_next_ones_story():
    """Also where it is stored with the swap, in one commit."""
    store = Store(10**6)
    life, other = Life(WINDOWS["tumbling"], store), session(WINDOWS["sliding"])
    life.push(READINGS, 1.0)
    life.scoring.swap(ready(manifest(**WINDOWS["sliding"]), other, 0.0))
    life.push(READINGS[:1], 1.0)
    life.turn(1.0, 0)
    assert counted(life) == (3, 0, {}, 2, 1)
    life.close()
    other.close()
    life = Life(WINDOWS["sliding"], store)
    assert counted(life) == (3, 0, {}, 2, 1)
    life.close()


def test_a_state_that_is_stored_is_not_stored_again_until_it_changes():
    """Whether by itself or with all others, which is done every few rows here."""
    store = Store(1)
    life = Life(WINDOWS["state"], store)
    numbers = set()
    for n in range(20):
        life.push([("a", 1000.0 + n, 1.0, 2.0)], 1.0)
        life.finish(1.0)
        rows = dict(store.rows)
        life.turn(1.0, 0)
        assert store.rows == rows
        numbers.add(max(rows))
    assert 0 in numbers
    assert len(numbers) > 1
    life.close()


def test_windows_of_other_features_are_not_gone_on_with():
    """What they hold was made by other rules."""
    store = Store(10**6)
    life = Life(WINDOWS["held in windows"], store)
    life.push(READINGS, 1.0)
    life.turn(1.0, 0)
    life.close()
    other = {**HOLDS["features"], "ranges": [[0, 50], [0, 50]]}
    life = Life({**WINDOWS["held in windows"], "features": other}, store)
    assert counted(life) == (2, 0, {}, 2, 0)
    life.close()


def test_a_value_that_came_after_one_restart_is_held_after_the_next():
    store, nan = Store(10**6), float("nan")
    for readings in (
        [("a", 1000.0, 1.0, 3.0), ("a", 1001.0, 1.0, nan)],
        [("a", 1002.0, 1.0, 7.0)],
        [("a", 1003.0, 1.0, nan)],
    ):
        life = Life(HOLDS, store)
        life.push(readings, 1.0)
        life.finish(1.0)
        life.turn(1.0, 0)
        life.close()
    assert [score for _, _, score in store.scores] == [4.0, 4.0, 8.0, 8.0]


def test_a_restart_by_itself_stores_nothing_anew():
    store = Store(10**6)
    one_by_one(store, 2)
    rows = dict(store.rows)
    life = Life(WINDOWS["tumbling"], store)
    life.turn(1.0, 0)
    assert store.rows == rows
    life.close()


def test_a_model_without_windows_states_and_held_values_stores_nothing():
    store = Store(10**6)
    life = Life({}, store)  # `missing` is hold, as by default; nothing is missing
    life.push(READINGS, 1.0)
    life.finish(1.0)
    assert store.rows == {}
    life.close()


def test_a_model_that_retires_leaves_nothing_behind():
    store = Store(10**6)
    life = Life(WINDOWS["tumbling"], store)
    life.push(READINGS, 1.0)
    life.turn(1.0, 0)
    assert store.rows
    life.scoring.swap(None)
    life.turn(1.0, 0)
    assert store.rows == {}
    assert counted(life) == (2, 0, {}, 2, 0)
    life.close()


def test_what_is_stored_stays_small_however_long_the_stream():
    store = Store(4096)
    life = Life(WINDOWS["sliding"], store)
    largest = 0
    for n in range(2000):
        life.push([("a", 1000.0 + n, 1.0, 2.0)], 1.0)
        life.finish(1.0)
        largest = max(largest, sum(map(len, store.rows.values())))
    assert largest < 16_384
    life.close()
