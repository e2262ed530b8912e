"""Every way a package can travel, each over the real thing: what fetchers are tested with.

`repo` and `store` are fixtures: import them where they are used.
"""

import asyncio
import contextlib
import hashlib
import random
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.adapters.files import FileStore
from agent.adapters.folder import FolderFetcher
from agent.adapters.https import HttpsFetcher
from agent.adapters.mqtt.link import MqttLink
from agent.config import Mqtt
from agent.core.names import Digest, ModelRef
from agent.core.packages import CHUNK_BYTES, FileEntry, Package, digest_of
from agent.core.topics import Topics
from agent.repository.layout import Repository
from agent.repository.serving import ChunkServer
from agent.repository.web import WebServer
from agent.runtime.chunked import ChunkedFetcher
from tests.world.broker import Broker, Certificates
from tests.world.proxy import Proxy

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


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store", 64 * MB)
