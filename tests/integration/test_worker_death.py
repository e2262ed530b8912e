"""Workers that crash, hang, eat memory or are killed: who is blamed, and what is left behind."""

import os
import platform
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from agent.adapters.processes import Limits, ProcessEngine
from agent.adapters.processes.child import EXIT_S_MAX
from agent.core.errors import MisfitError, UnavailableError, UnfitError
from agent.core.manifest import parse
from agent.core.names import Digest, ModelRef
from agent.ports import Answer, Session, WorkerLostError
from agent.worker import priority
from agent.worker.arena import Arena
from tests.world import wild, zoo
from tests.world.waiting import eventually

REF = ModelRef("pump", 3, Digest(f"sha256:{'0' * 64}"))
ROOT = Path(__file__).resolve().parents[2]
Load = Callable[..., Session]
posix = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
linux = pytest.mark.skipif(sys.platform != "linux", reason="the layer is Linux's")


@pytest.fixture
def load() -> Iterator[Load]:
    sessions: list[Session] = []

    def do(folder: Path, *, background: bool = False, **limits: float) -> Session:
        engine = ProcessEngine(Limits(**limits), sealed=False)  # type: ignore[arg-type]
        manifest = parse((folder / "model.toml").read_bytes())
        sessions.append(engine.load(REF, folder, manifest, background=background))
        return sessions[-1]

    yield do
    for session in sessions:
        session.close()


def collect(session: Session, seconds: float = 20.0) -> Answer:
    assert select.select([session.fileno()], [], [], seconds)[0], f"nothing within {seconds} s"
    (answer,) = session.collect()
    return answer


def column(*values: float) -> list[np.ndarray]:
    return [np.array(values, np.float32)[:, None]]


# ---- at load -------------------------------------------------------------------------------------


@posix
def test_a_crash_while_loading_is_the_fault_of_the_bytes(load: Load, tmp_path: Path) -> None:
    with pytest.raises(UnfitError, match=r"was killed by SIGSEGV while loading pump:3"):
        load(wild.crash_at_load(tmp_path / "m"))


def test_a_load_that_takes_too_long_does_not_fit_this_device(load: Load, tmp_path: Path) -> None:
    with pytest.raises(MisfitError, match="did not load within 0 s on this device"):
        load(wild.crash_at_load(tmp_path / "m"), load_s=0.05)


def test_a_worker_that_does_not_start_is_weather(load: Load, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"did not say hello within 0.001 s"):
        load(zoo.mlp(tmp_path / "m"), start_s=0.001)


@linux
def test_a_model_larger_than_the_memory_it_may_have_does_not_fit(
    load: Load, tmp_path: Path
) -> None:
    with pytest.raises(MisfitError, match="needs more memory than a worker may use"):
        load(zoo.big(tmp_path / "m", size_mb=128), memory_bytes=144 * 2**20)


@linux
@pytest.mark.parametrize(("stated_mb", "bound_mb"), [(10, 512), (300, 1200)])
def test_the_manifest_bounds_the_memory_of_its_worker(
    load: Load, tmp_path: Path, stated_mb: int, bound_mb: int
) -> None:
    session = load(zoo.mlp(tmp_path / "m", runtime={"memory_mb": stated_mb}))
    limits = Path(f"/proc/{session.pid()}/limits").read_text().splitlines()
    (data,) = [line for line in limits if line.startswith("Max data size")]
    assert data.split()[3:5] == [str(bound_mb * 2**20)] * 2


@linux
def test_a_worker_gone_bad_cannot_pull_the_shared_memory_from_under_the_agent() -> None:
    arena = Arena.create(1 << 16)
    with pytest.raises(PermissionError):
        os.ftruncate(arena.fd, 0)
    arena.close()


@linux
def test_a_load_that_takes_too_much_processor_time_does_not_fit(load: Load, tmp_path: Path) -> None:
    """[jail-2.2]"""
    folder = wild.slow_to_load(tmp_path / "m", size=3000)
    with pytest.raises(MisfitError, match=r"did not load within 0\.2 s of processor time"):
        load(folder, load_cpu_s=0.2)


# ---- in a run ------------------------------------------------------------------------------------


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="only x86 traps here")
def test_a_crash_in_a_run_takes_the_worker_and_not_the_agent(load: Load, tmp_path: Path) -> None:
    session = load(wild.crash_on_minus_one(tmp_path / "m"))
    session.submit(1, column(3))
    assert not collect(session).error
    session.submit(2, column(-1))
    with pytest.raises(WorkerLostError, match=r"the worker of pump:3 was killed by SIGFPE"):
        collect(session)
    session.revive()
    session.submit(3, column(3))
    np.testing.assert_array_equal(collect(session).outputs[0], [[3]])


def test_a_hang_that_depends_on_the_reading_is_ended_by_kill(load: Load, tmp_path: Path) -> None:
    session = load(wild.hang_above(tmp_path / "m", threshold=100))
    assert session.golden().ok
    session.submit(1, column(1, 101))
    assert not select.select([session.fileno()], [], [], 0.3)[0]
    session.serve()  # control answers beside a run that does not
    session.kill()
    with pytest.raises(WorkerLostError, match="did not answer"):
        collect(session)
    session.revive()
    session.submit(2, column(1))
    assert not collect(session).error


@linux
@pytest.mark.parametrize("make", [wild.huge, wild.grows])
def test_a_model_that_eats_memory_is_stopped_by_its_bound(
    load: Load, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    """[jail-3.3]"""
    session = load(make(tmp_path / "m"), memory_bytes=600 * 2**20)
    session.submit(1, column(1))
    golden = session.golden()
    assert (golden.ok, golden.blame) == (False, "misfit")
    assert "need more memory than a worker may use" in golden.why
    assert "memory" in collect(session).error.lower()
    assert session.rss_bytes() < 700 * 2**20


@posix
def test_a_worker_killed_in_mid_run_is_lost_and_revived(load: Load, tmp_path: Path) -> None:
    session = load(wild.hang_above(tmp_path / "m"))
    session.submit(1, column(1))
    assert select.select([session.fileno()], [], [], 5)[0]
    session.submit(2, column(1000))
    old = session.pid()
    assert old is not None
    os.kill(old, signal.SIGKILL)
    eventually(lambda: session.pid() is None)
    first = collect(session)  # what had come before is not lost
    assert (first.job, first.error) == (1, "")
    with pytest.raises(WorkerLostError, match="killed by SIGKILL"):
        collect(session)
    session.revive()
    assert session.pid() not in (None, old)
    session.submit(2, column(1))
    assert collect(session).job == 2
    assert session.golden().ok


# ---- golden samples ------------------------------------------------------------------------------


def test_a_hang_on_the_golden_samples_is_a_verdict(load: Load, tmp_path: Path) -> None:
    session = load(wild.hang(tmp_path / "m"), run_s=0.2)
    result = session.golden()
    assert not result.ok
    assert "did not end within 0.4 s" in result.why


SPIN = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
print(flush=True)
while True:
    pass
"""


@linux
@pytest.mark.skipif(not priority.may_return(), reason="needs CAP_SYS_NICE or RLIMIT_NICE")
def test_a_candidate_that_never_gets_the_processor_is_not_accused(
    load: Load, tmp_path: Path
) -> None:
    """[jail-3.4]"""
    session = load(wild.hang(tmp_path / "m"), background=True, run_s=0.5)
    core = {next(iter(os.sched_getaffinity(0)))}
    pid = session.pid()
    assert pid is not None
    for tid in priority.threads(f"/proc/{pid}/task"):
        os.sched_setaffinity(tid, core)
    command = [sys.executable, "-c", SPIN, str(*core)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as busy:
        try:
            assert busy.stdout is not None
            busy.stdout.readline()
            with pytest.raises(WorkerLostError, match=r"in 1 s; this device is too busy"):
                session.golden()
        finally:
            busy.kill()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="only x86 traps here")
def test_a_crash_on_the_golden_samples_is_a_verdict(load: Load, tmp_path: Path) -> None:
    folder = wild.crash_on_minus_one(tmp_path / "m")
    session = load(folder)
    np.savez(folder / "golden.npz", **{"in:x": column(-1)[0], "out:y": column(-1)[0]})
    session.revive()
    result = session.golden()
    assert not result.ok
    assert "killed by SIGFPE while it ran the golden samples" in result.why


@posix
def test_a_worker_killed_from_outside_is_no_verdict(load: Load, tmp_path: Path) -> None:
    session = load(zoo.mlp(tmp_path / "m"))
    pid = session.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerLostError, match="SIGKILL"):
        session.golden()


# ---- life together -------------------------------------------------------------------------------


@posix
def test_a_worker_ignores_the_signals_of_the_terminal(load: Load, tmp_path: Path) -> None:
    session = load(zoo.mlp(tmp_path / "m"))
    pid = session.pid()
    assert pid is not None
    assert os.getpgid(pid) != os.getpgid(0)
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
    assert session.golden().ok


def test_a_worker_outlives_the_thread_that_loaded_it(load: Load, tmp_path: Path) -> None:
    folder = zoo.mlp(tmp_path / "m")
    sessions: list[Session] = []
    loader = threading.Thread(target=lambda: sessions.append(load(folder)))
    loader.start()
    loader.join()
    assert sessions[0].golden().ok
    assert sessions[0].pid() is not None


AGENT = """
import select, sys, time
from pathlib import Path
import numpy as np
from agent.adapters.processes import ProcessEngine
from agent.core.manifest import parse
from agent.core.names import ModelRef
folder = Path(sys.argv[1])
manifest = parse((folder / "model.toml").read_bytes())
engine, ref = ProcessEngine(sealed=False), ModelRef("pump", 1, "sha256:0")
session = engine.load(ref, folder, manifest, background=False)
session.submit(1, [np.full((1, 1), 1000, np.float32)])
time.sleep(0.2)
print(session.pid(), flush=True)
time.sleep(60)
"""


def test_a_worker_in_the_middle_of_a_run_ends_by_itself_when_it_is_let_go(
    load: Load, tmp_path: Path
) -> None:
    session = load(wild.hang_above(tmp_path / "m"))
    pid = session.pid()
    assert pid is not None
    process = psutil.Process(pid)
    session.submit(1, column(1000))
    eventually(lambda: process.cpu_times().user > 0.2)
    started = time.monotonic()
    session.close()
    assert time.monotonic() - started < EXIT_S_MAX  # after that it would have been killed


@posix
@pytest.mark.parametrize(
    "stopped",
    [False, pytest.param(True, marks=linux)],  # stopped it cannot see that its sockets close
    ids=["running", "stopped"],
)
def test_a_worker_in_the_middle_of_a_run_goes_with_an_agent_that_is_killed(
    tmp_path: Path, *, stopped: bool
) -> None:
    folder = wild.hang_above(tmp_path / "m")
    command = [sys.executable, "-c", AGENT, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        lines = iter(agent.stdout.readline, b"")
        pid = next(int(line) for line in lines if line.strip().isdigit())
        if stopped:
            os.kill(pid, signal.SIGSTOP)
        assert psutil.pid_exists(pid)
        agent.kill()
    eventually(lambda: _has_ended(pid), 5)


def _has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@linux
@pytest.mark.skipif(not priority.may_return(), reason="needs CAP_SYS_NICE or RLIMIT_NICE")
def test_a_load_in_the_background_is_in_the_idle_class_until_it_serves(
    load: Load, tmp_path: Path
) -> None:
    session = load(zoo.mlp(tmp_path / "m", runtime={"threads": 3}), background=True)
    tasks = Path(f"/proc/{session.pid()}/task")
    tids = [int(task.name) for task in tasks.iterdir()]
    assert len(tids) >= 4  # two of the worker's own, two of onnxruntime's pool
    assert {os.sched_getscheduler(tid) for tid in tids} == {os.SCHED_IDLE}
    session.serve()
    assert {os.sched_getscheduler(tid) for tid in tids} == {os.SCHED_OTHER}
