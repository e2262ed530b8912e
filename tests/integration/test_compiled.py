"""Compiled code is built once, sealed when right, used again, and built anew when damaged."""

import subprocess
import sys
from pathlib import Path

import pytest

from agent.adapters.files.durable import sha256_of
from agent.adapters.processes import Compiled, Limits, ProcessEngine
from agent.adapters.processes.compiled import Shelf
from agent.core.accelerators import Outfit
from agent.core.manifest import parse
from agent.core.names import ModelRef
from agent.core.packages import FileEntry, digest_of
from tests.world import zoo

ROOT = Path(__file__).resolve().parents[2]


def engine(folder, *, mode="all", bytes_max=64 * 2**20):
    return ProcessEngine(
        Limits(), outfit=Outfit(compiled=mode), compiled=Compiled(folder, bytes_max)
    )


def started(engine, package):
    """Loaded and proven; how its compiled code came about."""
    files = [FileEntry(p.name, p.stat().st_size, sha256_of(p)) for p in package.iterdir()]
    ref = ModelRef("zoo", 1, digest_of("zoo", files))
    manifest = parse((package / "model.toml").read_bytes())
    session = engine.load(ref, package, manifest, background=False)
    try:
        assert session.golden().ok
        return session.placement.compiled
    finally:
        session.close()


def test_a_second_start_uses_what_the_first_has_built_and_damage_is_built_anew(tmp_path):
    """[accelerators-4.1] [accelerators-4.2]"""
    package, folder = zoo.mlp(tmp_path / "m"), tmp_path / "compiled"
    assert started(engine(folder), package) == "built"
    (kept,) = folder.rglob("optimized.onnx")
    assert started(engine(folder), package) == "kept"
    kept.write_bytes(kept.read_bytes()[:-3] + b"bad")
    assert started(engine(folder), package) == "built"
    assert started(engine(folder), package) == "kept"
    (seal,) = folder.glob("*.seal")
    seal.unlink()  # a worker that never got as far as its golden outputs
    assert started(engine(folder), package) == "built"


def test_for_the_cpu_nothing_is_kept_unless_it_is_told_to(tmp_path):
    """[accelerators-4.3]"""
    package, folder = zoo.mlp(tmp_path / "m"), tmp_path / "compiled"
    assert started(engine(folder, mode="accelerators"), package) == ""
    assert started(engine(folder, mode="off"), package) == ""
    assert not folder.exists()


def test_another_version_has_another_place_and_what_is_too_much_is_dropped(tmp_path):
    """[accelerators-4.3]"""
    folder = tmp_path / "compiled"
    one, other = zoo.mlp(tmp_path / "a", seed=1), zoo.mlp(tmp_path / "b", seed=2)
    assert started(engine(folder), one) == "built"
    assert started(engine(folder), other) == "built"
    assert len([p for p in folder.iterdir() if p.is_dir()]) == 2
    assert started(engine(folder), one) == "kept"  # used last
    kept = Compiled(folder, 1)
    names = sorted(p.name for p in folder.iterdir() if p.is_dir())
    kept.tidy(names[0])
    assert [p.name for p in folder.iterdir() if p.is_dir()] == names[:1]


def test_no_place_to_keep_anything_is_no_reason_not_to_run(tmp_path):
    (tmp_path / "compiled").write_bytes(b"a file is in the way")
    assert started(engine(tmp_path / "compiled"), zoo.mlp(tmp_path / "m")) == ""
    assert Shelf().opened() == {}


JAILED = """
import sys
from pathlib import Path
from agent.worker import jail
package, cache, room = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
on = jail.close_in(package, 1 << 30, accelerated=False, cache=cache, cache_bytes=room)
assert "landlock" in on, on

def writes(path):
    try:
        Path(path).write_bytes(b"x" * 4096)
    except OSError:
        return "no"
    return "yes"

told = [writes(f"{cache}/cpu/a"), writes(f"{package}/b"), writes("/tmp/edge-agent-test-c")]
print(*told, len(Path(f"{cache}/cpu/kept").read_bytes()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock is Linux's")
@pytest.mark.parametrize(("room", "told"), [(1 << 20, "yes no no 4"), (0, "no no no 4")])
def test_a_worker_writes_where_compiled_code_is_to_be_kept_and_nowhere_else(tmp_path, room, told):
    """[accelerators-4.2]"""
    package, cache = zoo.mlp(tmp_path / "m"), tmp_path / "compiled"
    (cache / "cpu").mkdir(parents=True)
    (cache / "cpu" / "kept").write_bytes(b"kept")
    done = subprocess.run(
        [sys.executable, "-c", JAILED, package, cache, str(room)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    if "landlock" in done.stderr:
        pytest.skip("there is no Landlock here")
    assert done.stdout.strip() == told, done.stderr


PEAK = """
import os, sys
from pathlib import Path
import numpy as np
from agent.core.brief import brief
from agent.core.manifest import parse
from agent.worker.loaded import Loaded

package, shrinks = Path(sys.argv[1]), sys.argv[2] == "shrinks"
loaded = Loaded(package, brief(parse((package / "model.toml").read_bytes())))
if not shrinks:
    loaded._is_peak = lambda _: False
usual, peak = np.ones((64, 8), np.float32), np.ones((400_000, 8), np.float32)

def resident_mb():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

for _ in range(20):
    loaded.run([usual])
before = resident_mb()
loaded.run([peak])
print(resident_mb() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_after_a_peak_the_arena_gives_back_what_it_took(tmp_path):
    """[accelerators-6.2]"""
    package = zoo.mlp(tmp_path / "m")
    left = {}
    for how in ("shrinks", "keeps"):  # each in a process of its own: memory is used again
        command = [sys.executable, "-c", PEAK, str(package), how]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        left[how] = float(done.stdout)
    print(f"kept after a peak of 400,000 rows: {left['shrinks']:.0f} of {left['keeps']:.0f} MB")
    assert left["shrinks"] < left["keeps"] / 2, left
