"""What a worker cannot do, tried from inside a process that put on the very same jail."""

import json
import os
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
import json, os, resource, signal, socket, sys
from pathlib import Path
from agent.worker import jail
folder, secret, outside, parent = sys.argv[1:5]
layers = jail.close_in(Path(folder), 1 << 30, accelerated=sys.argv[5] == "accelerated")
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
    "dial": tried(lambda: socket.create_connection(("127.0.0.1", 9), 1)),
    "open a UDP socket": tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
    "open a local socket": tried(lambda: socket.socket(socket.AF_UNIX)),
    "listen": tried(lambda: socket.create_server(("127.0.0.1", 0))),
    "signal the agent": tried(lambda: os.kill(int(parent), 0)),
    "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
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
    got = inside(tmp_path)
    assert got["read model"] == "done"
    forbidden = [
        *("read secret", "list secrets", "write beside model", "change model", "write elsewhere"),
        *("remove", "run a program", "dial", "listen", "signal the agent"),
        *("open a UDP socket", "open a local socket"),
    ]
    assert {what: got[what] for what in forbidden} == dict.fromkeys(forbidden, "PermissionError")
    assert got["core"] == 0


def test_where_an_accelerator_may_run_its_driver_is_left_room_and_no_network(
    tmp_path: Path,
) -> None:
    got = inside(tmp_path, "accelerated")
    assert got["run a program"] == "done"
    assert got["dial"] == got["listen"] == got["signal the agent"] == "PermissionError"


def test_a_real_worker_reports_its_layers_and_carries_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_the_jail_is_known_before_any_model_is_loaded() -> None:
    assert "rlimits" in ProcessEngine(Limits(), sealed=False).jail()
