"""Answers over MQTT that are lost, late, wrong or unasked for; and what a repository rejects."""

import asyncio
import random
import secrets

import pytest

from agent.core.chunks import Block, Rejection, read_request, write_block, write_rejection
from agent.core.errors import UnavailableError
from agent.core.packages import CHUNK_BYTES
from agent.ports import Message
from agent.repository.serving import answers
from agent.runtime.chunked import ChunkedFetcher
from tests.world.transports import (
    BIG,
    DEVICE,
    ROOT,
    fetch,
    repo,
    store,
)

__all__ = ["repo", "store"]  # fixtures


class Loopback:
    """A link in memory: what is published is answered by `reply(request bytes)` at once."""

    def __init__(self, reply):
        self.reply = reply
        self.fetcher = None
        self.asked = []

    async def publish(self, topic, payload, **_):
        assert topic == "edge/repo/get/pump-7"
        self.asked.append(read_request(payload))
        for body in self.reply(payload):
            assert self.fetcher.take(Message("edge/repo/data/pump-7", body))

    async def connected(self):
        return


def loopback(reply, **settings):
    link = Loopback(reply)
    link.fetcher = ChunkedFetcher(
        link, root=ROOT, device=DEVICE, **{"timeout_s": 0.05, "tries_max": 3, **settings}
    )
    return link


def honest(repo, raw):
    return [body for body, _ in answers(repo, raw)]


def test_answers_nobody_asked_for_are_counted_and_do_no_harm(repo, store):
    """[chunks-2.1]"""

    def reply(raw):
        request = read_request(raw)
        wrong = Block(request.id, 10_000, CHUNK_BYTES, BIG.size, b"12345678", b"x")
        stranger = Block("stranger", 0, CHUNK_BYTES, BIG.size, b"12345678", bytes(CHUNK_BYTES))
        good = honest(repo, raw)
        return [b"junk", write_block(wrong), write_block(stranger), *good, *good]

    link = loopback(reply)
    assert asyncio.run(fetch(link.fetcher, store)) == BIG.size
    requests, blocks = len(link.asked), -(-BIG.size // CHUNK_BYTES)
    assert link.fetcher.counts["ignored"] == 3 * requests + blocks


def test_other_topics_are_not_taken(repo):
    link = loopback(lambda _: [])
    assert not link.fetcher.take(Message("edge/pump-7/desired", b"{}"))
    assert not link.fetcher.take(Message("edge/repo/data/pump-8", b"{}"))


def test_lost_blocks_are_asked_for_again(repo, store):
    chance = random.Random(3)
    link = loopback(
        lambda raw: [b for b in honest(repo, raw) if chance.random() < 0.7], tries_max=20
    )
    assert asyncio.run(fetch(link.fetcher, store)) == BIG.size
    assert link.fetcher.counts["retries"] > 0


def test_a_repository_that_never_answers_is_weather_that_says_what_to_look_at(repo, store):
    """[chunks-1.5]"""
    link = loopback(lambda _: [])
    with pytest.raises(UnavailableError, match="repo serve"):
        asyncio.run(fetch(link.fetcher, store))
    assert len(link.asked) == 3


def test_a_rejection_is_weather_with_its_reason(repo, store):
    def reply(raw):
        return [write_rejection(Rejection(read_request(raw).id, 404, "no such file"))] * 200

    link = loopback(reply)
    with pytest.raises(UnavailableError, match="no such file"):
        asyncio.run(fetch(link.fetcher, store))


def test_smaller_blocks_serve_a_link_of_small_packets(repo, store):
    link = loopback(lambda raw: honest(repo, raw), block_bytes=3000)
    assert asyncio.run(fetch(link.fetcher, store)) == BIG.size
    assert {r.block_bytes for r in link.asked} == {3000}


def test_metadata_that_changes_for_ever_is_given_up(repo):
    seen = 0

    def reply(raw):
        nonlocal seen
        seen += 1
        (repo.metadata / "noise.json").write_text(secrets.token_hex(150_000))
        return honest(repo, raw)[:1]

    link = loopback(reply)
    with pytest.raises(UnavailableError, match="faster than it comes"):
        asyncio.run(link.fetcher.metadata())
    assert seen < 20


def test_metadata_larger_than_is_taken_is_weather(repo):
    """[chunks-2.4]"""

    def reply(raw):
        block = Block(read_request(raw).id, 0, CHUNK_BYTES, 2**40, b"12345678", bytes(CHUNK_BYTES))
        return [write_block(block)]

    link = loopback(reply)
    with pytest.raises(UnavailableError, match="metadata"):
        asyncio.run(link.fetcher.metadata())


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b'{"schema":1,"id":"r","file":"sha256:' + b"0" * 64 + b'","count":1}', 404),
        (b'{"schema":1,"id":"r","file":"../../keys/root","count":1}', 400),
        (b'{"schema":1,"id":"r","file":"' + BIG.sha256.encode() + b'","size":5,"count":1}', 409),
        (
            b'{"schema":1,"id":"r","file":"' + BIG.sha256.encode() + b'","offset":9999,"count":1}',
            416,
        ),
        (b'{"schema":1,"id":"r","nonsense":true}', 400),
    ],
)
def test_a_request_that_cannot_be_answered_is_rejected_with_a_code(repo, request_, code):
    """[chunks-2.5]"""
    from agent.core.chunks import read_answer

    (body,) = honest(repo, request_)
    assert read_answer(body).code == code


def test_a_request_without_an_id_is_not_answered(repo):
    assert honest(repo, b"\x00\xff") == []
    assert honest(repo, b'{"schema":1,"file":"x"}') == []
