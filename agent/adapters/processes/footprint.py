"""What a process took, as the platform tells it: memory at its worst, and processor time."""

import contextlib
from pathlib import Path
from typing import Any

import psutil


def cpu_s(pid: int | None) -> float:
    """Processor time that the process has had, all its threads together; 0 where it is gone."""
    try:
        times = psutil.Process(pid).cpu_times() if pid is not None else None
    except psutil.Error:
        return 0.0
    return float(times.user + times.system) if times is not None else 0.0


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
