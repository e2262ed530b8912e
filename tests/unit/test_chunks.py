"""The chunk protocol: what goes over the wire comes back, and nothing hostile gets through."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.chunks import (
    BLOCK_BYTES_MAX,
    BLOCK_BYTES_MIN,
    REQUEST_BLOCKS_MAX,
    SPAN_BLOCKS_MAX,
    Block,
    Rejection,
    Request,
    blocks_of,
    etag_of,
    etag_of_digest,
    read_answer,
    read_request,
    span_of,
    subtract,
    write_block,
    write_rejection,
    write_request,
)
from agent.core.errors import RefusedError, UnavailableError
from agent.core.names import Digest
from agent.core.transfer import WINDOW_BLOCKS, MetadataTransfer, Transfer

DIGEST = Digest("sha256:" + "ab" * 32)
TOKENS = st.from_regex(r"\A[A-Za-z0-9._-]{1,64}\Z")
SMALL = 256  # a block size that keeps examples small


@st.composite
def requests(draw):
    first = draw(st.integers(0, 10**6))
    steps = draw(
        st.sets(st.integers(0, SPAN_BLOCKS_MAX - 1), min_size=1, max_size=REQUEST_BLOCKS_MAX)
    )
    return Request(
        draw(TOKENS),
        draw(st.sampled_from([None, DIGEST])),
        tuple(first + step for step in sorted(steps)),
        draw(st.none() | st.integers(0, 2**34)),
        draw(st.integers(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX)),
    )


@given(requests())
def test_a_request_comes_back_as_it_was(request):
    assert read_request(write_request(request)) == request


def test_the_bitmap_is_that_of_the_aws_file_streams():
    """Blocks 20, 21, 24 and 43 from offset 20: the example of the AWS documentation."""
    document = json.loads(write_request(Request("r", DIGEST, (20, 21, 24, 43), 10**7)))
    assert (document["offset"], document["count"], document["bitmap"]) == (20, 24, "130080")


def test_a_request_without_a_bitmap_wants_all_it_counts():
    raw = json.dumps({"schema": 1, "id": "r", "file": DIGEST, "offset": 3, "count": 4}).encode()
    assert read_request(raw).blocks == (3, 4, 5, 6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "../../etc"},
        {"id": "x" * 65},
        {"id": None},
        {"file": "sha256:../../../etc/passwd"},
        {"file": "sha256:" + "AB" * 32},
        {"file": None},
        {"block": 0},
        {"block": BLOCK_BYTES_MAX + 1},
        {"block": True},
        {"offset": -1},
        {"offset": 10**18},
        {"count": 0},
        {"count": 10**9},
        {"count": REQUEST_BLOCKS_MAX + 1},
        {"bitmap": "zz"},
        {"bitmap": "00"},
        {"bitmap": 7},
        {"size": -1},
        {"size": 2**60},
        {"schema": 2},
    ],
)
def test_a_request_that_asks_for_nonsense_is_refused(wrong):
    fine = {"schema": 1, "id": "r", "file": DIGEST, "offset": 0, "count": 8}
    read_request(json.dumps(fine).encode())
    with pytest.raises(RefusedError):
        read_request(json.dumps({**fine, **wrong}).encode())


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_bytes_from_anywhere_are_read_or_refused(raw):
    for read in (read_request, read_answer):
        try:
            read(raw)
        except RefusedError:
            continue


@given(TOKENS, st.integers(0, 2**32 - 1), st.integers(0, 2**40), st.binary(max_size=500))
def test_a_block_comes_back_as_it_was(token, index, size, body):
    block = Block(token, index, 4096, size, b"12345678", body)
    assert read_answer(write_block(block)) == block


@given(TOKENS, st.integers(400, 599), st.text(max_size=300))
def test_a_rejection_comes_back_as_it_was(token, code, why):
    rejection = Rejection(token, code, why)
    assert read_answer(write_rejection(rejection)) == rejection


def test_an_answer_longer_than_a_block_is_refused():
    block = Block("r", 0, BLOCK_BYTES_MAX, 10**7, b"12345678", bytes(BLOCK_BYTES_MAX + 100))
    with pytest.raises(RefusedError):
        read_answer(write_block(block))


def test_the_etag_of_bytes_is_that_of_their_digest():
    digest = Digest(f"sha256:{hashlib.sha256(b'x').hexdigest()}")
    assert etag_of(b"x") == etag_of_digest(digest)


# ---- spans ---------------------------------------------------------------------------------------

SPANS = st.lists(st.integers(0, 3000), max_size=12, unique=True).map(
    lambda cuts: list(zip(sorted(cuts)[::2], sorted(cuts)[1::2], strict=False))
)


def _bytes(spans):
    return {i for low, high in spans for i in range(low, high)}


@given(SPANS, st.integers(0, 3000), st.integers(0, 3000))
def test_subtracting_takes_away_exactly_those_bytes(holes, start, end):
    left = subtract(holes, start, end)
    assert _bytes(left) == _bytes(holes) - set(range(start, end))
    assert left == sorted(left)
    assert all(low < high for low, high in left)


@given(SPANS)
def test_the_blocks_of_holes_cover_them_and_nothing_that_is_whole(holes):
    blocks = blocks_of(holes, SMALL)
    assert blocks == sorted(set(blocks))
    assert set(blocks) == {i // SMALL for i in _bytes(holes)}


# ---- transfers -----------------------------------------------------------------------------------


def content(size):
    return bytes(i * 7 % 251 for i in range(size))


def transfer_of(body, holes=None):
    digest = Digest(f"sha256:{hashlib.sha256(body).hexdigest()}")
    blocks = blocks_of(holes if holes is not None else [(0, len(body))], SMALL)
    return Transfer("t", file=digest, size=len(body), blocks=blocks, block_bytes=SMALL)


def block_of(whole, number, /, **changes):
    start, end = span_of(number, len(whole), SMALL)
    made = {
        "id": "t",
        "index": number,
        "block_bytes": SMALL,
        "size": len(whole),
        "etag": etag_of(whole),
        "body": whole[start:end],
    }
    return Block(**{**made, **changes})


@given(st.integers(1, 20_000), st.randoms(use_true_random=False), st.integers(0, 40))
def test_a_transfer_ends_with_every_block_once_whatever_is_lost_or_repeated(size, chance, losses):
    """[chunks-1.3] A world that loses, repeats and reorders: each once, never more than 8 out."""
    body, got = content(size), {}
    transfer = transfer_of(body)
    on_wire = []
    while not transfer.done:
        request = transfer.ask()
        if request is not None:
            assert len(request.blocks) <= WINDOW_BLOCKS
            on_wire.extend(request.blocks)
            assert len(transfer._out) <= WINDOW_BLOCKS
        if not on_wire:
            transfer.lost()
            continue
        index = on_wire.pop(chance.randrange(len(on_wire)))
        if losses and chance.random() < 0.3:
            losses -= 1
            continue
        if chance.random() < 0.2:
            on_wire.append(index)
        if transfer.take(block_of(body, index)):
            assert index not in got
            got[index] = block_of(body, index).body
    assert b"".join(got[i] for i in sorted(got)) == body


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "other"},
        {"index": 1000},
        {"block_bytes": 512},
        {"size": 9},
        {"etag": b"deadbeef"},
        {"body": b""},
        {"body": b"x"},
        {"body": bytes(SMALL + 1)},
    ],
)
def test_a_block_that_is_not_what_was_asked_for_is_ignored_and_counted(changes):
    body = content(5000)
    transfer = transfer_of(body)
    transfer.ask()
    assert not transfer.take(block_of(body, 3, **changes))
    assert transfer.ignored == 1
    assert transfer.take(block_of(body, 3))
    assert not transfer.take(block_of(body, 3)), "twice is once too often"
    assert transfer.ignored == 2


def test_only_blocks_with_holes_are_asked_for():
    body = content(10 * SMALL)
    transfer = transfer_of(body, [(SMALL * 2 + 5, SMALL * 2 + 9), (SMALL * 7, SMALL * 10)])
    assert transfer.ask().blocks == (2, 7, 8, 9)


def test_blocks_waiting_to_be_written_take_up_the_window():
    """[chunks-1.3]"""
    transfer = transfer_of(content(100 * SMALL))
    assert transfer.ask(held=5) is None
    assert len(transfer.ask(held=3).blocks) == WINDOW_BLOCKS - 3


def test_after_a_loss_what_was_out_is_asked_for_again_lowest_first():
    transfer = transfer_of(content(20 * SMALL))
    first = transfer.ask().blocks
    assert transfer.ask() is None
    transfer.lost()
    assert transfer.ask().blocks == first


def test_far_holes_do_not_make_a_long_bitmap():
    digest = Digest("sha256:" + "00" * 32)
    size = 10**6 * SMALL
    transfer = Transfer("t", file=digest, size=size, blocks=(0, 999_999), block_bytes=SMALL)
    assert transfer.ask().blocks == (0,)
    assert len(write_request(Request("t", digest, (0, SPAN_BLOCKS_MAX - 1), size))) < 4096


def pull(transfer, body):
    while not transfer.done:
        request = transfer.ask()
        for index in request.blocks if request else ():
            transfer.take(block_of(body, index))


def test_metadata_of_unknown_size_comes_whole():
    body = content(5000)
    transfer = MetadataTransfer("t", bytes_max=10_000, block_bytes=SMALL)
    assert transfer.ask().blocks == (0,)
    transfer.lost()
    pull(transfer, body)
    assert transfer.body == body


def test_metadata_that_is_replaced_while_it_comes_is_never_mixed():
    """[chunks-1.4]"""
    old, new = content(5000), content(6000)[::-1]
    transfer = MetadataTransfer("t", bytes_max=10_000, block_bytes=SMALL)
    transfer.ask()
    transfer.take(block_of(old, 0))
    for index in transfer.ask().blocks[:3]:
        transfer.take(block_of(old, index))
    transfer.take(block_of(new, 1))
    assert transfer.restarts == 1
    pull(transfer, new)
    assert transfer.body == new


def test_of_metadata_that_became_shorter_nothing_of_the_longer_stays():
    old, new = content(5000), content(1000)[::-1]
    transfer = MetadataTransfer("t", bytes_max=10_000, block_bytes=SMALL)
    transfer.ask()
    transfer.take(block_of(old, 0))
    assert transfer.take(block_of(old, 15))
    assert transfer.take(block_of(new, 0))
    pull(transfer, new)
    assert transfer.body == new


@pytest.mark.parametrize("size", [0, 10_001, 2**40])
def test_metadata_without_bounds_is_not_taken(size):
    transfer = MetadataTransfer("t", bytes_max=10_000, block_bytes=SMALL)
    transfer.ask()
    with pytest.raises(UnavailableError, match="metadata"):
        transfer.take(block_of(content(SMALL), 0, size=size))
