"""What a worker cannot do, tried from inside a process that put on the very same jail."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from agent.adapters.processes import Limits, ProcessEngine
from agent.core.manifest import parse
from agent.core.names import Digest, ModelRef
from tests.world import zoo

ROOT = Path(__file__).resolve().parents[2]
REF = ModelRef("pump", 3, Digest(f"sha256:{'0' * 64}"))
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")

INSIDE = """
import json, os, resource, signal, socket, sys, threading
from pathlib import Path
from agent.worker import jail
folder, secret, outside, parent = sys.argv[1:5]
jailed = sys.argv[5] != "accelerated"
layers = jail.close_in(Path(folder), 1 << 30, accelerated=not jailed)
def tried(what):
    try:
        what()
    except OSError as error:
        return type(error).__name__
    return "done"
print(json.dumps({
    "layers": layers,
    "read model": tried(lambda: Path(folder, "model.onnx").read_bytes()),
    "read secret": tried(lambda: Path(secret).read_text()),
    "list secrets": tried(lambda: os.listdir(Path(secret).parent)),
    "write beside model": tried(lambda: Path(folder, "new").write_text("x")),
    "change model": tried(lambda: Path(folder, "model.onnx").write_text("x")),
    "write elsewhere": tried(lambda: Path(outside, "new").write_text("x")),
    "remove": tried(lambda: Path(folder, "model.onnx").unlink()),
    "run a program": tried(lambda: os.posix_spawn("/bin/true", ["true"], {})),
    "become a program": tried(lambda: jailed and os.execv("/bin/true", ["true"])),
    "make a process": tried(lambda: os.fork() or os._exit(0)),
    "make a thread": tried(lambda: [t.start() or t.join() for t in [threading.Thread()]]),
    "dial": tried(lambda: socket.create_connection(("127.0.0.1", 9), 1)),
    "open a UDP socket": tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
    "open a local socket": tried(lambda: socket.socket(socket.AF_UNIX)),
    "listen": tried(lambda: socket.create_server(("127.0.0.1", 0))),
    "signal the agent": tried(lambda: os.kill(int(parent), 0)),
    **{
        name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
        for name in ("CORE", "FSIZE", "NOFILE", "DATA")
    },
}))
"""


def inside(tmp_path: Path, kind: str = "cpu") -> dict[str, object]:
    folder = zoo.mlp(tmp_path / "m")
    (secret := tmp_path / "store" / "token").parent.mkdir()
    secret.write_text("canary")
    command = [sys.executable, "-c", INSIDE, str(folder), str(secret), str(tmp_path)]
    command += [str(os.getpid()), kind]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    answer: dict[str, object] = json.loads(done.stdout)
    if "landlock" not in answer["layers"]:
        pytest.skip("this kernel has no Landlock")
    return answer


def test_a_jailed_worker_reads_its_package_and_nothing_else(tmp_path: Path) -> None:
    """[jail-2.1]"""
    got = inside(tmp_path)
    assert got["read model"] == "done"
    forbidden = [
        *("read secret", "list secrets", "write beside model", "change model", "write elsewhere"),
        *("remove", "run a program", "dial", "listen", "signal the agent"),
        *("open a UDP socket", "open a local socket"),
    ]
    assert {what: got[what] for what in forbidden} == dict.fromkeys(forbidden, "PermissionError")
    if "seccomp" not in got["layers"]:
        pytest.skip("this architecture has no filter here")
    assert got["make a process"] == got["become a program"] == "PermissionError"
    assert got["make a thread"] == "done"


def test_limits_hold_a_worker_and_cannot_be_raised_again(tmp_path: Path) -> None:
    """[jail-2.2]"""
    got = inside(tmp_path)
    bounds = {"CORE": 0, "FSIZE": 0, "NOFILE": 64, "DATA": 1 << 30}
    assert {name: got[name] for name in bounds} == {name: [n, n] for name, n in bounds.items()}


def test_where_an_accelerator_may_run_its_driver_is_left_room_and_no_network(
    tmp_path: Path,
) -> None:
    got = inside(tmp_path, "accelerated")
    assert got["run a program"] == "done"
    assert got["dial"] == got["listen"] == got["signal the agent"] == "PermissionError"


def test_a_real_worker_reports_its_layers_and_carries_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[jail-2.3]"""
    monkeypatch.setenv("EDGE_AGENT__MQTT__PASSWORD", "canary")
    monkeypatch.setenv("ORT_LOAD_CONFIG_FROM_MODEL", "1")
    folder = zoo.mlp(tmp_path / "m")
    manifest = parse((folder / "model.toml").read_bytes())
    engine = ProcessEngine(Limits(), sealed=False)
    session = engine.load(REF, folder, manifest, background=False)
    try:
        proc = Path(f"/proc/{session.pid()}")
        environment = (proc / "environ").read_bytes()
        assert b"canary" not in environment
        assert b"ORT_LOAD" not in environment
        assert "NoNewPrivs:\t1" in (proc / "status").read_text()
        assert (proc / "oom_score_adj").read_text().strip() == "800"
        for layer in ("no-new-privs", "rlimits"):
            assert layer in engine.jail().split("+")
        held = {str(fd.readlink()).split(":")[0] for fd in (proc / "fd").iterdir()}
        tasks = f"{proc}/task"  # to find its own threads by
        assert held == {"/dev/null", "socket", "pipe", "/memfd", tasks}
    finally:
        session.close()


# The parent takes a system call away from itself and all its children, as an old kernel or a
# container's own filter does.
POORER = """
import ctypes, platform, sys
from pathlib import Path
from agent.adapters.processes import Limits, ProcessEngine
from agent.core.manifest import parse
from agent.core.names import ModelRef
from agent.worker import jail, seccomp
arch, _, clone = seccomp._DENIED[platform.machine()]
code = seccomp.denying(arch, (int(sys.argv[2]),), clone)
program = seccomp._Program(len(code) // 8, code)
libc = ctypes.CDLL(None, use_errno=True)
folder = Path(sys.argv[1])
engine = ProcessEngine(Limits(), sealed=False)
engine.providers()  # the starter's thread is there: it must be held by the filter too
ALL_THREADS = 1
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.syscall(317 if arch == 0xC000003E else 277, 1, ALL_THREADS, ctypes.byref(program)) == 0
manifest = parse((folder / "model.toml").read_bytes())
session = engine.load(ModelRef("m", 1, ""), folder, manifest, background=True)
assert session.golden().ok
session.close()
print(engine.jail())
"""
LANDLOCK_CREATE, PRLIMIT = 444, {"x86_64": 302, "aarch64": 261}.get(platform.machine(), 0)


@pytest.mark.skipif(not PRLIMIT, reason="the filter knows two architectures")
@pytest.mark.parametrize(
    ("missing", "layer"), [(LANDLOCK_CREATE, "landlock"), (PRLIMIT, "rlimits")]
)
def test_where_a_layer_cannot_be_had_it_goes_on_and_says_so(
    tmp_path: Path, missing: int, layer: str
) -> None:
    """[jail-2.4]"""
    folder = zoo.mlp(tmp_path / "m")
    command = [sys.executable, "-c", POORER, str(folder), str(missing)]
    done = subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    *log, jail = done.stdout.splitlines()
    assert jail.endswith(f" without {layer}")
    assert layer not in jail.split(" without ")[0].split("+")
    assert "no-new-privs" in jail
    (warning,) = [line for line in log if "jail_incomplete" in line]
    assert f"without={layer}" in warning
    assert "warning" in warning


def test_the_jail_is_known_before_any_model_is_loaded() -> None:
    assert "rlimits" in ProcessEngine(Limits(), sealed=False).jail()
