"""The main path where there is no POSIX: its modules hidden, a worker dialled over the loopback."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.world import zoo

ROOT = Path(__file__).resolve().parents[2]
HIDDEN = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "crypt")
GONE = (
    *("fork", "forkpty", "getuid", "geteuid", "getgid", "getpgid", "setsid", "nice", "getpriority"),
    *("sched_getaffinity", "mkfifo", "chown", "fchown", "statvfs", "memfd_create"),
)
# Hidden from our code only: other libraries have code of their own for each platform.
HIDE = """
import asyncio, builtins, ctypes, os, subprocess, sys, numpy, psutil

def of_a_file(name, *rest, **named):
    if name is None and sys._getframe(1).f_globals["__name__"].startswith(("agent", "__main__")):
        raise TypeError("LoadLibrary() argument 1 must be str, not None")
    return loaded(name, *rest, **named)

loaded, ctypes.CDLL = ctypes.CDLL, of_a_file
real = builtins.__import__

def ours_only(name, globals=None, *rest, **named):
    who = (globals or {{}}).get("__name__", "")
    if (who.startswith("agent") or who == "__main__") and name.split(".")[0] in {hidden!r}:
        raise ModuleNotFoundError(f"no module named {{name}}, as on Windows", name=name)
    return real(name, globals, *rest, **named)

builtins.__import__ = ours_only
for name in {gone!r}:
    if hasattr(os, name):
        delattr(os, name)
"""
SCORE = """
from pathlib import Path
import numpy as np, select
from agent.adapters.processes import Limits, ProcessEngine
from agent.core.manifest import parse
from agent.core.names import Digest, ModelRef

folder = Path(sys.argv[1])
engine = ProcessEngine(Limits(), dial=True, sealed=False)
manifest = parse((folder / "model.toml").read_bytes())
ref = ModelRef("zoo", 1, Digest("sha256:" + "0" * 64))
session = engine.load(ref, folder, manifest, background=False)
assert session.golden().ok
session.submit(1, [np.ones((3, 8), np.float32)])
select.select([session.fileno()], [], [], 20)
(answer,) = session.collect()
session.close()
from agent.adapters.onnx import InlineEngine
inline = InlineEngine(sealed=False).load(ref, folder, manifest, background=True)
assert inline.golden().ok
inline.close()
print("scored", answer.outputs[0].shape, engine.jail())
"""
IMPORTED = """
import agent.app.body, agent.app.engines, agent.app.choices, agent.commands.run
import agent.adapters.https, agent.adapters.folder, agent.adapters.tail, agent.adapters.machine
import agent.adapters.sqlite, agent.adapters.mqtt.link, agent.adapters.mqtt.bulk, agent.adapters.web
import agent.adapters.web.server, agent.adapters.files, agent.adapters.device_key
import agent.adapters.onnx, agent.adapters.processes, agent.worker.__main__, agent.worker.jail
print("imported")
"""


def hidden(code, *arguments):
    hide = HIDE.format(hidden=HIDDEN, gone=GONE)
    return subprocess.run(
        [sys.executable, "-c", hide + code, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_all_of_the_main_path_imports_without_them():
    """[accelerators-8.1]"""
    done = hidden(IMPORTED)
    assert done.stdout.strip() == "imported", done.stderr[-2000:]


@pytest.mark.skipif(sys.platform == "win32", reason="there nothing has to be hidden")
def test_a_version_loads_proves_itself_and_scores_without_them(tmp_path):
    """[accelerators-8.1]"""
    done = hidden(SCORE, zoo.mlp(tmp_path / "m"))
    assert "\nscored (3, 1)" in done.stdout, done.stderr[-2000:]


def test_the_hiding_hides():
    assert hidden("import fcntl").returncode
    assert hidden("import os; os.fork()").returncode
    assert hidden("ctypes.CDLL(None)").returncode
