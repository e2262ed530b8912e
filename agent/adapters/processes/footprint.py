"""How much memory a process took at its worst, as the platform tells it."""

import contextlib
from pathlib import Path
from typing import Any

import psutil


def peak_bytes(pid: int | None) -> int:
    """The most resident memory that the process ever had; 0 where nobody can tell."""
    if pid is None:
        return 0
    with contextlib.suppress(OSError, ValueError, StopIteration):  # Linux
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
        line = next(line for line in lines if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    with contextlib.suppress(psutil.Error, AttributeError):  # Windows
        memory: Any = psutil.Process(pid).memory_info()
        return int(memory.peak_wset)
    return 0
