"""Readings over HTTP: an answer means that they are safe, and too many are told to wait."""

import selectors
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from agent.adapters.web import WebFaces
from agent.adapters.web.posts import WAITING_MAX
from agent.adapters.web.source import BODY_BYTES_MAX, HttpSource
from agent.config import Http, Stream
from agent.core.health import HealthReport
from agent.ports import Burst, Source
from tests.world.asking import Heard, ask, raw, rest
from tests.world.waiting import eventually

JSON = {"Content-Type": "application/json"}


class Posting:
    """An endpoint with one stream, and senders that wait for their answers in threads."""

    def __init__(self, token: str | None = None, accept_s_max: float = 60.0) -> None:
        self.faces = WebFaces(Http(bind="127.0.0.1:0"), token=token, accept_s_max=accept_s_max)
        self.source = self.faces.source(Stream(name="pump", source="http"))
        self.faces.start()
        self.faces.show(HealthReport("d", ready=True))
        self.senders = ThreadPoolExecutor(32)

    def post(self, body: bytes, path: str = "/v1/streams/pump", **headers: str) -> Future[Heard]:
        return self.senders.submit(
            ask, self.faces.port, path, JSON | headers, method="POST", body=body
        )

    def read(self, readings_max: int = 100, seconds: float = 20.0) -> Burst:
        """As the lane does: select, then read."""
        fd = self.source.fileno()
        assert fd is not None
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_READ)
            assert selector.select(seconds), "nothing to read"
        (burst,) = self.source.read(readings_max)
        return burst

    def close(self) -> None:
        self.source.close()
        self.faces.stop()
        self.senders.shutdown()


@pytest.fixture
def posting() -> Iterator[Posting]:
    posting = Posting()
    yield posting
    posting.close()


def test_an_answer_comes_only_when_the_readings_are_accounted_for(posting):
    """[http-5.1]"""
    sent = posting.post(b'{"temp": 1}')
    burst = posting.read()
    assert (burst.stream, burst.payloads, burst.topics) == ("pump", [b'{"temp": 1}'], None)
    assert not sent.done()
    posting.source.accept([burst.token])
    assert sent.result(20).status == 202


def test_every_post_gets_its_own_answer_in_whatever_order_they_are_accepted(posting):
    """[http-5.5]"""
    first = posting.post(b"1")
    one = posting.read()
    second = posting.post(b"2")
    two = posting.read()
    posting.source.accept([two.token])
    assert second.result(20).status == 202
    assert not first.done()
    posting.source.accept([one.token, "nobody's", two.token])
    assert first.result(20).status == 202


def test_what_is_left_over_is_rung_for_again(posting):
    """[http-5.5]"""
    sent = [posting.post(b"%d" % n) for n in range(5)]
    got: list[bytes] = []
    while len(got) < 5:
        burst = posting.read(2)
        assert len(burst.payloads) <= 2
        got += burst.payloads
        posting.source.accept([burst.token])
    assert sorted(got) == [b"0", b"1", b"2", b"3", b"4"]
    assert {s.result(20).status for s in sent} == {202}
    assert posting.source.read(10) == ()


def test_readings_that_are_not_accounted_for_in_time_are_not_claimed():
    """[http-5.1]"""
    posting = Posting(accept_s_max=1.0)
    sent = posting.post(b"1")
    burst = posting.read()
    heard = sent.result(20)
    assert (heard.status, heard.headers["retry-after"]) == (503, "5")
    posting.source.accept([burst.token])  # too late for an answer, and no harm done
    posting.close()


def test_a_stream_that_closes_says_so_to_all_who_wait(posting):
    """[http-5.1]"""
    read, unread = posting.post(b"1"), None
    posting.read()
    unread = posting.post(b"2")
    eventually(lambda: posting.source.waiting == 1)
    posting.source.close()
    posting.source.close()
    assert {read.result(20).status, unread.result(5).status} == {503}
    assert posting.post(b"3").result(20).status == 503
    assert posting.source.fileno() is None
    assert posting.source.read(10) == ()
    assert posting.source.trouble()


def test_too_many_are_told_to_come_back_and_readyz_still_answers(posting):
    """[http-5.2]"""
    sent = [posting.post(b"%d" % n) for n in range(WAITING_MAX)]
    eventually(lambda: posting.source.waiting == WAITING_MAX)
    heard = posting.post(b"more").result(20)
    assert (heard.status, heard.headers["retry-after"]) == (429, "1")
    assert ask(posting.faces.port, "/readyz").status == 200
    while posting.source.waiting:
        posting.source.accept([posting.read().token])
    assert {s.result(20).status for s in sent} == {202}


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        ("/v1/streams/other", {}, b"1", 404),
        ("/v1/streams/pump", {"Content-Type": "text/plain"}, b"1", 415),
        ("/v1/streams/pump", {"Content-Type": "application/x-www-form-urlencoded"}, b"1", 415),
        ("/v1/streams/pump", {"Content-Type": "multipart/form-data; boundary=x"}, b"1", 415),
        ("/v1/streams/pump", {"Content-Type": ""}, b"1", 415),
        ("/v1/streams/pump", {}, b"", 400),
        ("/v1/streams/pump", {"Origin": "http://evil.example"}, b"1", 403),
        ("/v1/streams/pump", {"Host": "evil.example"}, b"1", 421),
        ("/state", {}, b"1", 405),
    ],
)
def test_what_cannot_be_taken_is_refused(posting, path, headers, body, status):
    """[http-5.3] [http-5.4]"""
    assert posting.post(body, path, **headers).result(20).status == status
    assert posting.source.waiting == 0


def test_a_body_that_is_announced_as_too_large_is_not_waited_for(posting):
    """[http-5.3]"""
    with raw(posting.faces.port) as connection:
        head = f"POST /v1/streams/pump HTTP/1.1\r\nHost: 127.0.0.1:{posting.faces.port}\r\n"
        connection.sendall(f"{head}Content-Length: {BODY_BYTES_MAX + 1}\r\n\r\n".encode())
        assert b" 413 " in rest(connection).split(b"\r\n")[0]


def test_a_body_without_a_length_is_limited_too(posting):
    """[http-5.3]"""
    with raw(posting.faces.port) as connection:
        head = f"POST /v1/streams/pump HTTP/1.1\r\nHost: 127.0.0.1:{posting.faces.port}\r\n"
        connection.sendall(
            f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        chunk = b"%x\r\n%s\r\n" % (65536, b"x" * 65536)
        sender = threading.Thread(target=_pour, args=(connection, chunk, 20))
        sender.start()
        first = rest(connection).split(b"\r\n")[0]
        sender.join()
    assert first == b"" or b" 413 " in first
    with pytest.raises(AssertionError, match="nothing to read"):
        posting.read(seconds=0.2)


def _pour(connection, chunk, times):
    try:
        for _ in range(times):
            connection.sendall(chunk)
        connection.sendall(b"0\r\n\r\n")
    except OSError:
        pass


def test_a_body_at_the_limit_is_taken_whole(posting):
    """[http-5.3]"""
    body = bytes(range(256)) * (BODY_BYTES_MAX // 256)
    sent = posting.post(body)
    burst = posting.read()
    posting.source.accept([burst.token])
    assert burst.payloads == [body]
    assert sent.result(20).status == 202


def test_a_sender_that_leaves_does_not_take_its_readings_along(posting):
    """[http-5.5]"""
    with raw(posting.faces.port) as connection:
        head = f"POST /v1/streams/pump HTTP/1.1\r\nHost: 127.0.0.1:{posting.faces.port}\r\n"
        connection.sendall(f"{head}Content-Type: text/csv\r\nContent-Length: 1\r\n\r\n7".encode())
        burst = posting.read()
    assert burst.payloads == [b"7"]
    posting.source.accept([burst.token])
    assert ask(posting.faces.port, "/readyz").status == 200


def test_posting_needs_the_bearer_token_and_takes_no_password():
    """[http-5.4]"""
    posting = Posting(token="a-token-of-some-length")
    try:
        assert posting.post(b"1").result(20).status == 401
        basic = "Basic eDphLXRva2VuLW9mLXNvbWUtbGVuZ3Ro"  # x:a-token-of-some-length
        assert posting.post(b"1", Authorization=basic).result(20).status == 401
        sent = posting.post(b"1", Authorization="Bearer a-token-of-some-length")
        posting.source.accept([posting.read().token])
        assert sent.result(20).status == 202
    finally:
        posting.close()


def test_it_is_a_source_like_any_other():
    source: Source = HttpSource(Stream(name="pump", source="http"))
    assert (source.name, list(source.streams), source.wants_write()) == ("pump", ["pump"], False)
    assert source.trouble() == ""
    assert source.tick(5.0) > 5.0
    source.resume(b"")
    assert source.read(10) == ()
    source.close()
