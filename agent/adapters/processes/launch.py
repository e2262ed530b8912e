"""The command, the environment and the thread that a worker is started with."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import agent
from agent.core.errors import UnavailableError

START = """\
import json, sys
sys.path += sys.argv[1].split(sys.argv[2])
errand = json.loads(sys.argv[3])
from agent.worker import priority
if errand["background"] and priority.may_return():
    priority.lower((0,))  # before the imports: they take longer than most models
from agent.worker.__main__ import main
main(errand)
"""
# What native libraries look for; everything else, secrets foremost, stays behind.
ENVIRONMENT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "WINDIR", "TEMP", "TMP")
ENVIRONMENT_PREFIXES = ("CUDA_", "NVIDIA_", "HIP_", "ROCR_", "OPENVINO_")
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

# The kernel's parent-death signal fires when the *thread* that started the child ends; so one that
# never ends starts them all.
_starter: ThreadPoolExecutor | None = None


def start(*arguments: Any, **options: Any) -> "subprocess.Popen[bytes]":
    """`subprocess.Popen`, on a thread that lives as long as this process."""
    global _starter  # noqa: PLW0603  one per process, made when first needed
    if _starter is None:
        _starter = ThreadPoolExecutor(1, thread_name_prefix="worker-starter")
    started: Future[subprocess.Popen[bytes]] = _starter.submit(
        subprocess.Popen, *arguments, **options
    )
    return started.result()


def command(path: list[str], errand: Mapping[str, Any]) -> list[str]:
    """An interpreter that knows the folders in `path` and its own library, and no other."""
    switches = ["-I", "-S", "-X", "utf8"]
    return [
        *(sys.executable, *switches, "-c", START),
        *(os.pathsep.join(path), os.pathsep, json.dumps(errand)),
    ]


def environment() -> dict[str, str]:
    """What is left of ours."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.upper() in ENVIRONMENT or name.upper().startswith(ENVIRONMENT_PREFIXES)
    }
    if sys.platform == "win32":
        kept["PATH"] = os.environ.get("PATH", "")  # where DLLs are found
    return kept | ONE_THREAD


def package_folders() -> list[str]:
    """Where this package, numpy and onnxruntime lie, however they came to be importable here.

    Raises:
        UnavailableError: one is not installed.
    """
    folders = {str(Path(agent.__file__).resolve().parent.parent): None}
    for name in ("onnxruntime", "numpy"):  # two environments may hold the first: ours comes first
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise UnavailableError(f"{name} is not installed; install edge-model-agent[cpu]")
        folders[str(Path(spec.origin).resolve().parent.parent)] = None
    return list(folders)
