"""The bulk scanner against paho's own decoder, and against liars."""

import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given
from paho.mqtt import _packet
from paho.mqtt.enums import MQTTProtocolVersion

from agent.adapters.mqtt.packets import BEYOND, CONNACK, MalformedError, Scan, scan
from tests.world.hostile import packet, publish, varint

LIMIT = 1 << 20

topics = st.text(st.characters(exclude_characters="#+\0", exclude_categories=["Cs"]), min_size=1)
# A user property and an expiry interval: what brokers really send along.
properties = st.sampled_from(
    [b"", b"\x02\0\0\0\x0a", b"\x26\0\x01k\0\x02vv", b"\x26\0\x01k\0\x80" + b"v" * 128]
)
others = st.sampled_from(
    [packet(0xD0, b""), packet(0x90, b"\0\x01\0\x01"), packet(0x40, b"\0\x07"), packet(0xE0, b"")]
)


@st.composite
def publishes(draw, is_v5):
    return publish(
        draw(topics.map(str.encode)),
        draw(st.binary(max_size=300)),
        mid=draw(st.integers(0, 65535)),
        dup=draw(st.booleans()),
        retain=draw(st.booleans()),
        properties=draw(properties) if is_v5 else None,
    )


def streams(is_v5):
    return st.lists(publishes(is_v5) | others, max_size=12)


def scan_in_pieces(data, cuts, *, is_v5, limit=LIMIT):
    """As a socket would give it: any split, leftovers kept."""
    found, rest = Scan(), b""
    edges = sorted({min(c, len(data)) for c in cuts} | {0, len(data)})
    for start, end in itertools.pairwise(edges):
        rest += data[start:end]
        taken, need = scan(rest, found, is_v5=is_v5, packet_bytes_max=limit)
        rest = rest[taken:]
        assert need >= 2
    return found, rest


def by_paho(packets, *, is_v5):
    version = MQTTProtocolVersion.MQTTv5 if is_v5 else MQTTProtocolVersion.MQTTv311
    out = []
    for raw in packets:
        body = 2 if raw[1] < 128 else 3
        if raw[0] & 0xF0 == 0x30:
            p = _packet.decode_publish(raw[0], bytearray(raw[body:]), version)
            flags = (p.dup, p.retain) if p.qos else (False, p.retain)
            out.append((bytes(p.topic), bytes(p.payload), p.mid, *flags))
    return out


def columns(found):
    odd = dict(found.odd)
    out = []
    for i, (topic, payload, mid) in enumerate(
        zip(found.topics, found.payloads, found.mids, strict=True)
    ):
        head = odd.get(i, 0)
        dup = bool(head & 0x08) and bool(mid)
        out.append((topic, payload, int.from_bytes(mid), dup, bool(head & 0x01)))
    return out


@pytest.mark.parametrize("is_v5", [False, True])
@given(st.data())
def test_any_split_gives_what_paho_gives_in_the_same_order(is_v5, data):
    packets = data.draw(streams(is_v5))
    raw = b"".join(packets)
    cuts = data.draw(st.lists(st.integers(0, len(raw)), max_size=8))
    found, rest = scan_in_pieces(raw, cuts, is_v5=is_v5)
    assert rest == b""
    assert columns(found) == by_paho(packets, is_v5=is_v5)
    assert [head for head, _ in found.others] == [p[0] for p in packets if p[0] & 0xF0 != 0x30]
    assert found.with_mid == sum(1 for mid in found.mids if mid)


@pytest.mark.parametrize("is_v5", [False, True])
@given(st.binary(max_size=400), st.integers(0, 400))
def test_whatever_a_broker_sends_ends_in_packets_or_in_malformed(is_v5, raw, cut):
    try:
        found, rest = scan_in_pieces(raw, [cut], is_v5=is_v5)
    except MalformedError:
        return
    kept = sum(map(len, found.payloads)) + sum(map(len, found.topics))
    assert kept + len(rest) <= len(raw)


@pytest.mark.parametrize("is_v5", [False, True])
@given(st.data())
def test_a_lying_length_inside_a_publish_never_reaches_into_the_next_packet(is_v5, data):
    raw = bytearray(data.draw(publishes(is_v5)))
    body = 2 if raw[1] < 128 else 3
    at = data.draw(st.integers(body, min(len(raw) - 1, body + 10)))
    raw[at] = data.draw(st.integers(0, 255))
    secret = publish(b"next", b"S" * 600, properties=b"" if is_v5 else None)
    found = Scan()
    try:
        scan(bytes(raw) + secret, found, is_v5=is_v5, packet_bytes_max=LIMIT)
    except MalformedError:
        return
    came = list(zip(found.topics, found.payloads, strict=True))
    assert came[-1] == (b"next", b"S" * 600)
    assert not any(b"SSS" in topic + payload for topic, payload in came[:-1])
    assert sum(len(topic) + len(payload) for topic, payload in came[:-1]) < len(raw)


def test_a_packet_announced_too_big_is_refused_before_its_body_comes():
    head = b"\x90" + varint(LIMIT + 1)
    with pytest.raises(MalformedError, match="packet_bytes_max"):
        scan(head, Scan(), is_v5=True, packet_bytes_max=LIMIT)


@given(cut=st.lists(st.integers(1, 2600), max_size=6), is_v5=st.booleans())
def test_a_publish_that_is_too_long_is_told_of_and_passed_over(cut, is_v5):
    properties = b"" if is_v5 else None
    limit = 1000
    long = publish(b"big", b"x" * 2500, mid=7, properties=properties)
    raw = publish(b"a", b"1", properties=properties) + long
    raw += publish(b"b", b"2", properties=properties)
    found, rest, skip = Scan(), b"", 0
    for start, end in itertools.pairwise(sorted({0, *(c for c in cut if c < len(raw)), len(raw)})):
        piece = raw[start:end]
        rest, skip = rest + piece[skip:], max(0, skip - len(piece))
        taken = 1
        while taken and not skip:
            taken, _ = scan(rest, found, is_v5=is_v5, packet_bytes_max=limit)
            rest, skip, found.skip = rest[taken:], found.skip, 0
    assert found.topics == [b"a", b"big", b"b"]
    assert [p if p is not BEYOND else None for p in found.payloads] == [b"1", None, b"2"]
    assert found.mids == [b"", b"\0\7", b""]
    assert (found.beyond, found.with_mid, skip, rest) == (1, 1, 0, b"")


@pytest.mark.parametrize(
    "raw",
    [
        packet(0x34, b"\0\x01t\0\x05" + bytes(50)),
        packet(0x32, b"\0\x01t\0\0" + bytes(50)),
        packet(0x32, b"\0\0\0\x05" + bytes(50)),
        packet(0x32, b"\0\x64t\0\x05" + bytes(50)),
    ],
    ids=["QoS 2", "packet id 0", "no topic", "a topic longer than itself"],
)
def test_what_is_too_long_and_no_publish_of_ours_is_malformed(raw):
    with pytest.raises(MalformedError, match="packet_bytes_max"):
        scan(raw + b"\1" * 100, Scan(), is_v5=True, packet_bytes_max=40)


def test_what_was_found_is_forgotten_whole():
    found = Scan()
    raw = publish(b"t", b"x", mid=1, dup=True) + packet(0xD0, b"") + publish(b"t", bytes(100))
    scan(raw, found, is_v5=False, packet_bytes_max=50)
    found.clear()
    assert found == Scan()


def test_a_packet_of_just_the_size_that_is_allowed_is_taken():
    raw, found = publish(b"t", bytes(100)), Scan()
    assert scan(raw, found, is_v5=True, packet_bytes_max=len(raw) - 2) == (len(raw), 2)
    assert (found.payloads, found.beyond) == ([bytes(100)], 0)


def test_the_bytes_a_long_packet_needs_are_told_once_its_length_is_there():
    raw = publish(b"t", b"x" * 5000)
    assert scan(raw[:2], Scan(), is_v5=True, packet_bytes_max=LIMIT) == (0, 2)
    assert scan(raw[:10], Scan(), is_v5=True, packet_bytes_max=LIMIT) == (0, len(raw))


def test_qos_2_was_not_asked_for():
    raw = bytearray(publish(b"t", b"x", mid=1))
    raw[0] = 0x34
    with pytest.raises(MalformedError, match="QoS 2"):
        scan(bytes(raw), Scan(), is_v5=True, packet_bytes_max=LIMIT)


def test_what_comes_before_a_malformed_packet_is_kept():
    found = Scan()
    raw = publish(b"t", b"good", mid=3) + packet(0x30, b"\xff\xff")
    with pytest.raises(MalformedError):
        scan(raw, found, is_v5=True, packet_bytes_max=LIMIT)
    assert found.payloads == [b"good"]
    assert found.with_mid == 1


def test_scanning_stops_after_a_connack_because_what_follows_is_read_in_its_light():
    found = Scan()
    connack = packet(CONNACK, b"\0\0\0")
    raw = connack + publish(b"t", b"x")
    assert scan(raw, found, is_v5=True, packet_bytes_max=LIMIT)[0] == len(connack)
    assert found.payloads == []


@pytest.mark.parametrize("follower", [b"", publish(b"next", b"S" * 600)])
@pytest.mark.parametrize(
    "body",
    [b"", b"\0", b"\0\0", b"\0\x05t", b"\0\x01t\0", b"\0\x01t\0\x01", b"\0\x01t\0\x01\x05"],
)
def test_a_publish_too_short_for_its_fields_is_malformed(body, follower):
    with pytest.raises(MalformedError):
        scan(packet(0x32, body) + follower, Scan(), is_v5=True, packet_bytes_max=LIMIT)


@pytest.mark.parametrize("body", [b"\0\0\0\x01\0x", b"\0\x01t\0\0\0x"])
def test_an_empty_topic_and_the_packet_id_0_are_malformed(body):
    with pytest.raises(MalformedError):
        scan(packet(0x32, body), Scan(), is_v5=True, packet_bytes_max=LIMIT)


def test_a_length_of_five_bytes_is_malformed():
    with pytest.raises(MalformedError, match="four bytes"):
        scan(b"\x30\xff\xff\xff\xff\x01", Scan(), is_v5=True, packet_bytes_max=LIMIT)
