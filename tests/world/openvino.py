"""A second real provider: OpenVINO, on the processor, in an environment of its own.

Two onnxruntime wheels overwrite each other's files, so this one lives beside the tests' own, under
.cache; everything but onnxruntime and numpy is taken from there.  It is made once.
"""

import functools
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / ".cache" / "openvino"
WHEEL = "onnxruntime-openvino==1.24.1"
CHECK = (
    "import onnxruntime as o; assert 'OpenVINOExecutionProvider' in o.get_available_providers(), o"
)


@functools.cache
def _made() -> str:
    """Why it cannot be had; empty if it is there."""
    python = _python()
    if python.exists() and subprocess.run([python, "-c", CHECK], check=False).returncode == 0:
        return ""
    venv.create(FOLDER, with_pip=True, clear=True)
    install = [python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", WHEEL]
    done = subprocess.run(install, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["pip failed"])[-1]
    ours = sysconfig.get_paths()["purelib"]
    theirs = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    (Path(theirs) / "the-tests-own.pth").write_text(ours + "\n")
    done = subprocess.run([python, "-c", CHECK], capture_output=True, text=True, check=False)
    return done.stderr.strip()[-200:] if done.returncode else ""


def _python() -> Path:
    return FOLDER / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def python() -> str:
    """An interpreter with OpenVINO; skips the test, aloud, where there is none to be had."""
    try:
        why = _made()
    except (OSError, subprocess.SubprocessError) as error:
        why = str(error)
    if why:
        pytest.skip(f"NO SECOND PROVIDER: {WHEEL} cannot be installed here: {why}")
    return str(_python())
