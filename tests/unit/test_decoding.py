"""Decoding: what comes out of each format, what is refused and why; neighbours do not matter."""

import json
import math
import struct
from collections import Counter
from datetime import UTC, datetime

import cbor2
import msgpack
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.core.blocks import Block
from agent.core.decoding import Decoder
from agent.core.errors import RefusedError
from agent.core.streams import StreamSpec

NOW = 1_732_180_000.0


def decoder(wanted=("temp", "vib"), **settings_of_stream) -> Decoder:
    spec = {"name": "pump", "format": "json", "fields": {"vib": "vib.rms"}, **settings_of_stream}
    return Decoder(StreamSpec(**spec), wanted)


def decode(dec: Decoder, *payloads: bytes, topics=None, now: float = NOW) -> Block:
    return dec.decode(list(payloads), topics, arrived=1.0, now=now)


def rows(dec: Decoder, block: Block) -> list[tuple]:
    """(key, time, value of each column) per row, NaN as None so that rows compare."""
    columns = [block.columns[name].tolist() for name in sorted(block.columns)]
    return [
        (dec.keys.names[key], time, *(None if math.isnan(v) else v for v in values))
        for key, time, *values in zip(
            block.keys.tolist(), block.times.tolist(), *columns, strict=True
        )
    ]


# ---- what comes out ------------------------------------------------------------------------------


def test_a_json_object_is_one_reading_with_nested_fields_and_its_key_from_the_topic():
    dec = decoder(key="{1}-{3}", time="ts")
    payload = b'{"ts": 1732179990.5, "temp": 61, "vib": {"rms": 3.25, "peak": 9}}'
    block = decode(dec, payload, topics=[b"plant/a/pump/p7/telemetry"])
    assert rows(dec, block) == [("a-p7", 1732179990.5, 61.0, 3.25)]
    assert block.keys.dtype == np.int32
    assert all(column.dtype == np.float64 for column in block.columns.values())
    assert (block.arrived, block.rejected) == (1.0, {})


def test_a_json_array_is_many_readings_and_its_bad_elements_cost_no_other():
    dec = decoder(key="id")
    payload = b'[{"id":"a","temp":1}, 7, {"id":"b","temp":"hot"}, {"id":"c","temp":3}]'
    block = decode(dec, payload, b'{"id":9,"temp":4}')
    assert rows(dec, block) == [("a", NOW, 1, None), ("c", NOW, 3, None), ("9", NOW, 4, None)]
    assert block.rejected == {"malformed": 1, "type": 1}
    assert block.readings == 5


def test_ndjson_has_a_reading_per_line():
    dec = decoder(format="ndjson", key="{0}")
    payloads = b'{"temp":1}\r\n\n{"temp":2}\n{"temp":', b'{"temp":3}'
    block = decode(dec, *payloads, topics=[b"x", b"y"])
    assert rows(dec, block) == [("x", NOW, 1, None), ("x", NOW, 2, None), ("y", NOW, 3, None)]
    assert block.rejected == {"malformed": 1}


def test_missing_and_null_are_nan_at_every_depth():
    dec = decoder(fields={"vib": "vib.rms", "oil": "a.b.c"}, wanted=("temp", "vib", "oil"))
    block = decode(
        dec, b"{}", b'{"vib":null,"temp":null,"a":{"b":{"c":1}}}', b'{"vib":{},"a":{"b":null}}'
    )
    assert rows(dec, block) == [
        ("", NOW, None, None, None),
        ("", NOW, 1.0, None, None),
        ("", NOW, None, None, None),
    ]


def test_a_dot_in_a_name_can_be_meant():
    dec = decoder(fields={"vib": r"vib\.rms"}, wanted=("vib",))
    assert decode(dec, b'{"vib.rms":2}').columns["vib"].tolist() == [2.0]


def test_two_names_may_read_one_member_and_a_member_may_be_key_and_field():
    dec = decoder(fields={"a": "x", "b": "x", "id": "id"}, wanted=("a", "b", "id"), key="id")
    block = decode(dec, b'{"x":5,"id":7}', b'[{"x":6,"id":8},3]', b"[")
    assert rows(dec, block) == [("7", NOW, 5, 5, 7), ("8", NOW, 6, 6, 8)]
    assert block.rejected == {"malformed": 2}


def test_csv_takes_its_header_once_for_a_tailed_file_and_again_when_it_comes_again():
    dec = decoder(format="csv", time="timestamp", fields={"temp": "value"}, wanted=("temp",))
    assert decode(dec, b"1,2\n").rejected == {"malformed": 1}
    block = decode(dec, b"timestamp,value\n2013-12-02 21:15:00,73.9\n")
    assert block.columns["temp"].tolist() == [73.9]
    assert block.times.tolist() == [datetime(2013, 12, 2, 21, 15, tzinfo=UTC).timestamp()]
    block = decode(
        dec, b'2013-12-02 21:20:00,\n2013-12-02 21:25:00,"74"\nx"y,1', b"timestamp,value"
    )
    np.testing.assert_array_equal(block.columns["temp"], [math.nan, 74])
    assert block.rejected == {"time": 1}  # the stray quote is part of a cell; as a time it is none
    block = decode(dec, b'value,timestamp\n5,1732180000\n"6,1732180000\n7\n1_0,1732180000\nnan,1\n')
    assert block.columns["temp"].tolist() == [5]
    assert block.rejected == {"malformed": 2, "type": 1, "not_finite": 1}
    assert dec.header == ("value", "timestamp")


def test_csv_with_configured_columns_needs_no_header_and_skips_one():
    dec = decoder(format="csv", columns=("id", "temp"), key="id", wanted=("temp", "vib"))
    block = decode(dec, b"id,temp\np1,1\n", b"p2,2,3\n,4\np3,5")
    assert rows(dec, block) == [("p1", NOW, 1, None), ("p3", NOW, 5, None)]
    assert block.rejected == {"malformed": 1, "key": 1}


def test_float32_is_rows_of_columns_where_nan_is_missing():
    dec = decoder(format="float32", columns=("id", "temp", "vib"), key="id", fields={})
    payload = struct.pack("<6f", 7, 1.5, math.nan, 8, 2.5, 3.5)
    block = decode(dec, payload, b"\0" * 7, struct.pack("<3f", 7, math.inf, 0), b"")
    assert rows(dec, block) == [("7", NOW, 1.5, None), ("8", NOW, 2.5, 3.5)]
    assert block.rejected == {"malformed": 1, "not_finite": 1}


@pytest.mark.parametrize(("form", "dumps"), [("cbor", cbor2.dumps), ("msgpack", msgpack.packb)])
def test_binary_documents_are_maps_or_arrays_of_maps(form, dumps):
    dec = decoder(format=form, key="id", time="ts")
    moment = cbor2.CBORTag(1, 1_732_180_001) if form == "cbor" else msgpack.Timestamp(1_732_180_001)
    good = dumps({"id": "a", "ts": moment, "temp": 1, "vib": {"rms": 2.5}})
    many = dumps([{"id": 3, "temp": 1.5}, {"id": "b", "temp": True}, 5, {"id": "c", "temp": None}])
    bad = [dumps({"id": "a", "temp": x}) for x in (math.nan, math.inf, 10**18 * 1.0, "x", [1])]
    block = decode(dec, good, many, good[:-1], good + b"\x01", b"", *bad)
    assert rows(dec, block) == [
        ("a", NOW + 1, 1, 2.5),
        ("3", NOW, 1.5, None),
        ("c", NOW, None, None),
        ("a", NOW, 1e18, None),
    ]
    assert block.rejected == {"type": 3, "malformed": 4, "not_finite": 2}


def test_binary_documents_in_which_a_member_stands_twice_are_refused():
    twice = b"\xa2\x64temp\x01\x64temp\x02", b"\x82\xa4temp\x01\xa4temp\x02"
    for form, payload in zip(("cbor", "msgpack"), twice, strict=True):
        assert decode(decoder(format=form), payload).rejected == {"duplicate_key": 1}


# ---- times ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stamp",
    [
        *("1732179990", "1732179990.0", "1732179990000", "1732179990000000"),
        *("1732179990000000000", '"1732179990"', '"1732179990000.0"'),
        *('"2024-11-21T09:06:30Z"', '"2024-11-21 09:06:30"', '"20241121T090630Z"'),
        '"2024-11-21T10:06:30+01:00"',
    ],
)
def test_event_times_are_told_apart(stamp):
    dec = decoder(time="ts")
    block = decode(dec, b'{"ts":%s}' % stamp.encode())
    assert block.times.tolist() == [1732179990.0], dec.last_reject


@pytest.mark.parametrize(
    "stamp",
    [
        *("0", "-1", "315532799", "1e25", "1e400", "true", "[]", "{}", '"soon"', '""'),
        *('"2024-13-01"', '"1979-12-31"', '"9999-01-01"', str(NOW + 86401)),
        '"1712110000000000000000000"',
    ],
)
def test_times_that_cannot_be_meant_are_refused(stamp):
    dec = decoder(time="ts")
    block = decode(dec, b'{"ts":%s}' % stamp.encode(), b'{"ts":1372896000}')
    assert block.rejected == {"time": 1}
    assert block.times.tolist() == [1372896000.0]
    assert dec.last_reject["time"]


def test_an_unset_device_clock_refuses_no_time_and_lends_its_own():
    dec = decoder(time="ts")
    block = decode(dec, b'{"ts":1732180000}', b"{}", b'{"ts":null}', now=5.0)
    assert block.times.tolist() == [1732180000.0, 5.0, 5.0]


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "malformed"),
        (b"hello", "malformed"),
        (b"\xff\xfe", "malformed"),
        (b"7", "malformed"),
        (b'"temp"', "malformed"),
        (b'{"temp":1', "malformed"),
        (b'{"temp":1}{"temp":2}', "malformed"),
        (b'{"temp":1},{"temp":2}', "malformed"),
        (b"[" * 200_000, "malformed"),
        (b'{"a":' * 200_000, "malformed"),
        (b'{"temp":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "malformed"),
        (b'{"temp":"1"}', "type"),
        (b'{"temp":true}', "type"),
        (b'{"temp":[1]}', "type"),
        (b'{"vib":3}', "type"),
        (b'{"vib":{"rms":{}}}', "type"),
        (b'{"temp":1e400}', "not_finite"),
        (b'{"temp":-1e400}', "not_finite"),
        (b'{"temp":NaN}', "not_finite"),
        (b'{"temp":-Infinity}', "not_finite"),
        (b'{"temp":' + b"9" * 100_000 + b"}", "not_finite"),
        (b'{"temp":1,"temp":2}', "duplicate_key"),
        (b'{"temp":1,"temp" :2}', "duplicate_key"),
        (b'{"temp":1,"\\u0074emp":2}', "duplicate_key"),
        (b'{"vib":{"rms":1},"vib":{"rms":2}}', "duplicate_key"),
        (b'{"vib":{"rms":1,"rms":1}}', "duplicate_key"),
        (b'{"temp":1,"temp":1,"x":[":"]}', "duplicate_key"),
        (b'{"temp":null,"temp":1}', "duplicate_key"),
        (b'{"temp":1,"pad":"' + b"x" * 2000 + b'"}', "size"),
    ],
)
def test_a_bad_payload_is_counted_and_explained_and_costs_no_other(payload, reason):
    size = 1000 if reason == "size" else 2**20
    dec = decoder(payload_bytes_max=size)
    good = b'{"temp":5}'
    block = decode(dec, good, payload, good)
    assert block.rejected == {reason: 1}
    assert block.columns["temp"].tolist() == [5, 5]
    assert 0 < len(dec.last_reject[reason]) <= 240


@pytest.mark.parametrize(
    "payload",
    [
        b'{"temp":5,"other":1,"other":2}',
        b'{"temp":5,"other":{"temp":1,"temp":2}}',
        b'{"temp":5,"unit":"temp"}',
        b'{"temp":5,"unit":"a \\"temp\\": b"}',
        b'{"temp":5,"x":[{"temp":1},{"temp":2}]}',
        b'\r\n {"temp" :\t5 } ',
        b'{"temp":5,"x":1e400}',
        b'{"t\\u0065mp":5}',
    ],
)
def test_what_is_not_read_is_not_judged(payload):
    dec = decoder()
    block = decode(dec, payload, payload)
    assert (block.columns["temp"].tolist(), block.rejected) == ([5, 5], {})


def test_keys_that_are_none_are_refused_and_never_take_a_place_in_the_table():
    dec = decoder(key="id", time="ts", keys_max=2)
    ids = [b'"a"', b"7", b"null", b'""', b"true", b"7.5", b'"' + b"x" * 257 + b'"', b'"b"', b'"a"']
    block = decode(dec, b'{"id":"c","ts":1}', *(b'{"id":%s}' % i for i in ids), b"{}")
    assert [dec.keys.names[k] for k in block.keys] == ["a", "7", "a"]
    assert block.rejected == {"time": 1, "key": 6, "keys": 1}
    assert dec.keys.names == ["a", "7"]


def test_a_topic_without_the_level_has_no_key():
    dec = decoder(key="{2}")
    block = decode(dec, b"{}", b"{}", b"{}", b"7", topics=[b"a/b/c", b"a/b", b"a/b/\xff", b"a/b/d"])
    assert block.rejected == {"key": 2, "malformed": 1}
    assert dec.keys.names == ["c"]
    assert decode(dec, b"{}").rejected == {"key": 1}


def test_topics_stay_with_their_payloads_when_others_are_dropped():
    dec = decoder(key="{0}", payload_bytes_max=100)
    payloads = b'{"temp":1}', b" " * 101, b"[", b'[{"temp":2},{"temp":3}]', b'{"temp":4}'
    block = decode(dec, *payloads, topics=[b"a", b"b", b"c", b"d", b"e"])
    assert [r[0] for r in rows(dec, block)] == ["a", "d", "d", "e"]


def test_a_spec_that_cannot_be_followed_is_refused():
    for wrong in ({"format": "xml"}, {"format": "float32", "fields": {}}):
        with pytest.raises(RefusedError):
            decoder(**wrong)
    with pytest.raises(RefusedError, match="read as a value and"):
        decoder(wanted=("vib", "a"), fields={"vib": "x", "a": "x.y"})


def test_a_further_name_is_wanted_from_the_next_block_on():
    dec = decoder(wanted=("temp",), key="{0}")
    first = decode(dec, b'{"temp":1,"oil":2}', topics=[b"a"])
    dec.want(["oil", "temp"])
    second = decode(dec, b'{"temp":1,"oil":2}', topics=[b"a"])
    assert set(first.columns) == {"temp"}
    assert second.columns["oil"].tolist() == [2]
    assert dec.keys.names == ["a"]
    with pytest.raises(RefusedError):
        dec.want(["temp.x"])
    assert set(decode(dec, b"{}", topics=[b"a"]).columns) == {"temp", "oil"}


def test_an_empty_batch_is_an_empty_block():
    for form in ("json", "ndjson", "csv", "float32", "cbor", "msgpack"):
        dec = decoder(format=form, columns=("temp", "vib.rms"), time="ts", key="id")
        block = decode(dec)
        assert (len(block), block.readings, set(block.columns)) == (0, 0, {"temp", "vib"})


# ---- neighbours do not matter --------------------------------------------------------------------

MEMBERS = rb"""
"temp":1|"temp":2.5|"temp" : 3|"t\u0065mp":4|"temp":null|"temp":"x"|"temp":1e400|"temp":NaN
|"vib":{"rms":1}|"vib":{"rms":1,"rms":2}|"vib":null|"vib":{"x":{"rms":3},"rms":4}|"vib":5
|"x":"temp"|"x":"temp\":"|"x":":"|"x":{"temp":1,"temp":2}|"x":[{"temp":1}]|"x":"}"|"x":"}
{"|"y":"{"|"te":1|"tems":1|"y1":1|"y2":"ok"|"rms":3
|"ts":1732180000|"ts":"2024-11-21T10:00:00Z"|"ts":"2024-11-21T10\u003a00:00"|"ts":null|"ts":0
|"ts":true|"id":"a"|"id":"a:b"|"id":7|"id":1.5|"id":null|"id":"\ud800"
""".strip().split(b"|")
MEMBERS += [b'"id":"\xff"', b'"x":"\xff"']
OBJECT = st.lists(st.sampled_from(MEMBERS), max_size=5).map(lambda m: b"{" + b",".join(m) + b"}")
SHARDS = rb"""||{|}|[|]|,|"|\|7|1}|{"temp":|{"x":"}|{","temp":1}|{"x":{"temp":1}
|{"temp":1},{"temp":2}|{"temp":1}
{"temp":2}""".split(b"|")
SHARD = st.sampled_from([*SHARDS, b"\xff", b"\n"])
ARRAY = st.lists(OBJECT | SHARD, max_size=4).map(lambda m: b"[" + b",".join(m) + b"]")
PAYLOAD = OBJECT | OBJECT | ARRAY | SHARD | st.binary(max_size=12)


def outcome(dec: Decoder, blocks: list[Block]) -> tuple[list[tuple], Counter]:
    rejected: Counter = Counter()
    for block in blocks:
        rejected.update(block.rejected)
    return [row for block in blocks for row in rows(dec, block)], rejected


@settings(max_examples=400, deadline=None)
@given(st.lists(PAYLOAD, max_size=9), st.lists(OBJECT, max_size=3), st.sampled_from(["id", "{0}"]))
@example([b"[]", b"[{},{}]"], [], "{0}")
def test_a_batch_gives_what_its_payloads_give_one_by_one(payloads, seen_before, key):
    together = decoder(key=key, time="ts")
    decode(together, *seen_before)  # whatever it learnt must not matter either
    apart = decoder(key=key, time="ts")
    topics = [b"topic-%d" % i for i in range(len(payloads))]
    got = outcome(together, [decode(together, *payloads, topics=topics)])
    singles = zip(payloads, topics, strict=True)
    want = outcome(apart, [decode(apart, payload, topics=[topic]) for payload, topic in singles])
    assert got == want


class Pairs(list):
    """A JSON object as its pairs."""


def judged(document: bytes) -> tuple | None:
    """A reading by the plainest means; None if it must be refused."""

    def at(node, *path):
        for name in path:
            if node is None:
                return None
            assert isinstance(node, Pairs)
            values = [value for key, value in node if key == name]
            assert len(values) < 2
            node = values[0] if values else None
        return node

    def number(value):
        assert value is None or (type(value) in (int, float) and math.isfinite(value))
        return None if value is None else float(value)

    try:
        tree = json.loads(document.decode("utf-8", "surrogateescape"), object_pairs_hook=Pairs)
        temp, vib = number(at(tree, "temp")), number(at(tree, "vib", "rms"))
        stamp, key = at(tree, "ts"), at(tree, "id")
        assert stamp is None or (type(stamp) in (int, float, str) and stamp != 0)
        assert type(key) in (int, str)
        str(key).encode()
    except (AssertionError, ValueError, RecursionError):
        return None
    if isinstance(stamp, str):
        stamp = datetime.fromisoformat(stamp).replace(tzinfo=UTC).timestamp()
    return str(key), NOW if stamp is None else float(stamp), temp, vib


@settings(max_examples=400, deadline=None)
@given(st.lists(OBJECT, max_size=6), st.randoms(use_true_random=False))
def test_what_is_taken_is_what_the_plainest_reading_takes(documents, rng):
    # most documents of a stream look alike: repeat some, so that patterns are learnt
    documents = [rng.choice(documents) for _ in range(8)] if documents else []
    dec = decoder(key="id", time="ts")
    for _ in range(2):
        block = decode(dec, *documents)
        expected = [row for row in map(judged, documents) if row]
        assert rows(dec, block) == expected
        assert block.readings == len(documents)


LOOKALIKES = rb""""temp":1|"tump":2|"tamp":3|"te":4|"s":"temp"|"s":"okay"|"s":5""".split(b"|")
ALIKE = st.lists(st.sampled_from(LOOKALIKES), min_size=2, max_size=4).map(
    lambda m: b"{" + b",".join(m) + b"}"
)


@settings(max_examples=800, deadline=None)
@example([b'{"temp":1,"s":"okay"}'], [b'{"temp":1,"s":5,"temp":3}'])
@example([b'{"s":"okay","temp":1}'], [b'{"s":5,"temp":1,"temp":3}'])
@given(st.lists(ALIKE, min_size=1, max_size=1), st.lists(ALIKE, min_size=1, max_size=3))
def test_a_document_that_looks_like_the_others_hides_no_second_member(before, documents):
    dec = decoder(wanted=("temp", "tump"))
    decode(dec, *before)
    twice = [d for d in documents if d.count(b'"temp":') > 1 or d.count(b'"tump":') > 1]
    block = decode(dec, *documents)
    assert block.rejected.get("duplicate_key", 0) == len(twice)
    assert len(block) == len(documents) - len(twice)


def test_many_payloads_give_what_each_gives_alone():
    """More than are decoded at once, with everything that goes wrong strewn in."""
    odd = [
        b"",
        b"7",
        b'{"temp":"hot"}',
        b'[{"temp":1},{"temp":"x"},{"temp":3}]',
        b'{"temp":1,"temp":2}',
    ]
    many = []
    for n in range(3000):
        many.append(b'{"id":"k%d","ts":%d.5,"temp":%d,"pad":"%s"}' % (n % 7, NOW, n, b"x" * 150))
        if n % 300 == 0:
            many += [odd[n // 300 % len(odd)], b"[" + many[-1] + b"]"]
    whole, single = decoder(key="id", time="ts"), decoder(key="id", time="ts")
    block = decode(whole, *many)
    alone = [decode(single, one) for one in many]
    assert rows(whole, block) == [row for one in alone for row in rows(single, one)]
    assert Counter(block.rejected) == sum((Counter(one.rejected) for one in alone), Counter())
    assert block.readings == sum(one.readings for one in alone) > 3000
