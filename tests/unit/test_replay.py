"""A recording becomes readings: what is a number, what is missing, what is no recording."""

import csv
import io
import itertools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import RefusedError
from agent.repository import recording

NAMES = st.lists(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), min_size=2, max_size=5, unique=True)
numbers = st.integers(-(10**15), 10**15) | st.floats(allow_nan=False, allow_infinity=False)


def read(text, name="x.csv"):
    return list(recording.readings(io.StringIO(text), name))


def test_a_row_becomes_an_object_with_numbers_as_numbers():
    assert read("timestamp,value,state\n2014-07-01 00:00:00,69.88,ok\n") == [
        {"timestamp": "2014-07-01 00:00:00", "value": 69.88, "state": "ok"}
    ]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1", 1),
        ("-12", -12),
        ("0", 0),
        (" 3 ", 3),
        ("+4", 4),
        ("1.50", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("1E-2", 0.01),
        ("1732180000123456789", 1732180000123456789.0),
        ("007", "007"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("1e999", "1e999"),
        ("2014-07-01", "2014-07-01"),
        ("12:30", "12:30"),
        ("", None),
        ("NaN", None),
        ("null", None),
        ("N/A", None),
    ],
)
def test_a_cell_is_a_number_only_if_it_is_written_as_one(cell, value):
    told = read(f'a,b\n"{cell}",x\n')[0]
    assert told.get("a") == value
    assert type(told.get("a")) is type(value)


@given(NAMES, st.lists(st.lists(numbers, min_size=5, max_size=5), max_size=6))
def test_numbers_come_through_as_they_were_written(names, table):
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(names)
    writer.writerows(row[: len(names)] for row in table)
    told = [json.loads(recording.encode(reading)) for reading in read(out.getvalue())]
    assert len(told) == len(table)
    for reading, row in zip(told, table, strict=True):
        assert [reading[name] for name in names] == pytest.approx(row[: len(names)], rel=1e-15)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_told_from_the_header(delimiter):
    text = delimiter.join(["a", "b"]) + "\n" + delimiter.join(["1", "2"]) + "\n"
    assert read(text) == [{"a": 1, "b": 2}]


def test_short_rows_lack_their_last_fields_and_empty_lines_are_none():
    assert read("a,b,c\n1\n\n2,3\n") == [{"a": 1}, {"a": 2, "b": 3}]


def test_a_cell_may_hold_a_line_break():
    assert read('a,b\n"x\ny",2\n') == [{"a": "x\ny", "b": 2}]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("\n1,2\n", "is empty"),
        ("1,2\n3,4\n", "no header"),
        ("a,a\n1,2\n", "'a' twice"),
        ("a,\n1,2\n", "without a name"),
        ("a,b\n1,2\n1,2,3\n", "line 3: 3 cells under 2 columns"),
        (",".join(f"c{i}" for i in range(5000)) + "\n", "4096"),
    ],
)
def test_what_is_no_recording_is_said_with_its_line(text, says):
    with pytest.raises(RefusedError, match=says):
        read(text)


def test_a_cell_without_end_is_refused_before_it_fills_the_memory():
    endless = itertools.chain(["a,b\n", '"'], itertools.repeat("x" * 10_000 + "\n"))
    with pytest.raises(RefusedError, match="field larger"):
        list(recording.readings(endless, "x.csv"))


def test_the_rows_before_a_bad_one_are_read_and_the_file_is_never_read_whole():
    taken = []

    def lines():
        for line in ("a\n", "1\n", "2\n", "3\n"):
            taken.append(line)
            yield line

    assert next(recording.readings(lines(), "x.csv")) == {"a": 1}
    assert len(taken) == 2


def test_a_topic_may_take_a_level_from_the_row_but_never_more_than_one():
    assert recording.topic_of("plant/{m}/t", {"m": "pump-1"}) == "plant/pump-1/t"
    assert recording.topic_of("plant/{m}/t", {"m": 7}) == "plant/7/t"
    assert recording.topic_of("plant/t", {}) == "plant/t"
    for bad in ("a/b", "+", "#", "", "$SYS"):
        with pytest.raises(RefusedError, match="cannot be a topic level"):
            recording.topic_of("plant/{m}/t", {"m": bad})


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        (1_400_000_000, 1.4e9),
        (1_400_000_000_500, 1.4e9 + 0.5),
        ("2014-05-13 16:53:20", 1.4e9),
        ("2014-05-13T16:53:20Z", 1.4e9),
    ],
)
def test_the_pace_is_read_from_any_usual_kind_of_time(stamp, seconds):
    assert math.isclose(recording.time_of({"t": stamp}, "t"), seconds, abs_tol=1e-3)


@pytest.mark.parametrize("stamp", ["soon", None, "12:30"])
def test_a_column_without_times_gives_no_pace(stamp):
    with pytest.raises(RefusedError, match="no time"):
        recording.time_of({"t": stamp} if stamp else {}, "t")
