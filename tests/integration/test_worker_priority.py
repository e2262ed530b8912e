"""Loading in the background, with and without the right to come back from the lowest class."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.worker import priority
from tests.world import zoo

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's scheduling classes")

# Takes away the right to leave SCHED_IDLE, for good, and goes on as an agent in a plain container.
UNPRIVILEGED = """
import ctypes, os, resource, sys
ctypes.CDLL(None).prctl(24, 23, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_SYS_NICE
resource.setrlimit(resource.RLIMIT_NICE, (0, 0))
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[1:]])
"""
AGENT = """
import os, sys, time
from pathlib import Path
from agent.adapters.onnx import InlineEngine
from agent.adapters.processes import ProcessEngine
from agent.core.manifest import parse
from agent.core.names import ModelRef
from agent.worker import priority
folder = Path(sys.argv[1])
manifest = parse((folder / "model.toml").read_bytes())
print("may return:", priority.may_return())
for engine in (ProcessEngine(sealed=False), InlineEngine(sealed=False)):
    session = engine.load(ModelRef("pump", 1, "sha256:0"), folder, manifest, background=True)
    session.serve()
    tasks = Path(f"/proc/{session.pid()}/task")
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:  # the thread that loaded is on its way out
        try:
            classes = {os.sched_getscheduler(int(task.name)) for task in tasks.iterdir()}
        except ProcessLookupError:
            continue
        if classes == {os.SCHED_OTHER}:
            break
    print("classes:", classes, session.golden().ok)
    session.close()
"""


@pytest.mark.parametrize(("threads", "at"), [(1, "load-only"), (3, "normal")])
def test_a_version_never_serves_at_the_lowest_class_even_without_privileges(
    tmp_path: Path, threads: int, at: str
) -> None:
    folder = zoo.mlp(tmp_path / "m", runtime={"threads": threads})
    command = [sys.executable, "-c", UNPRIVILEGED, AGENT, str(folder)]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "may return: False" in done.stdout
    assert "stuck" not in done.stdout
    assert done.stdout.count(f"classes: {{{os.SCHED_OTHER}}} True") == 2
    assert f"priority={at}" in done.stdout


def test_work_aside_is_at_the_lowest_class_and_leaves_the_caller_alone() -> None:
    assert priority.aside(lambda: os.sched_getscheduler(0)) == os.SCHED_IDLE
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    with pytest.raises(ZeroDivisionError):
        priority.aside(lambda: 1 // 0)
