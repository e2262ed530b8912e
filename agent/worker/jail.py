"""The layers that hold a worker in.  Each that cannot be had is left out, and the rest reported.

    no-new-privs   no set-user-id program can give it more than it has
    rlimits        no core dump (it would hold readings), no file to write, a bound on memory, and
                   on processor time until it serves
    landlock       its package folder to read, nothing to write or run, no TCP, no signals out; one
                   folder to write, while compiled code is kept for the first time
    seccomp        no sockets of any kind, no processes, no other programs, no ways around Landlock
    oom-first      the kernel takes a worker before it takes the agent

Landlock holds the calling thread and those it starts, so this runs while there is but one.  Where
an accelerator may be used, its driver needs devices, libraries, caches and local sockets: then
reading and running stay free, there is no seccomp, and only TCP, signals and writing outside /dev,
/tmp and /run are forbidden.
"""

import contextlib
import ctypes
import math
import os
import signal
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.worker import seccomp

if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # the same numbers on every architecture
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # ABI -> how many; ABI 5 added ioctl on devices
_READ_FILE = 1 << 2
_READ = _READ_FILE | (1 << 3)  # files, folders
# Read, write, cut, and make and remove plain files and folders; no links, devices or sockets.
_WRITABLE = _READ | (1 << 1) | (1 << 4) | (1 << 5) | (1 << 7) | (1 << 8) | (1 << 14)
_EXECUTE, _WRITE, _TCP, _SCOPES = 1 << 0, 1 << 1, 0b11, 0b11
_OOM_SCORE = "800"
LAYERS = ("landlock", "seccomp", "no-new-privs", "rlimits", "oom-first")
_FILES_MAX = 64


def die_with_parent(parent: int) -> None:
    """So that a worker in the middle of a run does not outlive an agent that was killed."""
    if sys.platform == "linux":
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)  # it went before we could ask


def close_in(
    folder: Path | None,
    memory_bytes: int,
    *,
    accelerated: bool,
    readable: Sequence[str] = (),
    cache: str = "",
    cache_bytes: int = 0,
) -> list[str]:
    """Put on every layer there is; the names of those that hold.

    `readable` are files of libraries; `cache` is a folder for compiled code, "" for none, in which
    files of `cache_bytes` may be written (0: none, it is read).
    """
    places = {Path(path): _READ_FILE for path in readable if Path(path).is_file()}
    if cache:
        places[Path(cache)] = _WRITABLE if cache_bytes else _READ
    if folder is not None:
        places[folder] = _READ
    layers: list[tuple[str, Callable[[], bool]]] = [
        ("landlock", lambda: _landlock(places, accelerated=accelerated)),
        ("seccomp", lambda: not accelerated and seccomp.put_on()),
        ("no-new-privs", _no_new_privs),
        ("rlimits", lambda: _rlimits(memory_bytes, cache_bytes, accelerated=accelerated)),
        ("oom-first", _oom_first),
    ]
    on: list[str] = []
    for name, put_on in reversed(layers):  # Landlock last: it would keep the others from being set
        with contextlib.suppress(OSError, ValueError, AttributeError, ImportError):
            if put_on():
                on.insert(0, name)
    return on


def without(on: list[str]) -> list[str]:
    """The layers that do not hold, though this platform could have them."""
    return [name for name in LAYERS if name not in on] if sys.platform == "linux" else []


def bound_cpu(seconds: float | None) -> None:
    """At most so many seconds of processor time from now on, all threads together, or the kernel
    ends this process; None: as many as it takes.  Where there is no such limit, none is set.
    """
    with contextlib.suppress(OSError, ValueError, ImportError):
        import resource  # noqa: PLC0415  there is none on Windows

        soft, most = resource.getrlimit(resource.RLIMIT_CPU)
        if seconds is None:
            soft = most
        else:
            used = resource.getrusage(resource.RUSAGE_SELF)
            soft = math.ceil(used.ru_utime + used.ru_stime + seconds)
            soft = soft if most == resource.RLIM_INFINITY else min(soft, most)
        resource.setrlimit(resource.RLIMIT_CPU, (soft, most))


def _oom_first() -> bool:
    if sys.platform != "linux":
        return False
    Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    return True


def _rlimits(memory_bytes: int, file_bytes: int, *, accelerated: bool) -> bool:
    import resource  # noqa: PLC0415  there is none on Windows

    limits = {resource.RLIMIT_CORE: 0}
    # RLIMIT_DATA counts what is private and writable; address space is reserved in plenty and free.
    kind = resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS
    limits[kind] = memory_bytes
    if not accelerated:
        limits |= {resource.RLIMIT_FSIZE: file_bytes, resource.RLIMIT_NOFILE: _FILES_MAX}
    for limit, value in limits.items():
        _, most = resource.getrlimit(limit)
        bound = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(limit, (bound, bound))
    return True


def _no_new_privs() -> bool:
    if sys.platform != "linux":
        return False
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    return True


def _landlock(places: Mapping[Path, int], *, accelerated: bool) -> bool:
    if sys.platform != "linux":
        return False
    abi = _syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    handled = (1 << _FILE_RIGHTS.get(abi, 16)) - 1
    fields = [handled]
    fields += [_TCP] if abi >= 4 else []
    fields += [_SCOPES] if abi >= 6 else []
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = _syscall(_CREATE, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    try:
        for place, rights in places.items():
            _allow(ruleset, place, rights & handled)
        if accelerated:
            _allow(ruleset, Path("/"), _READ | _EXECUTE)
            for writable in (Path("/dev"), Path("/tmp"), Path("/run")):  # noqa: S108  drivers' caches
                if writable.is_dir():
                    _allow(ruleset, writable, handled)
        _prctl(PR_SET_NO_NEW_PRIVS, 1)  # without it the kernel takes no ruleset from us
        _syscall(_RESTRICT, ruleset, ctypes.c_uint32(0))
    finally:
        os.close(ruleset)
    return True


def _allow(ruleset: int, place: Path, rights: int) -> None:
    beneath = os.open(place, os.O_PATH) if sys.platform == "linux" else -1
    try:
        rule = struct.pack("=Qi", rights, beneath)
        _syscall(_ADD_RULE, ruleset, 1, rule, ctypes.c_uint32(0))
    finally:
        os.close(beneath)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _syscall(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result: int = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}")
    return result
