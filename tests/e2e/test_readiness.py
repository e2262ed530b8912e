"""Ready means: the live session reproduces its golden outputs now, not only when it was loaded."""

import contextlib
import os
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from onnx import helper

from tests.world import zoo
from tests.world.memory_fault import flip
from tests.world.pack import constant, model, tensor, write
from tests.world.site import Site
from tests.world.waiting import eventually

WEIGHTS = np.random.default_rng(8).normal(size=8).astype(np.float32)
IS_ROOT_ON_LINUX = sys.platform == "linux" and os.geteuid() == 0


def workers(site):
    found = set()
    for child in psutil.Process(site.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if "agent.worker" in " ".join(child.cmdline()):
                found.add(child)
    return found


def weighed(folder):
    """y = the sum of x + 8 weights that are found again in memory."""
    nodes = [
        helper.make_node("Add", ["x", "w"], ["s"]),
        helper.make_node("ReduceSum", ["s", "axis"], ["y"], keepdims=1),
    ]
    made = model(
        nodes,
        [tensor("x", "f4", ["n", 8])],
        [tensor("y", "f4", ["n", 1])],
        [constant("w", WEIGHTS), constant("axis", [1], "int64")],
    )
    return write(folder, made, zoo.manifest(8, name="m"), {"x": zoo.rows(8)})


@pytest.mark.skipif(not IS_ROOT_ON_LINUX, reason="writes into another process: root, on Linux")
def test_a_live_session_that_goes_wrong_is_not_ready_says_why_and_is_healed(broker, tmp_path):
    """[rollout-4.2]"""
    with Site(broker, tmp_path, engine={"golden_s": 0.5}) as site:
        site.start()
        site.deploy(weighed(tmp_path / "v1"))
        site.ready()
        (worker,) = eventually(lambda: len(found := workers(site)) == 1 and found)
        assert flip(worker.pid, WEIGHTS.tobytes(), (WEIGHTS + 1).tobytes()) > 0
        state = eventually(
            lambda: next((s for s in [site.state()] if s and "golden" in str(s["reasons"])), None),
            20,
            "a reason that names the golden sample",
        )
        assert not state["ready"]
        assert state["live"]
        site.ready()
        assert workers(site).isdisjoint({worker})


def test_a_version_whose_files_were_changed_is_not_brought_back_as_if_nothing_were(
    broker, tmp_path
):
    """[jail-1.1]"""
    with Site(broker, tmp_path) as site:
        site.start()
        site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
        site.ready()
        golden = next(Path(tmp_path / "store" / "models" / "sha256").glob("*/golden.npz"))
        golden.parent.chmod(0o755)
        golden.unlink()
        other = zoo.mlp(tmp_path / "other", name="m", bias=5.0)
        golden.write_bytes((other / "golden.npz").read_bytes())
        for worker in workers(site):
            worker.kill()
        gone = lambda: "worker is gone" in str((state := site.state())["reasons"]) and state  # noqa: E731
        assert not eventually(gone, 20)["ready"]
