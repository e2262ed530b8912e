"""The lane on its own thread, with a real selector: what is read, and when it is acknowledged."""

import threading
import time
from itertools import pairwise

import pytest

from agent.runtime import lane
from agent.runtime.accounts import Account
from agent.runtime.lane import CYCLE_S, UNCOMMITTED_MAX, Lane
from agent.runtime.scoring import Limits, Scoring
from agent.runtime.seats import ready
from tests.world.hours import HandClock
from tests.world.memory import MemoryOutbox
from tests.world.river import manifest, ref
from tests.world.scripted import ListSource, ScriptedSession
from tests.world.still import intake
from tests.world.waiting import eventually


class Site:
    """A lane with one stream, one source, one model and an outbox."""

    def __init__(self, *, by_hand=False):
        self.clock = HandClock()
        self.box = MemoryOutbox(by_hand=by_hand)
        self.lane = Lane(self.clock, self.box)
        self.source = ListSource()
        self.intake = self.lane.intakes["s"] = intake("s")
        self.intake.decoder.want(["v"])
        self.account = Account()
        self.scoring = Scoring(
            model="m",
            stream="s",
            topic="t",
            epoch=1,
            keys=self.intake.decoder.keys,
            account=self.account,
            limits=Limits(),
            released=lambda _: None,
            lost=lambda _, seat, why: self.lost.append(why),
        )
        self.lost = []
        self.intake.scorings["m"] = self.scoring
        self.session = ScriptedSession(ref(1), quick=True)
        self.scoring.swap(ready(manifest(), self.session, 0.0))
        self.lane.add_source(self.source, ["s"])

    def ask(self, function):
        return self.lane.call(function).result(10)

    def settle(self):
        """Until the lane has been around a few times."""
        for _ in range(3):
            self.ask(lambda: None)

    def close(self):
        self.session.answer(99)
        self.box.by_hand = False
        self.box.commit()
        self.lane.stop(10)
        self.lane._wake_writer.close()
        if not self.lane._thread.ident:
            self.lane._wake_reader.close()
            self.lane._descriptors.close()
        self.source.close()
        self.session.close()
        self.box.close()


def reading(value):
    return b'{"k": "a", "v": %d}' % value


@pytest.fixture
def site():
    site = Site()
    site.lane.start()
    yield site
    site.close()


@pytest.fixture
def by_hand():
    site = Site(by_hand=True)
    site.lane.start()
    yield site
    site.close()


def test_readings_become_records_accounts_and_marks_in_one_entry(site):
    site.source.put(reading(1), reading(2), token=1, mark=b"m1")
    eventually(lambda: site.source.accepted == [1])
    entries = [entry for entry in site.box.entries if entry.records]
    (entry,) = entries
    assert [record.rows for record in entry.records] == [2]
    assert Account.restored(entry.accounts["s", "m"], redelivered=True).scored == 2
    assert entry.marks == {"s": b"m1"}


def test_nothing_is_acknowledged_before_it_is_durable(by_hand):
    """[delivery-1.2]"""
    site = by_hand
    site.source.put(reading(1), token=1)
    eventually(lambda: site.ask(lambda: site.lane._waiting))
    site.settle()
    assert site.source.accepted == []
    site.box.commit()
    eventually(lambda: site.source.accepted == [1])


def test_nothing_is_acknowledged_before_it_is_scored(site):
    site.session.quick = False
    site.source.put(reading(1), token=1)
    eventually(lambda: site.session.taken)
    site.settle()
    assert site.source.accepted == []
    site.ask(site.session.answer)
    eventually(lambda: site.source.accepted == [1])


def test_what_cannot_be_scored_is_acknowledged_once_that_is_written_down(site):
    site.source.put(b"not json", token=1)
    eventually(lambda: site.source.accepted == [1])
    assert site.box.accounts()["s", "m"]
    assert site.ask(lambda: dict(site.intake.rejected)) == {"malformed": 1}


def test_acknowledgements_are_in_the_order_of_arrival(site):
    for n in range(50):
        site.source.put(reading(n), token=n)
    eventually(lambda: len(site.source.accepted) == 50)
    assert site.source.accepted == list(range(50))


def test_while_its_stream_is_paused_a_source_is_not_read(site):
    site.ask(lambda: setattr(site.intake, "paused", True))
    site.source.put(reading(1), token=1)
    site.settle()
    assert site.source.reads == 0
    site.ask(lambda: setattr(site.intake, "paused", False))
    eventually(lambda: site.source.accepted == [1])


def test_while_a_version_is_being_loaded_readings_stay_with_the_source(site):
    site.ask(lambda: setattr(site.scoring, "restoring", True))
    site.source.put(reading(1), token=1)
    site.settle()
    assert site.source.reads == 0
    site.ask(lambda: setattr(site.scoring, "restoring", False))
    eventually(lambda: site.source.accepted == [1])


def test_a_disk_that_falls_behind_stops_the_reading_and_not_for_ever(by_hand):
    site = by_hand
    for n in range(UNCOMMITTED_MAX + 50):
        site.source.put(reading(n), token=n)
    eventually(lambda: site.ask(lambda: len(site.lane._waiting)) > UNCOMMITTED_MAX)
    site.settle()
    assert site.source.bursts
    site.box.by_hand = False
    site.box.commit()
    eventually(lambda: len(site.source.accepted) == UNCOMMITTED_MAX + 50)


def test_a_lost_worker_is_found_by_itself(site):
    site.session.quick = False
    site.source.put(reading(1), token=1)
    eventually(lambda: site.session.taken)
    site.session.die("signal 9")
    eventually(lambda: site.lost == ["signal 9"])
    assert site.source.accepted == []
    site.session.quick = True
    site.session.revive()
    site.ask(site.scoring.slot.seat.revived)
    eventually(lambda: site.source.accepted == [1])


def test_a_question_from_another_thread_is_answered_on_the_lanes(site):
    assert site.ask(threading.current_thread).name == "lane"
    with pytest.raises(ZeroDivisionError):
        site.ask(lambda: 1 / 0)
    assert site.lane.failed is None


def test_a_question_that_was_given_up_is_not_asked_and_harms_nobody(site):
    entered, leave, asked = threading.Event(), threading.Event(), []

    def hold():
        entered.set()
        leave.wait(10)

    held = site.lane.call(hold)
    entered.wait(10)
    given_up = site.lane.call(lambda: asked.append(1))
    assert given_up.cancel()
    assert not held.cancel()
    leave.set()
    site.settle()
    assert (asked, site.lane.failed) == ([], None)


def test_stopping_reads_no_more_and_ends_what_is_in_flight(by_hand):
    site = by_hand
    site.session.quick = False
    site.source.put(reading(1), token=1)
    eventually(lambda: site.session.taken)
    site.ask(site.session.answer)
    assert not site.lane.stop(0.01)
    assert site.source.closed
    site.box.by_hand = False
    site.box.commit()
    assert site.lane.stop(10)
    assert site.source.accepted == [1]
    assert site.box.depth()["records"] == 1
    assert site.lane.stop(10)  # again


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_a_turn_ends_the_lane_and_is_there_to_see(site):
    site.source.read = lambda _: 1 / 0
    site.source.put(reading(1))
    site.lane._thread.join(10)
    assert isinstance(site.lane.failed, ZeroDivisionError)
    with pytest.raises(RuntimeError, match="stopped"):
        site.lane.call(lambda: None)
    assert site.lane.stop(1)


def test_the_beat_goes_on_while_nothing_comes(site):
    site.clock.forward(5)
    site.settle()
    assert site.lane.beat == site.clock.monotonic()


def test_silence_closes_windows_by_itself(site):
    window = {"kind": "session", "size": "100", "gap": "5s", "rows": 2}
    told = manifest(window=window)
    session = ScriptedSession(ref(2), quick=True, window=2)
    site.ask(lambda: site.scoring.swap(ready(told, session, 0.0)))
    site.source.put(reading(7), token=1)
    eventually(lambda: site.source.accepted == [1])
    assert site.box.depth()["records"] == 0
    site.clock.forward(60)
    site.settle()
    eventually(lambda: site.box.depth()["records"] == 1)
    site.ask(lambda: site.scoring.swap(None))
    site.settle()
    session.close()


def test_readings_that_keep_coming_are_looked_at_with_rests_between(site):
    """By the hand clock none passes between reads: as busy as can be."""
    reads, source = [], site.source
    read = source.read

    def watched(readings_max):
        reads.append(time.monotonic())
        return read(readings_max)

    source.read = watched
    for value in range(20):
        before = len(reads)
        source.put(reading(value), token=value)
        eventually(lambda seen=before: len(reads) > seen)
    eventually(lambda: len(source.accepted) == 20)
    gaps = [after - before for before, after in pairwise(reads[2:])]
    assert min(gaps) >= CYCLE_S * 0.9


def test_a_reading_after_a_pause_is_looked_at_at_once(site):
    for value in range(3):
        site.clock.forward(1.0)
        site.source.put(reading(value), token=value)
        eventually(lambda upto=value: len(site.source.accepted) == upto + 1)
        assert site.ask(lambda: site.lane._rest_until) == 0.0


def busy(site, monkeypatch):
    """A lane that rests for long between two turns, having just begun to."""
    monkeypatch.setattr(lane, "CYCLE_S", 30.0)
    for value in (1, 2):  # by the hand clock no time passes between them
        before = site.source.reads
        site.source.put(reading(value), token=value)
        eventually(lambda seen=before: site.source.reads > seen)
    eventually(lambda: site.lane._rest_until > 0.0)


def test_answers_do_not_wait_for_the_end_of_a_rest(site, monkeypatch):
    site.session.quick = False
    busy(site, monkeypatch)
    assert site.box.depth()["records"] == 0
    site.session.answer(2)
    eventually(lambda: site.box.depth()["records"] == 2)


def test_a_call_ends_a_rest(site, monkeypatch):
    busy(site, monkeypatch)
    assert site.ask(lambda: True)


def test_what_a_turn_leaves_for_answers_that_do_not_come_is_written_down_all_the_same(
    site, monkeypatch
):
    site.session.quick = False
    busy(site, monkeypatch)
    site.settle()
    accounts = site.box.accounts()
    assert Account.restored(accounts["s", "m"], redelivered=False).readings == 2
