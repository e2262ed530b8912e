"""Rows of numbers read off at once: the same numbers, and nothing that is none."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.core.blocks import Block
from agent.core.decoding import Decoder
from agent.core.formats.json_numbers import Numbers
from agent.core.streams import StreamSpec

NOW = 1_732_180_000.0
LETTERS = st.characters(min_codepoint=32, exclude_characters='"\\', codec="utf-8")
NAME = st.text(LETTERS, max_size=40)
TEXT = st.text(st.characters(categories=["Cs", "L"]), max_size=9)  # halves of surrogate pairs, too
OTHER = st.none() | TEXT | st.just(msgspec.UNSET) | st.booleans() | st.integers()
MANY = 80


def struct_of(names: list[str]) -> type[msgspec.Struct]:
    """As a stream's shape has it; defaults are what stands for a member that is not there."""
    anything = float | str | int | bool | None | msgspec.UnsetType
    rename = {f"m{i}": name for i, name in enumerate(names)}
    slots = [(f"m{i}", anything, msgspec.UNSET) for i in range(len(names))]
    return msgspec.defstruct("Row", slots, rename=rename, gc=False)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(NAME, min_size=1, max_size=20, unique=True),
    st.integers(1, 40),
    st.data(),
)
def test_numbers_come_back_bit_for_bit_by_column(names, count, data):
    row = struct_of(names)
    one = st.lists(st.floats(), min_size=len(names), max_size=len(names))
    values = data.draw(st.lists(one, min_size=count, max_size=count))
    columns = Numbers(row, len(names)).columns([row(*each) for each in values])
    assert columns is not None
    assert columns.shape == (len(names), count)
    assert columns.T.tobytes() == np.array(values, np.float64).tobytes()


@pytest.mark.parametrize("count", [15, 16, 17, 65_535, 65_536])
def test_they_come_back_however_many_there_are(count):
    row = struct_of(["a"])
    columns = Numbers(row, 1).columns([row(float(i)) for i in range(count)])
    assert columns is not None
    assert columns.tolist() == [list(map(float, range(count)))]


@settings(max_examples=400, deadline=None)
@given(
    st.lists(NAME, min_size=1, max_size=17, unique=True),
    st.integers(1, 20),
    st.data(),
)
def test_a_row_with_anything_else_in_it_is_noticed(names, count, data):
    row = struct_of(names)
    rows = [[1.5] * len(names) for _ in range(count)]
    odd = data.draw(st.lists(OTHER, min_size=1, max_size=3))
    for value in odd:
        at = data.draw(st.tuples(st.integers(0, count - 1), st.integers(0, len(names) - 1)))
        rows[at[0]][at[1]] = value
    assert Numbers(row, len(names)).columns([row(*each) for each in rows]) is None


FLAT = [
    b'{"temp":1,"vib":2.5,"ts":1732180000}',
    b'{"temp":-0.0,"vib":1e308,"ts":1732180000123}',
    b'{"vib":123456789012345678901234567890,"temp":1e-320,"ts":1732180000.25,"x":7}',
    b'{"temp":1,"ts":1732180000}',
    b'{"temp":null,"vib":1,"ts":1732180000}',
    b'{"temp":1,"vib":1}',
    b'{"temp":1,"vib":1,"ts":null}',
    b'{"temp":1,"vib":1,"ts":"2024-11-21T10:00:00Z"}',
    b'{"temp":1,"vib":1,"ts":12}',
    b'{"temp":1,"vib":1,"ts":"\\ud800"}',
    b'{"temp":"hot","vib":1,"ts":1732180000}',
    b'{"temp":1,"temp":2,"vib":1,"ts":1732180000}',
    b'{"temp":1e400,"vib":1,"ts":1732180000}',
    b'[{"temp":1,"vib":1,"ts":1732180001},{"temp":2,"ts":1732180002}]',
    b"[]",
    b"{",
]


@settings(max_examples=100, deadline=None)
@example([(0, i) for i in range(len(FLAT))])
@given(st.lists(st.tuples(st.integers(0, MANY), st.integers(0, len(FLAT) - 1)), max_size=6))
def test_many_payloads_of_numbers_give_what_each_gives_alone(odd):
    payloads = [FLAT[i % 3] for i in range(MANY)]
    for place, kind in odd:
        payloads.insert(place, FLAT[kind])
    topics = [b"t%d" % (i % 5) for i in range(len(payloads))]
    assert decoded(payloads, topics, at_once=True) == decoded(payloads, topics, at_once=False)


def decoded(payloads, topics, *, at_once):
    spec = StreamSpec(name="s", format="json", key="{0}", time="ts", fields={})
    decoder = Decoder(spec, ("temp", "vib"))
    if at_once:
        blocks = [decoder.decode(payloads, topics, arrived=1.0, now=NOW)]
    else:
        pairs = zip(payloads, topics, strict=True)
        blocks = [decoder.decode([p], [t], arrived=1.0, now=NOW) for p, t in pairs]
    rejected: dict[str, int] = {}
    for block in blocks:
        for reason, number in block.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + number
    return [row for block in blocks for row in rows(decoder, block)], rejected


def rows(decoder: Decoder, block: Block) -> list[tuple[object, ...]]:
    columns = [block.times.tolist(), *(block.columns[n].tolist() for n in ("temp", "vib"))]
    keys = [decoder.keys.names[key] for key in block.keys.tolist()]
    return [
        (key, *(None if math.isnan(value) else value for value in values))
        for key, *values in zip(keys, *columns, strict=True)
    ]
