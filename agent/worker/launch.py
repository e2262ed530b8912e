"""The agent's side: the command, the environment and the thread that a worker is started with.

The standard library alone, so that a worker may be started before anything else is imported.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

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
_starter: "ThreadPoolExecutor | None" = None


def start(*arguments: Any, **options: Any) -> "subprocess.Popen[bytes]":
    """`subprocess.Popen`, on a thread that lives as long as this process."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  not before it is needed

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
        ModuleNotFoundError: one is not installed.
    """
    folders = {str(Path(__file__).resolve().parents[2]): None}
    for name in ("onnxruntime", "numpy"):  # two environments may hold the first: ours comes first
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"{name} is not installed; install edge-model-agent[cpu]")
        folders[str(Path(spec.origin).resolve().parent.parent)] = None
    return list(folders)
