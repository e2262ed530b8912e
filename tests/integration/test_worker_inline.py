"""What an inline session does to the process it lives in."""

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

from agent.adapters.onnx import InlineEngine, record_golden
from agent.core.errors import UnfitError
from agent.core.manifest import parse
from agent.core.names import Digest, ModelRef
from agent.ports import WorkerLostError
from agent.worker import priority
from tests.world import wild, zoo
from tests.world.pack import reference
from tests.world.waiting import eventually

REF = ModelRef("pump", 3, Digest(f"sha256:{'0' * 64}"))
ROOT = Path(__file__).resolve().parents[2]
linux = pytest.mark.skipif(sys.platform != "linux", reason="told by /proc")


@linux
@pytest.mark.skipif(not priority.may_return(), reason="needs CAP_SYS_NICE or RLIMIT_NICE")
def test_a_background_load_gives_the_calling_thread_its_class_back(tmp_path: Path) -> None:
    folder = zoo.mlp(tmp_path / "m", runtime={"threads": 3})
    manifest = parse((folder / "model.toml").read_bytes())
    before = priority.threads()
    session = InlineEngine(sealed=False).load(REF, folder, manifest, background=True)
    try:
        eventually(lambda: len(priority.threads() - before) == 2)  # the loading one has ended
        pool = priority.threads() - before
        assert {os.sched_getscheduler(tid) for tid in pool} == {os.SCHED_IDLE}
        assert os.sched_getscheduler(0) == os.SCHED_OTHER
        session.serve()
        assert {os.sched_getscheduler(tid) for tid in pool} == {os.SCHED_OTHER}
    finally:
        session.close()


@linux
def test_versions_give_their_memory_back(tmp_path: Path) -> None:
    folder = zoo.big(tmp_path / "m", size_mb=24)
    manifest = parse((folder / "model.toml").read_bytes())
    ctypes.CDLL(None).malloc_trim(0)  # of what making the model has left
    before = psutil.Process().memory_info().rss
    for _ in range(2):
        session = InlineEngine(sealed=False).load(REF, folder, manifest, background=False)
        assert session.golden().ok
        assert session.rss_bytes() - before > 20 * 2**20
        session.close()
    assert psutil.Process().memory_info().rss - before < 16 * 2**20


def test_a_hang_inside_onnxruntime_ends_when_it_is_told_to(tmp_path: Path) -> None:
    folder = wild.hang_above(tmp_path / "m")
    manifest = parse((folder / "model.toml").read_bytes())
    session = InlineEngine(sealed=False).load(REF, folder, manifest, background=False)
    killer = threading.Timer(0.3, session.kill)
    killer.start()
    with pytest.raises(WorkerLostError):
        session.submit(1, [np.full((1, 1), 1000, np.float32)])
    killer.join()
    session.revive()
    assert session.golden().ok
    session.close()


def test_recorded_golden_outputs_are_those_of_the_model(tmp_path: Path) -> None:
    folder = zoo.classifier(tmp_path / "m")
    (folder / "golden.npz").unlink()
    manifest = parse((folder / "model.toml").read_bytes())
    feed = {"x": zoo.rows(4)}
    got = record_golden(folder, manifest, feed)
    want = reference(folder / "model.onnx", feed)
    assert set(got) == {"label", "probabilities"}
    for name, array in got.items():
        np.testing.assert_allclose(array, want[name], rtol=1e-5)
    with pytest.raises(UnfitError, match="no golden samples were given for the input x"):
        record_golden(folder, manifest, {})


def test_the_process_engine_leaves_onnxruntime_out_of_the_agent() -> None:
    code = "import sys, agent.adapters.processes; print('onnxruntime' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
