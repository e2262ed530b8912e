"""The contract of fetchers, over a real folder, a real TLS web server and a real broker."""

import asyncio
import contextlib
import random
import shutil
from pathlib import Path

import pytest

from agent.adapters.files import FileStore
from agent.adapters.folder import FolderFetcher, folder_of
from agent.config import Mqtt
from agent.core import catalog
from agent.core.errors import DamagedError, RefusedError, UnavailableError
from agent.core.packages import CHUNK_BYTES
from agent.repository.serving import ChunkServer
from tests.world.broker import Broker
from tests.world.proxy import Proxy
from tests.world.transports import (
    BIG,
    BODIES,
    FILES,
    MB,
    PACKAGE,
    fetch,
    over_mqtt,
    reached,
    repo,
    store,
)
from tests.world.waiting import eventually_async

__all__ = ["repo", "store"]  # fixtures

KINDS = ["folder", "https", "mqtt"]


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


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
    """[chunks-1.1]"""

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
    """[chunks-2.2]"""
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
        with pytest.raises(DamagedError, match=r"model\.onnx"):
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
    """[chunks-1.2]"""
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
            async with over_mqtt(broker.port, timeout_s=0.3, tries_max=100) as fetcher:
                fetching = asyncio.create_task(fetch(fetcher, store))
                await eventually_async(lambda: fetcher.counts["retries"])
                server = ChunkServer(repo, Mqtt(url=broker.url))
                await asyncio.to_thread(stack.enter_context, server)
                assert await fetching == BIG.size

    asyncio.run(go())


def test_a_link_that_is_cut_in_the_middle_goes_on_by_itself(repo, tmp_path, store):
    """[chunks-1.5]"""

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
