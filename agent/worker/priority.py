"""Loading at the lowest scheduling class, and coming back from it.

A model that loads beside a live stream must not cost it a millisecond.  On Linux SCHED_IDLE is per
thread, is inherited by threads made later (onnxruntime's pool), and may be left again without any
privilege; a raised nice value may not.  macOS and Windows have a background class per process.
"""

import ctypes
import os
import sys
from collections.abc import Iterable

PLATFORM: str = sys.platform
_DARWIN_PROCESS, _DARWIN_BACKGROUND = 4, 0x1000  # setpriority(2); no names in Python before 3.12
_WINDOWS_IDLE, _WINDOWS_NORMAL = 0x40, 0x20
TASKS = "/proc/self/task"


def threads(tasks: int | str = TASKS) -> set[int]:
    """The ids of this process's threads; empty where there is no way to list them.

    `tasks` may be an open descriptor of that folder, which keeps working inside the jail.
    """
    try:
        return {int(name) for name in os.listdir(tasks)}  # noqa: PTH208  a descriptor has no Path
    except OSError:
        return set()


def lower(tids: Iterable[int]) -> str:
    """This whole process to the lowest class; on Linux by its threads.  Says what was done."""
    try:
        if PLATFORM == "linux":
            for tid in tids:
                _schedule(tid, os.SCHED_IDLE)
            return "sched-idle"
        if PLATFORM == "darwin":
            os.setpriority(_DARWIN_PROCESS, 0, _DARWIN_BACKGROUND)
            return "background"
        if PLATFORM == "win32":
            return "idle-class" if _windows(_WINDOWS_IDLE) else "none"
    except OSError:
        return "none"
    return "none"


def lower_thread() -> bool:
    """The calling thread alone, where there is such a thing; elsewhere nothing is done."""
    return PLATFORM == "linux" and lower([0]) != "none"


def restore(tids: Iterable[int] = (0,)) -> bool:
    """Back to the normal class (0: the calling thread); whether everything went back."""
    try:
        if PLATFORM == "linux":
            for tid in tids:
                _schedule(tid, os.SCHED_OTHER)
        elif PLATFORM == "darwin":
            os.setpriority(_DARWIN_PROCESS, 0, 0)
        elif PLATFORM == "win32":
            return _windows(_WINDOWS_NORMAL)
    except OSError:
        return False
    return True


def _schedule(tid: int, policy: int) -> None:
    try:
        os.sched_setscheduler(tid, policy, os.sched_param(0))
    except ProcessLookupError:
        return  # it ended since it was listed


def _windows(priority_class: int) -> bool:
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009  known on Windows only
    return bool(kernel.SetPriorityClass(kernel.GetCurrentProcess(), priority_class))
