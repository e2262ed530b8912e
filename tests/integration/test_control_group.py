"""A real control group around a real process: what the machine is said to have is what kills."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

MB = 2**20
LIMIT = 200 * MB
CHILD = """
import sys
from agent.adapters.machine import LocalMachine
MB = 2**20
sys.stdin.readline()  # in the group now
before = LocalMachine().memory()
held = bytearray(int(sys.argv[1]) * MB)
held[::4096] = b"x" * len(held[::4096])
after = LocalMachine().memory()
print(before.limit_bytes, before.free_bytes, after.free_bytes, after.source, sep="\\n")
"""


def mine() -> tuple[Path, str]:
    """The group this process is in, and the file that holds a group's limit."""
    root = Path("/sys/fs/cgroup")
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return root / "memory" / path.lstrip("/"), "memory.limit_in_bytes"
        if not controllers and (root / "cgroup.controllers").exists():
            return root / path.lstrip("/"), "memory.max"
    pytest.skip("no control group with a memory controller here")


@pytest.fixture
def group():
    """A group below our own, with a limit; what runs in it stays in ours as well."""
    if sys.platform != "linux":
        pytest.skip("control groups are Linux's")
    parent, limit = mine()
    made = parent / f"edge-agent-test-{uuid.uuid4().hex[:8]}"
    try:
        made.mkdir()
    except OSError as error:
        pytest.skip(f"no control group may be made here: {error.strerror}")
    try:
        try:
            (made / limit).write_text(str(LIMIT))
        except OSError as error:
            pytest.skip(f"no limit may be set here: {error.strerror}")
        yield made
    finally:
        made.rmdir()


@pytest.mark.integration
@pytest.mark.parametrize("held_mb", [0, 100])
def test_what_is_free_follows_what_a_process_in_the_group_takes(group, held_mb):
    """[rollout-9.3]"""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(held_mb)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as child:
        (group / "cgroup.procs").write_text(str(child.pid))
        out, _ = child.communicate("\n", timeout=30)
    limit, before, after = map(int, out.split()[:3])
    assert child.returncode == 0
    assert limit == LIMIT
    assert before <= LIMIT
    assert before - after == pytest.approx(held_mb * MB, abs=12 * MB)
    assert "control group" in out
