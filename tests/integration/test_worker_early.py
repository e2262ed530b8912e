"""A worker that waits for its errand: made into the first one wanted, and never left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from agent.adapters.processes import ProcessEngine
from agent.core.manifest import parse
from agent.core.names import ModelRef
from agent.worker import early
from tests.world import zoo
from tests.world.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no sockets are inherited there")
ENDS = "from agent.worker import early; early.start(); print(early._waiting.process.pid)"


@pytest.fixture
def waiting():
    """Its process."""
    early.start()
    assert early._waiting is not None
    yield early._waiting.process
    if (left := early.take()) is not None:
        left.close()


@pytest.fixture
def load(tmp_path):
    folder = zoo.mlp(tmp_path / "m")
    manifest = parse((folder / "model.toml").read_bytes())
    engine, sessions = ProcessEngine(sealed=False), []

    def load(*, background=False):
        ref = ModelRef("m", 1, "sha256:0")
        sessions.append(engine.load(ref, folder, manifest, background=background))
        return sessions[-1]

    yield load
    for session in sessions:
        session.close()


@pytest.mark.parametrize("background", [False, True])
def test_the_first_version_is_loaded_by_the_one_that_waits(waiting, load, background):
    first, second = load(background=background), load()
    assert first.pid() == waiting.pid != second.pid()
    assert first.golden().ok
    first.serve()
    first.revive()
    assert first.pid() not in (None, waiting.pid)


def test_it_is_in_the_same_jail_as_any_other(waiting, load):
    def held(pid):
        status = Path(f"/proc/{pid}/status").read_text()
        kept = ("NoNewPrivs", "Seccomp", "CapEff")
        limits = Path(f"/proc/{pid}/limits").read_text()
        return [line for line in status.splitlines() if line.startswith(kept)], limits

    if not Path("/proc/self/limits").is_file():
        pytest.skip("no /proc")
    first, second = load(), load()
    assert first.pid() == waiting.pid
    assert held(first.pid()) == held(second.pid())


def test_of_one_that_died_meanwhile_nothing_is_felt(waiting, load):
    waiting.kill()
    waiting.wait()
    assert load().golden().ok


def test_one_that_dies_while_it_is_told_is_replaced(waiting, load):
    os.kill(waiting.pid, signal.SIGSTOP)
    one = early._waiting
    one.control.close()  # its end of the conversation is gone, and it cannot say so
    assert load().golden().ok
    assert waiting.poll() is not None


def test_it_ends_with_an_agent_that_wants_none():
    done = subprocess.run(
        [sys.executable, "-c", ENDS],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    eventually(lambda: not psutil.pid_exists(int(done.stdout)), 10, "it is gone")
