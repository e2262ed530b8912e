"""What a stream really carries: in every format, at any rate, across silence, in fixed memory."""

import json
import struct
from random import Random

import cbor2
import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.blocks import Block
from agent.core.decoding import Decoder
from agent.core.formats.peeking import Peeker
from agent.core.streams import StreamSpec
from agent.core.survey import SAMPLES, SPAN_S, Survey

START = 1_732_180_000.0


class Stream:
    """Readings on their way through the decoder into a survey; hours pass in no time."""

    def __init__(self, **spec):
        whole = {"name": "pump", "format": "json", "key": "k", "time": "t", "fields": {}, **spec}
        self.spec = StreamSpec(**whole)
        self.decoder = Decoder(self.spec, ())
        self.survey = Survey(self.spec, lambda: self.decoder.header)
        self.now = 0.0

    def send(self, *payloads, after=0.0):
        self.now += after
        block = self.decoder.decode(payloads, None, self.now, START + self.now)
        self.survey.saw(payloads, block)

    def reading(self, *, key="a", after=0.0, **fields):
        when = START + self.now + after
        self.send(json.dumps({"k": key, "t": when, **fields}).encode(), after=after)

    @property
    def seen(self):
        return self.survey.seen()


def encoded(form, record):
    if form == "cbor":
        return cbor2.dumps(record)
    if form == "msgpack":
        return msgpack.packb(record)
    if form == "float32":
        return struct.pack("<3f", 7.0, record["temp"], record["vib"]["rms"])
    if form == "csv":
        return f"a,{record['temp']},{record['vib']['rms']}\n".encode()
    return json.dumps(record).encode()


SPECS = {
    "json": {},
    "ndjson": {},
    "cbor": {},
    "msgpack": {},
    "float32": {"columns": ("k", "temp", "vib.rms"), "time": ""},
    "csv": {"columns": ("k", "temp", "vib.rms"), "time": ""},
}


@pytest.mark.parametrize("form", SPECS)
def test_every_format_is_looked_into_whether_or_not_anybody_wants_its_fields(form):
    """[rollout-8.2]"""
    stream = Stream(format=form, **SPECS[form])
    for i in range(40):
        record = {"k": "a", "t": START + i, "temp": 60.0 + i, "vib": {"rms": 0.5}}
        stream.send(encoded(form, record), after=1.0)
    seen = stream.seen
    assert set(seen.fields) == {"temp", "vib.rms"}
    assert seen.fields["temp"].values.tolist() == [60.0 + i for i in range(40)]
    assert seen.fields["vib.rms"].present == 1.0
    assert seen.readings == seen.samples == 40
    assert seen.rate_hz == pytest.approx(1.0)


def test_a_stream_of_a_second_is_known_as_well():
    stream = Stream()
    for _ in range(2):
        parts = [{"k": "a", "t": START + i / 20, "n": i} for i in range(20)]
        stream.send(*(json.dumps(part).encode() for part in parts))
    stream.send(json.dumps([{"k": "a", "t": START, "n": 99}] * 20).encode())
    seen = stream.seen
    assert seen.readings == seen.samples == 60
    assert seen.fields["n"].values[-1] == 99


def test_presence_and_failures_are_shares_of_all_readings():
    stream = Stream()
    for i in range(40):
        stream.reading(after=1.0, temp=1.0 if i % 4 else "hot", vib=2.0 if i % 2 else None)
    fields = stream.seen.fields
    assert (fields["temp"].present, fields["temp"].failed) == (0.75, 0.25)
    assert fields["temp"].example == "the text 'hot'"
    assert (fields["vib"].present, fields["vib"].failed) == (0.5, 0.0)


def test_what_json_can_hold_and_a_column_cannot_is_a_failure_in_words():
    stream = Stream()
    values = [True, [1, 2], 10**400, "x", {}]
    for value in values:
        stream.reading(after=1.0, v=value)
    assert stream.seen.fields["v"].failed == 4 / 5  # an empty object carries nothing
    assert stream.seen.fields["v"].example == "the text 'x'"


@pytest.mark.parametrize("batch", [1, 10, 700])
@pytest.mark.parametrize("sensors", [1, 3, 200])
@pytest.mark.parametrize("rate", [0.2, 10.0, 1000.0])
def test_the_rate_of_a_sensor_is_found_however_its_readings_come(batch, sensors, rate):
    """[rollout-8.2]"""
    stream = Stream()
    records = [
        {"k": f"s{i % sensors}", "t": START + (i // sensors) / rate} for i in range(12 * sensors)
    ]
    if batch == 700:
        records += [
            {"k": f"s{i % sensors}", "t": START + (i // sensors) / rate}
            for i in range(len(records), len(records) + 5000)
        ]
    for first in range(0, len(records), batch):
        part = records[first : first + batch]
        stream.send(*(json.dumps(r).encode() for r in part), after=batch / rate / sensors)
    assert stream.seen.rate_hz == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize("batch", [4, 400])
def test_readings_without_a_time_of_their_own_share_the_interval_between_arrivals(batch):
    stream = Stream(time="")
    for _ in range(20):
        stream.send(*[b'{"k": "a", "v": 1}'] * batch, after=1.0)
    assert stream.seen.rate_hz == pytest.approx(batch, rel=0.05)


def test_a_night_of_silence_changes_nothing_of_what_is_known():
    """[rollout-8.2]"""
    stream = Stream()
    for _ in range(200):
        stream.reading(after=0.1, temp=50.0)
    before = stream.seen
    stream.now += 12 * 3600
    stream.reading(after=0.1, temp=50.0)
    after = stream.seen
    assert after.rate_hz == pytest.approx(before.rate_hz, rel=0.01)
    assert after.fields["temp"].present == 1.0
    assert after.samples >= before.samples


def test_a_backlog_that_comes_at_once_is_no_fast_sensor():
    stream = Stream()
    for i in range(100):  # half an hour, all in one instant
        stream.send(json.dumps({"k": "a", "t": START + 18.0 * i}).encode())
    assert stream.seen.rate_hz == pytest.approx(1 / 18.0)


def test_the_sample_is_of_the_last_hour_and_not_of_the_last_moment():
    """[rollout-8.2]"""
    stream = Stream()
    for i in range(3 * 3600 * 2):
        stream.reading(after=0.5, n=float(i))
    first, last = stream.seen.fields["n"].values[[0, -1]] / 2.0
    assert SAMPLES / 2 <= stream.seen.samples <= SAMPLES
    assert SPAN_S * 0.5 <= last - first <= SPAN_S * 1.1
    assert last >= 3 * 3600 - 20


def test_the_sample_is_even_before_it_is_an_hour_long():
    stream = Stream()
    for i in range(1000):
        stream.reading(after=1.0, n=float(i))
    assert 350 <= stream.seen.fields["n"].quantile(0.5) <= 650


def test_a_field_that_has_gone_is_forgotten():
    stream = Stream()
    for i in range(2000):
        stream.reading(after=10.0, **({"old": 1.0} if i < 1000 else {"new": 1.0}))
    assert set(stream.seen.fields) == {"new"}
    assert stream.seen.fields["new"].present == 1.0


def test_a_sensor_is_followed_from_one_look_to_the_next():
    stream = Stream()
    for _ in range(10):
        stream.reading(after=5.0, v=1.0)
        seen = stream.seen
    assert seen.rate_hz == pytest.approx(0.2)


def test_readings_that_come_twice_make_no_sensor_faster():
    stream = Stream()
    for i in range(20):
        for _ in range(2):
            stream.send(json.dumps({"k": "a", "t": START + i}).encode())
            seen = stream.seen
    assert seen.rate_hz == pytest.approx(1.0)


def blocks(survey, events, rows):
    """Readings as (time, sensor), decoded already, `rows` to a block."""
    events = sorted(events)
    for first in range(0, len(events), rows):
        part = events[first : first + rows]
        times = np.array([time for time, _ in part])
        keys = np.array([key for _, key in part], np.int32)
        survey.saw((), Block(keys, START + times, {}, float(times[0])))


def test_slow_sensors_beside_a_fast_one_are_not_taken_for_slower_still():
    survey = Stream().survey
    events = [(i / 1000, 0) for i in range(60_000)]
    events += [(i + key / 10, key) for i in range(60) for key in (1, 2, 3)]
    blocks(survey, events, 50)
    assert survey.seen().rate_hz == pytest.approx(1.0, rel=0.01)


def test_with_more_sensors_those_that_stay_followed_keep_what_is_known_of_them():
    survey = Stream().survey
    for i in range(9):
        blocks(survey, [(i if key % 2 == 0 else i / 10, key) for key in range(128)], 128)
        seen = survey.seen()
    assert seen.sensors == 128
    blocks(survey, [(9.5, 128)], 1)
    assert survey.seen().rate_hz == pytest.approx(1.0)  # that of the even ones


def test_a_fault_of_every_other_reading_is_not_hidden_by_the_sampling():
    stream = Stream()
    for i in range(8000):
        stream.reading(after=0.025, temp=500.0 if i % 2 else 50.0)
    assert stream.seen.fields["temp"].outside(0.0, 100.0) == pytest.approx(0.5, abs=0.1)


def test_memory_does_not_grow_with_sensors_fields_or_time():
    stream, dice = Stream(), Random(1)

    def size():
        survey = stream.survey
        pace = survey._pace
        arrays = (survey._sample._table, pace._last, pace._counts, pace._intervals)
        return sum(array.nbytes for array in arrays)

    for i in range(3000):
        fields = {f"f{dice.randrange(5000)}": 1.0 for _ in range(20)}
        stream.reading(key=f"s{i}", after=1.0, **fields)
    assert size() <= 2.2 * 2**20
    assert not stream.seen.whole
    assert len(stream.seen.fields) <= 512


def test_many_sensors_are_followed_by_some_of_them():
    stream = Stream()
    for turn in range(10):
        for first in range(0, 1000, 50):
            parts = [{"k": f"s{i}", "t": START + turn} for i in range(first, first + 50)]
            stream.send(*(json.dumps(part).encode() for part in parts), after=0.05)
    seen = stream.seen
    assert 60 <= seen.sensors <= 128
    assert seen.rate_hz == pytest.approx(1.0)


def test_a_csv_header_that_came_once_is_remembered():
    stream = Stream(format="csv", time="t")
    stream.send(b"k,t,temp,note\n", after=1.0)
    for i in range(10):
        stream.send(f"a,{START + i},{50 + i},fine\n".encode(), after=1.0)
    fields = stream.seen.fields
    assert fields["temp"].present == 1.0
    assert fields["note"].failed == 1.0


def test_a_payload_too_large_to_look_into_is_not_looked_into():
    stream = Stream()
    stream.send(b'{"k": "a", "t": 1732180000, "v": 1, "x": "%s"}' % (b"x" * 70_000), after=1.0)
    assert (stream.seen.readings, stream.seen.samples) == (1, 0)


def test_lines_are_picked_without_splitting_what_is_large():
    peeker = Peeker(Stream(format="ndjson").spec)
    payload = b"".join(b'{"n": %d}\n' % i for i in range(1000)) + b"\n\n"
    picked = {peeker.peek(payload, pick)["n"] for pick in np.linspace(0, 0.999, 200)}
    assert len(picked) > 150
    assert peeker.peek(b'{"n": 1}', 0.99) == {"n": 1.0}


@given(
    st.sampled_from([*SPECS, "sparkplug"]),
    st.binary(max_size=60),
    st.floats(0, 1, exclude_max=True),
)
def test_no_payload_breaks_the_look_into_it(form, payload, pick):
    spec = {"name": "s", "format": form, "fields": {}, "columns": ("a", "b")}
    reading = Peeker(StreamSpec(**spec)).peek(payload, pick)
    for value in (reading or {}).values():
        assert isinstance(value, str) or not np.isinf(value)
