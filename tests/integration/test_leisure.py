"""A package comes in at leisure, since a stream is scored meanwhile."""

import asyncio
import itertools
import time

import pytest

from agent.adapters.files import leisure
from agent.adapters.files.leisure import REST, REST_S_MAX, STEP_BYTES
from agent.adapters.files.partial import FilePartial
from agent.adapters.files.store import FileStore
from agent.adapters.folder import PIECE_BYTES, FolderFetcher
from agent.core.names import Digest
from agent.core.packages import FileEntry
from tests.world import zoo

STEPS = 4
HEX = "0" * 64


@pytest.fixture
def rests(monkeypatch):
    """How long each rest would have been."""
    taken = []
    monkeypatch.setattr(leisure.time, "sleep", taken.append)
    return taken


@pytest.fixture
def ticking(monkeypatch):
    """A clock that is 10 ms later each time that it is asked."""
    ticks = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks) * 0.01)


@pytest.fixture
def partial(tmp_path):
    partial = FilePartial(tmp_path / "it", STEPS * STEP_BYTES)
    yield partial
    partial.close()


def test_each_step_of_a_write_is_followed_by_a_rest(partial, rests, ticking):
    """[store-1.12]"""
    partial.write(0, bytes(partial.size))
    assert rests == pytest.approx([REST * 0.01] * STEPS)
    assert partial.holes() == ()


def test_a_step_ends_where_a_block_of_the_log_does(partial, rests):
    """[store-1.12] Or its digest would be had by reading it again."""
    partial.write(STEP_BYTES // 2, bytes(STEP_BYTES))
    assert len(rests) == 2


def test_a_slow_disk_is_slow_enough(partial, rests, monkeypatch):
    """[store-1.12]"""
    ticks = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(ticks)))
    partial.write(0, bytes(partial.size))
    assert rests == [REST_S_MAX] * STEPS


def test_what_was_closed_meanwhile_writes_no_more(partial, monkeypatch):
    monkeypatch.setattr(leisure.time, "sleep", lambda _: partial.close())
    partial.write(0, bytes(partial.size))
    assert partial.holes() == ((STEP_BYTES, partial.size),)


def test_a_little_is_synced_at_a_time(partial, rests, monkeypatch):
    """[store-1.12]"""
    synced = []
    monkeypatch.setattr("agent.adapters.files.partial._sync", synced.append)
    partial.write(0, bytes(partial.size))
    assert len(synced) == STEPS // 2


def test_a_folder_hands_on_a_large_piece_at_a_time(tmp_path):
    """To hand one to a thread and back costs more than to copy 128 KiB."""
    blob = tmp_path / "blobs" / "sha256" / HEX
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(3 * PIECE_BYTES))
    written = []

    class Disk:
        size = 3 * PIECE_BYTES

        def holes(self):
            return [(0, self.size)]

        def write(self, offset, chunk):
            written.append((offset, len(chunk)))

    file = FileEntry("model.onnx", Disk.size, Digest(f"sha256:{HEX}"))
    asyncio.run(FolderFetcher(tmp_path).fetch(file, Disk(), lambda _: None))
    assert written == [(n * PIECE_BYTES, PIECE_BYTES) for n in range(3)]


def test_a_factory_model_is_taken_at_once_and_a_package_verified_at_leisure(tmp_path, rests):
    """[store-1.12] Nothing is scored before the one, and a stream beside the other."""
    folder = zoo.big(tmp_path / "v1", size_mb=1, bias=0.0, name="m", features={"names": ["f0"]})
    factory = FileStore(tmp_path / "factory", 2**30)
    package = factory.adopt_folder(folder)
    assert rests == []
    other = FileStore(tmp_path / "other", 2**30)
    for file in package.files:
        it = other.partial(package, file)
        it.write(0, (folder / file.path).read_bytes())
        it.close()
    written = len(rests)
    assert written == sum(-(-file.size // STEP_BYTES) for file in package.files)
    other.adopt(package)
    assert len(rests) - written == written
