"""The layout of jobs and answers: everything comes back, and nothing hostile gets through."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agent.worker import frames

NAMES = ["float32", "float64", "float16", "int64", "int8", "uint8", "bool", "U5", "complex64"]
arrays = st.lists(
    st.sampled_from(NAMES).flatmap(
        lambda name: hnp.arrays(np.dtype(name), hnp.array_shapes(min_dims=0, max_side=4))
    ),
    min_size=1,
    max_size=4,
)


@given(arrays, st.integers(0, 5))
def test_tensors_come_back_as_they_were_laid(tensors: list[np.ndarray], first: int) -> None:
    start = first * frames.ALIGNMENT
    memory = bytearray(start + frames.room(tensors) + 7)
    body = frames.entries(tensors, start)
    places, end = frames.views(body, len(tensors), memory, start)
    for place, tensor in zip(places, tensors, strict=True):
        place[...] = tensor
    again, _ = frames.views(body, len(tensors), bytes(memory), start)
    for have, want in zip(again, tensors, strict=True):
        np.testing.assert_array_equal(have, want)
        assert have.dtype == want.dtype
    assert end == start + frames.room(tensors)


@given(arrays)
def test_tensors_come_back_inline(tensors: list[np.ndarray]) -> None:
    body = frames.inline(tensors)
    again, _ = frames.views(body, len(tensors), body)
    for have, want in zip(again, tensors, strict=True):
        np.testing.assert_array_equal(have, want)


@given(st.lists(st.binary(max_size=200), max_size=6), st.integers(1, 60))
def test_frames_come_back_however_the_stream_is_cut(bodies: list[bytes], piece: int) -> None:
    stream = b"".join(
        frames.pack(frames.ANSWER, job=i, tensors=i, number=i * 7, body=body)
        for i, body in enumerate(bodies)
    )
    reader = frames.Reader()
    got = [f for at in range(0, len(stream), piece) for f in reader.feed(stream[at : at + piece])]
    assert [(f.kind, f.job, f.number, f.tensors, f.body) for f in got] == [
        (frames.ANSWER, i, i * 7, i, body) for i, body in enumerate(bodies)
    ]


@given(st.binary(max_size=120), st.integers(0, 4), st.integers(0, 64), st.integers(0, 64))
def test_entries_from_a_worker_gone_bad_never_reach_outside_their_slot(
    body: bytes, tensors: int, low: int, size: int
) -> None:
    memory = bytearray(256)
    try:
        places, _ = frames.views(body, tensors, memory, low, low + size)
    except frames.BreachError:
        return
    base = np.frombuffer(memory, np.uint8).__array_interface__["data"][0]
    for place in places:
        begin = place.__array_interface__["data"][0] - base
        assert place.nbytes == 0 or low <= begin <= begin + place.nbytes <= low + size


def entry(code: int, shape: tuple[int, ...], width: int, offset: int) -> bytes:
    return frames.ENTRY.pack(code, len(shape), width, offset) + np.array(shape, "<i8").tobytes()


@pytest.mark.parametrize(
    "bad",
    [
        entry(0, (-1,), 4, 0),
        entry(0, (2**62, 4), 4, 0),  # wraps to nothing in 64 bits
        entry(0, (65,), 4, 0),
        entry(0, (1,), 4, 2**63),
        entry(77, (1,), 4, 0),
        entry(frames.STRING, (1,), 2**31, 0),
        entry(0, (1,) * 70, 4, 0),
        entry(0, (1,), 4, 0)[:-1],
        b"",
    ],
)
def test_an_entry_that_lies_is_a_breach(bad: bytes) -> None:
    with pytest.raises(frames.BreachError):
        frames.views(bad, 1, bytearray(256))


@pytest.mark.parametrize("length", [0, frames.HEAD.size - 1, frames.FRAME_BYTES_MAX + 1])
def test_a_head_that_lies_about_its_length_is_a_breach(length: int) -> None:
    head = frames.HEAD.pack(length, frames.ANSWER, 0, 0, 0)
    with pytest.raises(frames.BreachError):
        list(frames.Reader().feed(head))


def test_a_tensor_that_cannot_cross_is_named() -> None:
    with pytest.raises(TypeError, match="object"):
        frames.entries([np.array([object()])], 0)
