"""What stays behind after many versions came and went: nothing."""

import ctypes
import gc
import select
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from agent.adapters.onnx import InlineEngine
from agent.adapters.processes import Limits, ProcessEngine
from agent.core.manifest import parse
from agent.core.names import Digest, ModelRef
from agent.ports import Engine
from tests.world import zoo

KEPT, KEPT_BYTES = 512, 64 * 1024  # too small to be mapped one by one
REF = ModelRef("pump", 3, Digest(f"sha256:{'0' * 64}"))
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counted in /proc")


def held() -> dict[str, Any]:
    me = psutil.Process()
    mapped = Path("/proc/self/maps").read_text()
    return {
        "processes": len(me.children(recursive=True)),
        "descriptors": me.num_fds(),
        "threads": threading.active_count(),
        "arenas": mapped.count("edge-agent-arena"),
        "segments": sorted(Path("/dev/shm").iterdir()) if Path("/dev/shm").is_dir() else [],
    }


def cycle(engine: Engine, folder: Path, *, background: bool = False) -> None:
    manifest = parse((folder / "model.toml").read_bytes())
    session = engine.load(REF, folder, manifest, background=background)
    x = np.ones((4, 8), np.float32)
    session.submit(1, [x])
    assert select.select([session.fileno()], [], [], 10)[0]
    assert not session.collect()[0].error
    session.close()


@pytest.mark.parametrize(
    "engine",
    [ProcessEngine(Limits(), sealed=False), InlineEngine(sealed=False)],
    ids=["process", "inline"],
)
@pytest.mark.parametrize("cycles", [40, pytest.param(400, marks=pytest.mark.soak)])
def test_many_versions_leave_nothing_behind(engine: Engine, tmp_path: Path, cycles: int) -> None:
    folder = zoo.mlp(tmp_path / "m")
    cycle(engine, folder)
    cycle(engine, folder)
    gc.collect()  # what other tests have left is not ours to count
    before, rss = held(), psutil.Process().memory_info().rss
    for turn in range(cycles):  # at the lowest class a load takes what others leave it
        cycle(engine, folder, background=turn % 10 == 0)
    after = held()
    assert after.pop("descriptors") <= before.pop("descriptors")
    assert after == before
    assert psutil.Process().memory_info().rss - rss < 16 * 2**20


@pytest.mark.parametrize("engine", [ProcessEngine, InlineEngine])
def test_a_version_that_goes_takes_along_what_the_allocator_keeps(engine, tmp_path: Path) -> None:
    folder, libc = zoo.mlp(tmp_path / "m"), ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    manifest = parse((folder / "model.toml").read_bytes())
    session = engine(sealed=False).load(REF, folder, manifest, background=False)
    pieces = [libc.malloc(KEPT_BYTES) for _ in range(KEPT)]
    for piece in pieces:
        ctypes.memset(piece, 1, KEPT_BYTES)
    for piece in pieces[:-1]:  # the last one keeps those below it from going by themselves
        libc.free(piece)
    try:
        before = psutil.Process().memory_info().rss
        session.close()
        assert before - psutil.Process().memory_info().rss > KEPT * KEPT_BYTES / 2
    finally:
        libc.free(pieces[-1])


def test_what_only_reaches_itself_goes_with_a_version_and_the_lasting_is_not_looked_at(tmp_path):
    class Ring:
        pass

    engine, folder = ProcessEngine(Limits(), sealed=False), zoo.mlp(tmp_path / "m")
    cycle(engine, folder)
    spared = gc.get_freeze_count()
    assert spared > len(gc.get_objects()), "modules, functions and classes"
    ring = Ring()
    ring.itself, gone = ring, weakref.ref(ring)
    del ring
    cycle(engine, folder)
    assert gone() is None
    assert gc.get_freeze_count() <= spared, "what came later is looked at"


def test_a_killed_worker_leaves_nothing_behind(tmp_path: Path) -> None:
    engine, folder = ProcessEngine(Limits(), sealed=False), zoo.mlp(tmp_path / "m")
    cycle(engine, folder)
    before = held()
    manifest = parse((folder / "model.toml").read_bytes())
    session = engine.load(REF, folder, manifest, background=False)
    for _ in range(5):
        session.kill()
        session.revive()
    big = np.ones((300_000, 8), np.float32)
    session.submit(1, [big])
    session.kill()
    session.close()
    after = held()
    assert after.pop("descriptors") <= before.pop("descriptors")
    assert after == before


def test_a_refused_version_leaves_nothing_behind(tmp_path: Path) -> None:
    engine, folder = ProcessEngine(Limits(), sealed=False), zoo.mlp(tmp_path / "m")
    cycle(engine, folder)
    before = held()
    (folder / "golden.npz").unlink()
    for _ in range(3):
        with pytest.raises(Exception, match=r"golden\.npz"):
            cycle(engine, folder)
    after = held()
    assert after.pop("descriptors") <= before.pop("descriptors")
    assert after == before
