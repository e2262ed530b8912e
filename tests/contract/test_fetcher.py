"""The fetchers' contract, over the real thing each: a folder, a TLS web server, chunks over MQTT.

Then what only some of them can meet: cuts at random bytes, crooked web servers, crooked answers.
"""

import asyncio
import contextlib
import hashlib
import random
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from agent.adapters.files import FileStore
from agent.adapters.folder import FolderFetcher, folder_of
from agent.adapters.https import HttpsFetcher
from agent.adapters.mqtt.link import MqttLink
from agent.config import Mqtt
from agent.core import catalog
from agent.core.chunks import Block, Rejection, read_request, write_block, write_rejection
from agent.core.enclosed import pack_metadata
from agent.core.errors import RefusedError, UnavailableError, UnfitError
from agent.core.names import Digest, ModelRef
from agent.core.packages import CHUNK_BYTES, FileEntry, Package, digest_of
from agent.core.topics import Topics
from agent.ports import Message
from agent.repository.layout import Repository
from agent.repository.serving import ChunkServer, answers
from agent.repository.web import WebServer
from agent.runtime.chunked import ChunkedFetcher
from tests.world.broker import Broker, Certificates
from tests.world.proxy import Proxy
from tests.world.waiting import eventually_async

MB = 2**20
ROOT, DEVICE = "edge", "pump-7"
BODIES = {
    "empty": b"",
    "model.onnx": random.Random(1).randbytes(3 * MB + 4321),
    "model.toml": b"name = 'pump'\n",
    "one-block": random.Random(2).randbytes(CHUNK_BYTES),
}


def entry(name: str, body: bytes) -> FileEntry:
    return FileEntry(name, len(body), Digest(f"sha256:{hashlib.sha256(body).hexdigest()}"))


FILES = tuple(entry(n, b) for n, b in sorted(BODIES.items()))
PACKAGE = Package(ModelRef("pump", 1, digest_of("pump", FILES)), "1", FILES)
BIG = next(f for f in FILES if f.path == "model.onnx")


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    made = Repository.init(tmp_path / "repo")
    for file in FILES:
        path = tmp_path / file.path
        path.write_bytes(BODIES[file.path])
        made.put(file, path)
    made.write_packages([PACKAGE])
    made.write_bundle()
    return made


@contextlib.asynccontextmanager
async def over_mqtt(port: int, **settings) -> AsyncIterator[ChunkedFetcher]:
    """A fetcher on a link of its own, and the loop that an app has to route its messages."""
    link = MqttLink(
        Mqtt(url=f"mqtt://127.0.0.1:{port}", reconnect_s_max=1),
        client_id=f"{DEVICE}-{secrets.token_hex(4)}",
        subscriptions=[Topics(ROOT, DEVICE).repo_data],
    )
    fetcher = ChunkedFetcher(link, root=ROOT, device=DEVICE, **settings)

    async def route() -> None:
        async for message in link.messages():
            assert fetcher.take(message)

    tasks = [asyncio.create_task(link.run()), asyncio.create_task(route())]
    try:
        async with asyncio.timeout(10):
            await link.connected()
        yield fetcher
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def reached(kind: str, repo: Repository, tmp_path: Path, *, hurt: bool = False):
    """A fetcher over `kind`, and the proxy between it and the server (None for a folder)."""
    with contextlib.ExitStack() as stack:
        if kind == "folder":
            yield FolderFetcher(repo.folder), None
        elif kind == "https":
            ca = Certificates(tmp_path)
            tls = (str(ca.cert_file), str(ca.key_file))
            server = stack.enter_context(WebServer(repo, "127.0.0.1", 0, tls=tls))
            assert server.url.startswith("https://")
            proxy = stack.enter_context(Proxy(int(server.url.rpartition(":")[2].strip("/"))))
            url = f"https://127.0.0.1:{proxy.port}"
            fetcher = HttpsFetcher(url, ca_file=str(ca.ca_file))
            stack.callback(fetcher.close)
            yield fetcher, proxy
        else:
            broker = stack.enter_context(Broker())
            stack.enter_context(ChunkServer(repo, Mqtt(url=broker.url)))
            proxy = stack.enter_context(Proxy(broker.port))
            wait = {"timeout_s": 0.5, "tries_max": 1} if hurt else {"timeout_s": 1, "tries_max": 3}
            async with over_mqtt(proxy.port, **wait) as fetcher:
                yield fetcher, proxy


async def fetch(fetcher, store: FileStore, file: FileEntry = BIG) -> int:
    """Fetch one file of PACKAGE; how many bytes came."""
    partial = store.partial(PACKAGE, file)
    came = []
    try:
        await fetcher.fetch(file, partial, came.append)
        assert partial.holes() == ()
    finally:
        partial.close()
    return sum(came)


KINDS = ["folder", "https", "mqtt"]


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store", 64 * MB)


def test_metadata_comes_byte_for_byte(kind, repo, tmp_path):
    (repo.metadata / "1.root.json").write_text('{"signed": "µ"}\n', encoding="utf-8")
    repo.write_bundle()

    async def go():
        async with reached(kind, repo, tmp_path) as (fetcher, _):
            files = dict(await fetcher.metadata())
        assert files == repo.metadata_files()
        assert catalog.find(files["catalog.json"], "pump", None) == PACKAGE

    asyncio.run(go())


def test_a_package_comes_whole_and_progress_counts_every_byte_once(kind, repo, tmp_path, store):
    async def go():
        async with reached(kind, repo, tmp_path) as (fetcher, _):
            for file in FILES:
                assert await fetch(fetcher, store, file) == file.size
        path = store.adopt(PACKAGE)
        assert {p.name: p.read_bytes() for p in path.iterdir()} == BODIES

    asyncio.run(go())


def test_files_may_come_at_the_same_time(kind, repo, tmp_path, store):
    async def go():
        async with reached(kind, repo, tmp_path) as (fetcher, _):
            await asyncio.gather(fetcher.metadata(), *(fetch(fetcher, store, f) for f in FILES))
        store.adopt(PACKAGE)

    asyncio.run(go())


def test_only_holes_are_fetched(kind, repo, tmp_path, store):
    body = BODIES[BIG.path]
    partial = store.partial(PACKAGE, BIG)
    partial.write(0, body[:MB])
    partial.write(2 * MB, body[2 * MB : 3 * MB])
    partial.close()

    async def go():
        async with reached(kind, repo, tmp_path) as (fetcher, _):
            assert await fetch(fetcher, store) == BIG.size - 2 * MB
            for file in FILES:
                await fetch(fetcher, store, file)
        store.adopt(PACKAGE)

    asyncio.run(go())


def test_a_missing_blob_is_weather_and_is_named(kind, repo, tmp_path, store):
    repo.blob(BIG).unlink()

    async def go():
        async with reached(kind, repo, tmp_path) as (fetcher, _):
            with pytest.raises(UnavailableError, match=r"model\.onnx|sha256|404"):
                await fetch(fetcher, store)

    asyncio.run(go())


@pytest.mark.parametrize("size", [0, BIG.size - 1, BIG.size + 1])
def test_a_blob_of_the_wrong_length_is_weather(kind, repo, tmp_path, store, size):
    repo.blob(BIG).unlink()
    repo.blob(BIG).write_bytes(bytes(size))

    async def go():
        async with reached(kind, repo, tmp_path) as (fetcher, _):
            with pytest.raises(UnavailableError, match="bytes"):
                await fetch(fetcher, store)

    asyncio.run(go())


def test_wrong_bytes_of_the_right_length_are_found_when_adopting(kind, repo, tmp_path, store):
    repo.blob(BIG).chmod(0o644)
    repo.blob(BIG).write_bytes(bytes(BIG.size))

    async def go():
        async with reached(kind, repo, tmp_path) as (fetcher, _):
            for file in FILES:
                await fetch(fetcher, store, file)
        with pytest.raises(UnfitError, match=r"model\.onnx"):
            store.adopt(PACKAGE)

    asyncio.run(go())


def test_no_repository_is_weather(kind, repo, tmp_path, store):
    async def go():
        async with reached(kind, repo, tmp_path, hurt=True) as (fetcher, proxy):
            if proxy is None:
                shutil.rmtree(repo.folder)
            else:
                proxy.refuse()
            for attempt in (fetcher.metadata(), fetch(fetcher, store)):
                with pytest.raises(UnavailableError) as error:
                    await attempt
                assert "0x" not in str(error.value), "no addresses of Python objects in sentences"

    asyncio.run(go())


@pytest.mark.parametrize("kind", ["https", "mqtt"])
def test_after_twenty_cuts_with_a_restart_each_no_cut_cost_more_than_a_chunk(
    kind, repo, tmp_path, store
):
    chance, came, times = random.Random(7), [], 0
    wire = 0

    async def attempt(fetcher) -> bool:
        restarted = FileStore(tmp_path / "store", 64 * MB)
        partial = restarted.partial(PACKAGE, BIG)
        try:
            await fetcher.fetch(BIG, partial, came.append)
        except UnavailableError:
            await asyncio.sleep(0.01)
            return False
        finally:
            partial.close()
        return True

    async def go():
        nonlocal times, wire
        async with reached(kind, repo, tmp_path, hurt=True) as (fetcher, proxy):
            armed = -1
            while proxy.cuts < 20:
                if proxy.cuts > armed:
                    armed = proxy.cuts
                    proxy.cut_after(chance.randrange(1000, BIG.size // 8))
                if await attempt(fetcher):
                    times += 1
                    store.collect([])
            proxy.heal()
            async with asyncio.timeout(30):
                while not await attempt(fetcher):
                    pass
            times += 1
            wire = proxy.bytes_down

    asyncio.run(go())
    again = sum(came) - times * BIG.size
    print(f"{kind}: {again / 20 / CHUNK_BYTES:.2f} chunks again per cut;", end=" ")
    print(f"on the wire {(wire - times * BIG.size) / 20 / CHUNK_BYTES:.2f}")
    assert 0 <= again <= 20 * CHUNK_BYTES
    for file in FILES:
        asyncio.run(fetch(FolderFetcher(repo.folder), store, file))
    store.adopt(PACKAGE)


def test_a_repository_that_serves_later_is_waited_for(repo, tmp_path, store):
    async def go():
        with Broker() as broker, contextlib.ExitStack() as stack:
            async with over_mqtt(broker.port, timeout_s=0.3, tries_max=8) as fetcher:
                fetching = asyncio.create_task(fetch(fetcher, store))
                await eventually_async(lambda: fetcher.counts["retries"])
                server = ChunkServer(repo, Mqtt(url=broker.url))
                await asyncio.to_thread(stack.enter_context, server)
                assert await fetching == BIG.size

    asyncio.run(go())


def test_a_link_that_is_cut_in_the_middle_goes_on_by_itself(repo, tmp_path, store):
    async def go():
        with (
            Broker() as broker,
            ChunkServer(repo, Mqtt(url=broker.url)),
            Proxy(broker.port) as proxy,
        ):
            async with over_mqtt(proxy.port, timeout_s=1, tries_max=8) as fetcher:
                proxy.cut_after(MB)
                assert await fetch(fetcher, store) == BIG.size

    asyncio.run(go())


@pytest.mark.parametrize("url", ["file://other/x", "http://x", "file:", "relative"])
def test_a_url_that_names_no_folder_here_is_refused(url):
    with pytest.raises(RefusedError):
        folder_of(url)


def test_a_url_may_name_a_folder_with_a_blank():
    assert folder_of("file:///srv/my%20repo") == Path("/srv/my repo")


# ---- crooked web servers -------------------------------------------------------------------------


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


@contextlib.contextmanager
def crooked(behave):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Crooked)
    server.daemon_threads = True
    server.behave = behave
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
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
    "a redirect to a file": redirect("file:///etc/passwd"),
    "a redirect to ftp": redirect("ftp://127.0.0.1/x"),
    "a redirect to another scheme": redirect("https://127.0.0.1/x"),
    "a redirect to itself": redirect("/blobs"),
    "a redirect to nonsense": redirect("http://[::1"),
}


@pytest.mark.parametrize("behave", BAD_SERVERS.values(), ids=BAD_SERVERS.keys())
def test_a_web_server_that_answers_with_is_weather(behave, store):
    with crooked(behave) as url:
        fetcher = HttpsFetcher(url)
        with pytest.raises(UnavailableError) as error:
            asyncio.run(fetch(fetcher, store))
        assert "0x" not in str(error.value)
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


def test_a_fetch_that_is_cancelled_ends_at_once(store):
    def hang(h):
        h.answer(200, length=BIG.size)
        h.rfile.read(1)  # until the client goes

    async def go(fetcher):
        task = asyncio.create_task(fetch(fetcher, store))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with crooked(hang) as url:
        fetcher = HttpsFetcher(url)
        loop_time = asyncio.run(asyncio.wait_for(go(fetcher), 5))
        assert loop_time is None
        fetcher.close()


@pytest.mark.parametrize(
    "body", [b"", b"not base64", b"AAAA" * 100_000, pack_metadata({}).encode()[:-8], b"\xff\xfe"]
)
def test_metadata_that_is_none_is_weather(body):
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


# ---- crooked answers over MQTT -------------------------------------------------------------------


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
    from agent.core.chunks import read_answer

    (body,) = honest(repo, request_)
    assert read_answer(body).code == code


def test_a_request_without_an_id_is_not_answered(repo):
    assert honest(repo, b"\x00\xff") == []
    assert honest(repo, b'{"schema":1,"file":"x"}') == []
