"""Exactly once, against a model of a broker: lost acknowledgements, lost links, crashes."""

from collections import deque

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.adapters.mqtt.ledger import KEY_BYTES, key, pack, unpack
from agent.adapters.mqtt.packets import Scan, scan
from agent.adapters.mqtt.sorting import Sorter
from agent.core.errors import RefusedError
from tests.world.hostile import publish

STREAMS = [("all", "plant/#", 1), ("pump", "plant/pump", 1), ("fan", "plant/fan", 1)]
TOPICS = {b"plant/pump": ("all", "pump"), b"plant/fan": ("all", "fan"), b"plant/x": ("all",)}


class BrokerModel:
    """A session: what is queued, and what was sent and not acknowledged, by packet id."""

    def __init__(self, *, plain, window):
        self.plain, self.window = plain, window
        self.queued, self.sent, self.unread = deque(), {}, deque()
        self.last_mid = 0
        self.wire = deque()  # what is on its way to the client

    def fill(self):
        while self.queued and len(self.sent) < self.window:
            # The smallest free id: the broker that uses ids again soonest is the hardest.
            mid = next(i for i in range(1, 65536) if i not in self.sent)
            self.sent[mid] = self.queued.popleft()
            self.wire.append((mid, self.sent[mid], False))

    def reconnect(self):
        self.wire.clear()
        self.unread.clear()
        again = dict(self.sent)
        if self.plain:
            self.queued.extendleft(reversed(again.values()))
            self.sent.clear()
        else:
            self.wire.extend((mid, message, True) for mid, message in again.items())
        self.fill()

    def take(self):
        """Read what the client has written: PUBACKs, and None for PINGREQ."""
        ponged = 0
        while self.unread:
            mid = self.unread.popleft()
            if mid is None:
                ponged += 1
            else:
                del self.sent[int.from_bytes(mid)]
        self.fill()
        return ponged


class ExactlyOnce(RuleBasedStateMachine):
    @initialize(plain=st.booleans(), window=st.integers(1, 5))
    def begin(self, plain, window):
        self.broker = BrokerModel(plain=plain, window=window)
        self.number = 0
        self.published = {name: [] for name, _, _ in STREAMS}
        self.durable = {name: [] for name, _, _ in STREAMS}
        self.marks = {}
        self.start()

    def start(self):
        self.sorter = Sorter(STREAMS, plain=self.broker.plain)
        for mark in self.marks.values():
            self.sorter.resume(mark)
        self.lane = deque()  # bursts read and not accounted for
        self.connect()

    def connect(self):
        self.broker.reconnect()
        self.sorter.reconnected(kept=True)
        self.barriers = deque()

    def write(self, mids, done):
        if mids:
            self.broker.unread.extend([*mids, None])
            self.barriers.append(done)
        else:
            self.sorter.confirm(done)

    @rule(topic=st.sampled_from(sorted(TOPICS)))
    def a_sensor_publishes(self, topic):
        self.number += 1
        payload = b"%d" % self.number
        self.broker.queued.append((topic, payload))
        for stream in TOPICS[topic]:
            self.published[stream].append(payload)
        self.broker.fill()

    @precondition(lambda self: self.broker.wire)
    @rule(most=st.integers(1, 6))
    def the_source_reads(self, most):
        found = Scan()
        for _ in range(min(most, len(self.broker.wire))):
            mid, (topic, payload), dup = self.broker.wire.popleft()
            raw = publish(topic, payload, mid=mid, dup=dup)
            scan(raw, found, is_v5=True, packet_bytes_max=1000)
        bursts, acks, settled = self.sorter.sort(found, 0.0)
        self.write(acks, settled)
        self.lane.extend(bursts)

    @precondition(lambda self: self.lane)
    @rule(most=st.integers(1, 4), heard=st.booleans())
    def the_lane_commits(self, most, heard):
        """`heard`: the lane lives to acknowledge what it committed."""
        bursts = [self.lane.popleft() for _ in range(min(most, len(self.lane)))]
        for burst in bursts:
            self.durable[burst.stream] += burst.payloads
            self.marks[burst.stream] = burst.mark
        if heard:
            self.write(*self.sorter.accept([b.token for b in bursts]))
        else:
            self.start()

    @rule()
    def the_broker_reads(self):
        for _ in range(self.broker.take()):
            if self.barriers:
                self.sorter.confirm(self.barriers.popleft())

    @rule(some_arrived=st.booleans())
    def the_link_is_lost(self, some_arrived):
        if some_arrived:
            self.broker.take()  # the acknowledgements got through, the pong did not
        self.connect()

    @rule(some_arrived=st.booleans())
    def the_agent_is_killed(self, some_arrived):
        if some_arrived:
            self.broker.take()
        self.start()

    @invariant()
    def nothing_is_repeated_skipped_or_out_of_order(self):
        for stream, payloads in self.durable.items():
            assert payloads == self.published[stream][: len(payloads)]

    def teardown(self):
        """In the end every message is there, and the broker holds none."""
        for _ in range(200):
            if not (self.broker.sent or self.broker.queued or self.broker.wire or self.lane):
                break
            while self.broker.wire:
                self.the_source_reads(6)
            while self.lane:
                self.the_lane_commits(4, heard=True)
            self.the_broker_reads()
        self.nothing_is_repeated_skipped_or_out_of_order()
        assert self.durable == self.published
        assert not self.broker.sent
        ledgers = self.sorter._ledgers
        assert self.broker.plain or all(not ledger._tokens for ledger in ledgers)


ExactlyOnce.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestExactlyOnce = ExactlyOnce.TestCase


def sort(sorter, *packets):
    found = Scan()
    scan(b"".join(packets), found, is_v5=True, packet_bytes_max=10_000)
    return sorter.sort(found, 1.0)


def keys_of(burst):
    keys = unpack(burst.mark)[2]
    return [keys[at : at + KEY_BYTES] for at in range(0, len(keys), KEY_BYTES)]


def test_a_mark_stays_small_when_the_broker_confirms():
    sorter = Sorter([("s", "t", 1)])
    for i in range(1, 1000):
        (burst,), _, _ = sort(sorter, publish(b"t", b"%d" % i, mid=i))
        mids, done = sorter.accept([burst.token])
        assert mids == [i.to_bytes(2)]
        sorter.confirm(done)
        assert len(burst.mark) < 30


def test_a_packet_id_that_is_used_again_drops_out_of_the_mark():
    sorter = Sorter([("s", "t", 1)])
    (first,), _, _ = sort(sorter, *(publish(b"t", b"%d" % i, mid=i) for i in (1, 2, 3)))
    sorter.accept([first.token])
    sorter.reconnected(kept=True)
    (second,), _, _ = sort(sorter, *(publish(b"t", b"new", mid=i) for i in (1, 2)))
    assert len(keys_of(second)) == 3
    assert keys_of(first)[2] in keys_of(second)


def test_what_is_open_stands_in_the_mark_once_after_a_reconnect():
    sorter = Sorter([("s", "t", 1)])
    sort(sorter, publish(b"t", b"old", mid=1))
    sorter.reconnected(kept=True)
    (burst,), _, _ = sort(sorter, publish(b"t", b"new", mid=2))
    assert len(keys_of(burst)) == 2


def test_a_plain_brokers_replay_ends_with_the_first_message_that_is_new():
    sorter = Sorter([("s", "t", 1)], plain=True)
    (burst,), _, _ = sort(sorter, publish(b"t", b"0", mid=1), publish(b"t", b"1", mid=2))
    sorter.accept([burst.token])
    sorter.reconnected(kept=True)
    bursts, acks, _ = sort(
        sorter,
        publish(b"t", b"1", mid=1),
        publish(b"t", b"2", mid=2),
        publish(b"t", b"0", mid=3),  # a sensor may well say the same again
    )
    assert [b.payloads for b in bursts] == [[b"2", b"0"]]
    assert acks == [b"\0\x01"]


def test_a_lost_session_forgets_what_its_packet_ids_meant():
    sorter = Sorter([("s", "t", 1)])
    (burst,), _, _ = sort(sorter, publish(b"t", b"old", mid=1))
    sorter.accept([burst.token])
    sorter.reconnected(kept=False)
    (again,), acks, _ = sort(sorter, publish(b"t", b"old", mid=1, dup=True))
    assert again.payloads == [b"old"]
    assert acks == []


def test_a_topic_that_no_stream_wants_is_acknowledged_and_counted():
    sorter = Sorter([("s", "t", 1)])
    assert sort(sorter, publish(b"other", b"x", mid=9)) == ([], [b"\0\x09"], [])
    assert sorter.strays == 1


def test_a_retained_message_is_taken_when_the_session_is_new_and_not_at_reconnects():
    sorter = Sorter([("s", "t", 1)])
    sorter.reconnected(kept=False)
    assert sort(sorter, publish(b"t", b"x", retain=True))[0][0].payloads == [b"x"]
    sorter.reconnected(kept=True)
    assert sort(sorter, publish(b"t", b"x", retain=True))[0] == []
    assert sorter.stale == 1


def test_the_same_payload_on_another_topic_is_another_message():
    assert key(b"\0\1", b"a", b"x") != key(b"\0\1", b"b", b"x")


def test_what_is_too_long_is_counted_apart_from_what_came_with_it():
    sorter, found = Sorter([("s", "t", 1)]), Scan()
    sent = ((1, b"x"), (2, bytes(500)), (3, b"y"), (4, bytes(500)))
    raw = b"".join(publish(b"t", payload, mid=mid) for mid, payload in sent)
    for _ in range(3):  # what is behind one is for the next look
        raw = raw[scan(raw, found, is_v5=True, packet_bytes_max=100)[0] :]
    bursts, acks, _ = sorter.sort(found, 1.0)
    assert [(b.payloads, b.oversize) for b in bursts] == [([b"x", b"y"], 0), ((), 2)]
    assert acks == []
    assert sorter.accept([b.token for b in bursts])[0] == [b"\0\1", b"\0\3", b"\0\2", b"\0\4"]


def test_what_comes_again_is_counted_and_known_once():
    sorter = Sorter([("s", "t", 1)])
    (burst,), _, _ = sort(sorter, publish(b"t", b"x", mid=1))
    sorter.accept([burst.token])
    sorter.reconnected(kept=True)
    assert sort(sorter, publish(b"t", b"x", mid=1, dup=True))[:2] == ([], [b"\0\1"])
    assert sorter.repeats == 1
    (again,), _, _ = sort(sorter, publish(b"t", b"x", mid=1, dup=True))
    assert again.payloads == [b"x"], "its id has been used since"


def test_the_ids_of_a_burst_are_those_of_each_message_or_none():
    sorter = Sorter([("s", "t", 1)])
    (burst,), _, _ = sort(sorter, publish(b"t", b"x", mid=1), publish(b"t", b"y", mid=2))
    assert len(burst.ids) == 2 * KEY_BYTES
    (burst,), _, _ = sort(sorter, publish(b"t", b"x", mid=3), publish(b"t", b"y"))
    assert burst.ids == b""


def test_qos_0_needs_neither_token_nor_mark():
    (burst,), acks, _ = sort(Sorter([("s", "t", 0)]), publish(b"t", b"x"))
    assert (burst.token, burst.mark, acks) == (None, None, [])


def test_a_message_for_two_streams_is_acknowledged_once_when_both_have_it():
    sorter = Sorter([("wide", "a/#", 1), ("narrow", "a/b", 1)])
    bursts, _, _ = sort(sorter, publish(b"a/b", b"x", mid=5))
    assert [b.stream for b in bursts] == ["wide", "narrow"]
    assert sorter.accept([bursts[1].token]) == ([], [])
    mids, done = sorter.accept([bursts[0].token])
    assert mids == [b"\0\x05"]
    assert len(done) == 2


def test_a_burst_is_settled_once_all_that_it_shares_is():
    sorter = Sorter([("all", "a/#", 1), ("b", "a/b", 1), ("c", "a/c", 1)])
    bursts, _, _ = sort(sorter, publish(b"a/b", b"x", mid=5), publish(b"a/c", b"y", mid=6))
    token = {burst.stream: burst.token for burst in bursts}
    assert sorter.accept([token["all"], token["b"]]) == ([b"\0\x05"], [token["b"]])
    assert sorter.accept([token["c"]]) == ([b"\0\x06"], [token["all"], token["c"]])


def test_accepting_twice_acknowledges_once():
    sorter = Sorter([("s", "t", 1)])
    (burst,), _, _ = sort(sorter, publish(b"t", b"x", mid=5))
    assert sorter.accept([burst.token, burst.token, None])[0] == [b"\0\x05"]
    assert sorter.accept([burst.token]) == ([], [])


def test_the_mark_of_an_earlier_configuration_names_the_filter_to_unsubscribe():
    sorter = Sorter([("s", "plant/1/t", 1)])
    assert sorter.resume(pack("s", "plant/#", b"")) == "plant/#"
    assert sorter.resume(pack("gone", "old/+", b"")) == "old/+"
    assert sorter.resume(pack("s", "plant/1/t", b"")) == ""


@pytest.mark.parametrize("mark", [b"", b"\x01", b"\x02\0\0\0", b"\x01\xff\0\0", b"\x01\0\0\0xyz"])
def test_what_is_no_mark_is_refused(mark):
    with pytest.raises(RefusedError):
        unpack(mark)


def test_a_mark_survives_packing():
    assert unpack(pack("pümp", "a/+/#", b"k" * 20)) == ("pümp", "a/+/#", b"k" * 20)


def test_topics_are_remembered_in_bounds():
    sorter = Sorter([("s", "#", 0)])
    for start in range(0, 250_000, 1000):
        sort(sorter, *(publish(b"t/%d" % i, b"") for i in range(start, start + 1000)))
    assert len(sorter._routes) <= 101_000
