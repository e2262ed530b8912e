"""Web servers that do not behave: none makes the fetcher take more, or other, than was promised."""

import asyncio
import contextlib
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest

from agent.adapters.https import HttpsFetcher
from agent.core.enclosed import pack_metadata
from agent.core.errors import UnavailableError
from agent.core.packages import CHUNK_BYTES
from agent.repository.web import WebServer
from tests.world.broker import Certificates
from tests.world.transports import (
    BIG,
    BODIES,
    MB,
    PACKAGE,
    fetch,
    repo,
    store,
)
from tests.world.waiting import eventually_async

__all__ = ["repo", "store"]  # fixtures


class Crooked(BaseHTTPRequestHandler):
    """Answers as its server's `behave` says."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with contextlib.suppress(OSError):
            self.server.behave(self)
        self.close_connection = True

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", length=None, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


SERVERS = []


@contextlib.contextmanager
def crooked(behave):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Crooked)
    server.daemon_threads = True
    server.behave = behave
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    SERVERS.append(server)
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        SERVERS.remove(server)
        server.shutdown()
        thread.join()
        server.server_close()


def endless(h):
    h.answer(200, length=10**12)
    while True:
        h.wfile.write(bytes(CHUNK_BYTES))


def endless_in_chunks(h):
    h.send_response(200)
    h.send_header("Transfer-Encoding", "chunked")
    h.end_headers()
    for _ in range(1000):
        h.wfile.write(b"%x\r\n" % CHUNK_BYTES + bytes(CHUNK_BYTES) + b"\r\n")


def drip(h):
    h.answer(200, length=BIG.size)
    for _ in range(200):
        h.wfile.write(b"x")
        h.wfile.flush()
        time.sleep(0.02)


def redirect(to):
    return lambda h: h.answer(302, Location=to)


FULL = BODIES[BIG.path]
BAD_SERVERS = {
    "an error": lambda h: h.answer(500, b"oh"),
    "a length that is not the promised one": lambda h: h.answer(200, FULL[:-1]),
    "a body that ends early": lambda h: h.answer(200, FULL[:MB], length=BIG.size),
    "a body without end": endless,
    "nothing at all": lambda h: None,
    "not modified": lambda h: h.answer(304),
    "a redirect to itself": redirect("/blobs"),
    "a redirect to nonsense": redirect("http://[::1"),
}


@pytest.mark.parametrize("behave", BAD_SERVERS.values(), ids=BAD_SERVERS.keys())
def test_a_web_server_that_answers_with_is_weather(behave, store):
    """[chunks-2.3]"""
    with crooked(behave) as url:
        fetcher = HttpsFetcher(url)
        with pytest.raises(UnavailableError) as error:
            asyncio.run(fetch(fetcher, store))
        assert "0x" not in str(error.value)
        fetcher.close()


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "https://127.0.0.1/x"])
def test_a_redirect_to_another_scheme_is_not_followed(to, store):
    """[chunks-2.3]"""
    with crooked(redirect(to)) as url:
        fetcher = HttpsFetcher(url)
        with pytest.raises(UnavailableError, match="another scheme"):
            asyncio.run(fetch(fetcher, store))
        fetcher.close()


def test_of_a_body_without_length_no_more_is_taken_than_was_promised(store):
    """It is then the digest that tells."""
    with crooked(endless_in_chunks) as url:
        fetcher = HttpsFetcher(url)
        assert asyncio.run(fetch(fetcher, store)) == BIG.size
        fetcher.close()


@pytest.mark.parametrize(
    "offered",
    [
        "",
        "bytes 0-9/10",
        f"bytes {MB}-{BIG.size - 1}/{BIG.size + 1}",
        f"bytes {MB}-{2 * MB}/*",
        "x",
    ],
)
def test_a_range_that_was_not_asked_for_is_not_taken(offered, store):
    partial = store.partial(PACKAGE, BIG)
    partial.write(0, FULL[:MB])
    partial.close()
    with crooked(lambda h: h.answer(206, FULL[MB:], Content_Range=offered)) as url:
        fetcher = HttpsFetcher(url)
        with pytest.raises(UnavailableError, match="asked for bytes"):
            asyncio.run(fetch(fetcher, store))
        fetcher.close()


def test_a_server_without_ranges_will_do(store):
    partial = store.partial(PACKAGE, BIG)
    partial.write(0, FULL[:MB])
    partial.close()
    with crooked(lambda h: h.answer(200, FULL)) as url:
        fetcher = HttpsFetcher(url)
        assert asyncio.run(fetch(fetcher, store)) == BIG.size - MB
        fetcher.close()
    partial = store.partial(PACKAGE, BIG)
    partial.write(0, b"")
    assert partial.holes() == ()
    partial.close()


def test_three_redirects_are_followed_and_not_four(store):
    """[chunks-2.3]"""

    def behave(h):
        left = int(h.path.rpartition("/")[2], 36) if "/hop/" in h.path else hops
        if left:
            h.answer(302, Location=f"/hop/{left - 1}")
        else:
            h.answer(200, FULL)

    with crooked(behave) as url:
        fetcher = HttpsFetcher(url)
        hops = 4
        with pytest.raises(UnavailableError, match="more than 3"):
            asyncio.run(fetch(fetcher, store))
        hops = 3
        assert asyncio.run(fetch(fetcher, store)) == BIG.size
        fetcher.close()


def test_a_server_that_drips_is_left(store):
    with crooked(drip) as url:
        fetcher = HttpsFetcher(url, rate_grace_s=0.2)
        with pytest.raises(UnavailableError, match="too slow"):
            asyncio.run(fetch(fetcher, store))
        fetcher.close()


def test_a_fetch_that_is_cancelled_ends_at_once_and_leaves_no_thread_reading(store):
    def hang(h):
        h.answer(200, length=BIG.size)
        h.server.hangs = True
        released.wait(30)

    async def go():
        task = asyncio.create_task(fetch(fetcher, store))
        await eventually_async(lambda: getattr(server, "hangs", False))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    released = Event()
    with crooked(hang) as url:
        server = next(s for s in SERVERS if url.endswith(f":{s.server_port}"))
        fetcher = HttpsFetcher(url)
        began = time.monotonic()
        asyncio.run(go())  # which waits for its threads
        assert time.monotonic() - began < 5
        released.set()
        fetcher.close()


@pytest.mark.parametrize(
    "body", [b"", b"not base64", b"AAAA" * 100_000, pack_metadata({}).encode()[:-8], b"\xff\xfe"]
)
def test_metadata_that_is_none_is_weather(body):
    """[chunks-2.4]"""
    with crooked(lambda h: h.answer(200, body)) as url:
        fetcher = HttpsFetcher(url)
        with pytest.raises(UnavailableError):
            asyncio.run(fetcher.metadata())
        fetcher.close()


def test_a_server_nobody_vouches_for_is_not_believed(repo, tmp_path):
    ca = Certificates(tmp_path)
    with WebServer(repo, "127.0.0.1", 0, tls=(str(ca.cert_file), str(ca.key_file))) as server:
        fetcher = HttpsFetcher(server.url)
        with pytest.raises(UnavailableError, match=r"(?i)certificate"):
            asyncio.run(fetcher.metadata())
        fetcher.close()


def test_keys_are_not_served(repo):
    """[chunks-2.5]"""
    keys = repo.folder / "keys"
    keys.mkdir()
    (keys / "root.pem").write_text("secret")
    with WebServer(repo, "127.0.0.1", 0) as server:
        import urllib3

        with urllib3.PoolManager() as pool:
            for path in ("keys/root.pem", "blobs/../keys/root.pem", "blobs/%2e%2e/keys/root.pem"):
                got = pool.request("GET", f"{server.url}{path}", retries=False)
                assert got.status in (400, 404), path
                assert b"secret" not in got.data
            assert pool.request("GET", f"{server.url}metadata/catalog.json").status == 200
