"""Loading at the lowest scheduling class, and coming back from it.

A model that loads beside a live stream must not cost it a millisecond.  On Linux SCHED_IDLE is per
thread and is inherited by threads made later (onnxruntime's pool).  Leaving it again takes
CAP_SYS_NICE or an RLIMIT_NICE of 20, which a container without privileges has not; there the load
alone is done at the lowest class, on a thread that ends with it.  macOS and Windows have a
background class per process, which anyone may leave.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

PLATFORM: str = sys.platform
TASKS = "/proc/self/task"
_DARWIN_PROCESS, _DARWIN_BACKGROUND = 4, 0x1000  # setpriority(2); no names in Python before 3.12
_WINDOWS_IDLE, _WINDOWS_NORMAL = 0x40, 0x20

T = TypeVar("T")


def threads(tasks: int | str = TASKS) -> set[int]:
    """The ids of this process's threads; empty where there is no way to list them.

    `tasks` may be an open descriptor of that folder, which keeps working inside the jail.
    """
    try:
        return {int(name) for name in os.listdir(tasks)}  # noqa: PTH208  a descriptor has no Path
    except OSError:
        return set()


def may_return() -> bool:
    """Whether this process may leave the lowest class again; tried, on a thread made for it."""
    return PLATFORM != "linux" or _on_its_own_thread(lambda: lower([0]) != "none" and restore())


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


def aside(work: Callable[[], T]) -> T:
    """What `work` returns or raises, done at the lowest class where threads have one of their own.

    The calling thread keeps its class; threads that `work` starts inherit the lowest.
    """
    if PLATFORM != "linux":
        return work()

    def lowered() -> T:
        lower([0])
        return work()

    return _on_its_own_thread(lowered)


def _on_its_own_thread(work: Callable[[], T]) -> T:
    results: list[Any] = []
    errors: list[BaseException] = []

    def do() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001  it is raised again, where it was asked for
            errors.append(error)

    thread = threading.Thread(target=do, name="aside")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    result: T = results[0]
    return result


def _schedule(tid: int, policy: int) -> None:
    try:
        os.sched_setscheduler(tid, policy, os.sched_param(0))
    except ProcessLookupError:
        return  # it ended since it was listed


def _windows(priority_class: int) -> bool:
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009  known on Windows only
    return bool(kernel.SetPriorityClass(kernel.GetCurrentProcess(), priority_class))
