"""The uplink: in order, at least once, and no more often than a broken link makes necessary."""

import asyncio
from collections import Counter

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from agent.core.errors import RefusedError, UnavailableError
from agent.ports import Entry, Record
from agent.runtime.uplink import PAUSE_S, WINDOW, Uplink
from tests.world.hours import passing, quiet
from tests.world.memory import MemoryOutbox
from tests.world.scripted import ScriptedLink


def letter(gap):
    return Record("gap", b"%d %d %d" % (gap.first_seq, gap.last_seq, gap.rows), priority=0)


class Site:
    """An outbox with records 0, 1, 2, … and a link that a test breaks."""

    def __init__(self, records, bytes_max=2**20):
        self.box, self.link = MemoryOutbox(bytes_max), ScriptedLink()
        self.uplink = Uplink(self.box, self.link, letter)
        self.add(range(records))

    def add(self, numbers):
        records = [Record("t", b"%d" % n, 1, 1, "s", "m", n) for n in numbers]
        self.box.add(Entry(records))

    @property
    def arrived(self):
        return [int(payload) for topic, payload in self.link.published if topic == "t"]

    @property
    def gaps(self):
        return [payload.decode() for topic, payload in self.link.published if topic == "gap"]

    def run(self, *steps, seconds=60.0):
        async def main():
            task = asyncio.create_task(self.uplink.run())
            await quiet(seconds)
            for step in steps:
                step()
                await quiet(seconds)
            assert not task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        try:
            passing(main())
        finally:
            self.box.close()


def test_everything_arrives_once_and_in_order():
    site = Site(3 * WINDOW + 1)
    site.run()
    assert site.arrived == list(range(3 * WINDOW + 1))
    assert site.box.depth()["records"] == 0


def test_what_comes_later_is_sent_when_it_comes():
    site = Site(1)
    site.run(lambda: site.add([1, 2]), lambda: site.add([3]))
    assert site.arrived == [0, 1, 2, 3]


def test_nothing_is_sent_while_the_link_is_down():
    site = Site(2)
    site.link.up.clear()
    site.run(lambda: None, site.link.up.set)
    assert site.arrived == [0, 1]


def test_no_more_than_a_window_is_under_way():
    site, out, most = Site(5 * WINDOW), Counter(), []

    def watch(topic, payload):
        out["now"] += 1
        most.append(out["now"])
        asyncio.get_running_loop().call_soon(lambda: out.subtract(["now"]))

    site.link.refuse = watch
    site.run()
    assert max(most) <= WINDOW
    assert len(site.arrived) == 5 * WINDOW


@pytest.mark.parametrize("broken", [0, 5, WINDOW - 1, WINDOW, WINDOW + 5, 3 * WINDOW - 1])
def test_one_that_fails_in_the_middle_of_a_window_is_sent_again_and_the_others_are_not(broken):
    site, failures = Site(3 * WINDOW), []

    def refuse(topic, payload):
        if int(payload) == broken and len(failures) < 3:
            failures.append(payload)
            return UnavailableError("lost")
        return None

    site.link.refuse = refuse
    site.run()
    assert len(failures) == 3
    assert Counter(site.arrived) == Counter(range(3 * WINDOW))
    assert site.box.depth()["records"] == 0


def test_one_that_never_arrives_makes_no_endless_repeats_of_the_others():
    site = Site(2 * WINDOW)
    site.link.refuse = lambda _, payload: UnavailableError("no") if payload == b"5" else None
    site.run(seconds=1000 * PAUSE_S)
    assert Counter(site.arrived) == Counter(n for n in range(2 * WINDOW) if n != 5)
    assert site.box.depth()["records"] == 1


def test_a_link_lost_in_the_middle_of_a_window_loses_nothing():
    site, down = Site(2 * WINDOW), []

    def refuse(topic, payload):
        if int(payload) == 7:
            down.append(True)
        return UnavailableError("lost") if down and len(down) < 3 else None

    site.link.refuse = refuse
    site.run()
    assert site.arrived == list(range(2 * WINDOW))


def test_after_a_failure_the_broker_is_not_hammered():
    site, tries = Site(1), []

    def refuse(topic, payload):
        tries.append(payload)
        return UnavailableError("quota")

    site.link.refuse = refuse
    site.run(seconds=100 * PAUSE_S)
    assert 90 <= len(tries) <= 101


def test_what_the_broker_will_never_take_is_dropped_alone_and_counted():
    site = Site(WINDOW + 4)
    site.link.refuse = lambda _, p: RefusedError("too large", 413) if p in {b"2", b"17"} else None
    site.run()
    assert site.arrived == [n for n in range(WINDOW + 4) if n not in {2, 17}]
    assert site.box.depth()["dead_letters"] == 2
    assert site.box.depth()["records"] == 0


def test_the_rows_of_a_dead_letter_are_told_as_a_gap():
    """[delivery-2.5]"""
    site = Site(WINDOW + 4)
    site.link.refuse = lambda _, p: RefusedError("too large", 413) if p in {b"2", b"3"} else None
    site.run()
    assert site.gaps == ["2 3 2"]
    assert site.box.gaps() == []


def test_gaps_are_told_before_anything_else_and_until_the_broker_has_them():
    """[delivery-2.4]"""
    site, tries = Site(20, bytes_max=500), []
    kept = site.box.depth()["records"]

    def refuse(topic, payload):
        tries.append(topic)
        return UnavailableError("quota") if len(tries) < 3 else None

    site.link.refuse = refuse
    site.run()
    assert 0 < kept < 20
    assert tries[:4] == ["gap", "gap", "gap", "t"]
    assert site.gaps == [f"0 {19 - kept} {20 - kept}"]
    assert site.arrived == list(range(20 - kept, 20))


def test_a_gap_the_broker_will_not_hear_of_holds_nothing_up():
    site = Site(4)
    site.link.refuse = lambda t, p: RefusedError("no") if t == "gap" or p == b"1" else None
    site.run()
    assert site.arrived == [0, 2, 3]
    assert site.box.gaps() == []


def test_events_overtake_scores():
    """[delivery-2.3]"""
    site = Site(3 * WINDOW)
    site.link.up.clear()
    site.run(
        lambda: site.box.add(Entry([Record("t", b"999", priority=0)])),
        site.link.up.set,
    )
    assert site.arrived == [999, *range(3 * WINDOW)]


def test_a_dead_letter_beside_a_lost_one_is_counted_once():
    site, lost = Site(4), []

    def refuse(topic, payload):
        if payload == b"2":
            return RefusedError("too large", 413)
        if payload == b"1" and len(lost) < 4:
            lost.append(payload)
            return UnavailableError("lost")
        return None

    site.link.refuse = refuse
    site.run()
    assert site.box.depth()["dead_letters"] == 1
    assert sorted(site.arrived) == [0, 1, 3]


@given(st.lists(st.booleans(), max_size=120), st.integers(1, 3 * WINDOW))
@settings(max_examples=50)
def test_whatever_fails_everything_arrives_and_a_record_twice_only_if_its_answer_was_lost(
    fails, records
):
    site, turns = Site(records), iter(fails)

    def refuse(topic, payload):
        return UnavailableError("lost") if next(turns, False) else None

    site.link.refuse = refuse
    site.run(seconds=1000.0)
    assert Counter(site.arrived) == Counter(range(records))


def scored(first, rows):
    body = {"schema": 1, "model": "m", "release": 1, "stream": "s", "epoch": 1, "seq": first}
    columns = {"key": ["k"] * rows, "time": [1.0] * rows, "score": [0.5] * rows}
    return Record("scores/m", orjson.dumps(body | columns), rows, 1, "s", "m", first)


def rows_of(published):
    return [
        document["seq"] + n
        for topic, payload in published
        if topic == "scores/m"
        for document in [orjson.loads(payload)]
        for n in range(len(document["key"]))
    ]


def test_small_batches_that_wait_together_leave_as_one_message():
    """[delivery-2.10]"""
    site = Site(0)
    site.box.add(Entry([scored(3 * n, 3) for n in range(WINDOW)]))
    site.run()
    assert len(site.link.published) == 1
    assert rows_of(site.link.published) == list(range(3 * WINDOW))
    assert site.box.depth()["records"] == 0


def test_what_is_refused_together_is_tried_apart():
    site = Site(0)
    whole = [scored(n, 1) for n in range(4)]
    site.box.add(Entry(whole))
    bad = whole[2].payload

    def refuse(topic, payload):
        together = topic != "gap" and len(orjson.loads(payload)["key"]) > 1
        return RefusedError("too large", 413) if together or payload == bad else None

    site.link.refuse = refuse
    site.run()
    assert rows_of(site.link.published) == [0, 1, 3]
    assert site.box.depth()["dead_letters"] == 1
    assert site.gaps == ["2 2 1"]


def test_what_is_lost_together_is_sent_again():
    site, tries = Site(0), []
    site.box.add(Entry([scored(n, 1) for n in range(4)]))

    def refuse(_, payload):
        tries.append(payload)
        return UnavailableError("lost") if len(tries) < 3 else None

    site.link.refuse = refuse
    site.run()
    assert rows_of(site.link.published) == [0, 1, 2, 3]
    assert site.box.depth()["records"] == 0


def test_what_is_no_score_leaves_by_itself_in_its_turn():
    site = Site(0)
    site.box.add(Entry([scored(0, 2), Record("t", b"7", 1, 1, "s", "m", 0), scored(2, 2)]))
    site.run()
    assert rows_of(site.link.published) == [0, 1, 2, 3]
    assert site.arrived == [7]


def test_rows_that_go_to_nobody_are_counted_and_said_once_a_spell():
    """[delivery-2.11]"""
    site = Site(3)
    site.link.heard = lambda topic: len(site.link.published) > 3
    with capture_logs() as said:
        site.run(lambda: site.add([3, 4]))
    assert site.arrived == [0, 1, 2, 3, 4]
    assert site.uplink.unheard == 3
    assert [(line["log_level"], line["topic"]) for line in said] == [
        ("warning", "t"),
        ("info", "t"),
    ]


def test_what_carries_no_rows_may_go_to_nobody_without_a_word():
    site = Site(0)
    site.link.heard = lambda topic: False
    site.box.add(Entry([Record("t", b"7", 0, 0)]))
    with capture_logs() as said:
        site.run()
    assert (site.arrived, site.uplink.unheard, said) == ([7], 0, [])
