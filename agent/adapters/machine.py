"""What this machine has: memory, counted as the kernel will count it, and its architecture.

On Linux the bound that bites is the tightest of the machine's own and those of every control group
above this process (version 2 or 1), so a container is told what the container may have.  Elsewhere
less can be known, and `source` says so.  Linux's files are looked for and may be absent: nothing
here needs them.
"""

import ctypes
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from agent.core.requirements import architecture
from agent.ports import Memory

_Read = Callable[[Path], "_Bound | None"]


@dataclass(frozen=True, slots=True)
class _Bound:
    """One bound on memory: all of it, what of it is free, and who sets it."""

    limit: int
    free: int
    source: str


class LocalMachine:
    """The `ports.Machine` this process runs on.  `groups` and `proc` are where Linux tells."""

    def __init__(self, groups: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> None:
        self._groups = groups
        self._proc = proc

    def architecture(self) -> str:
        """`x86_64`, `aarch64`, …"""
        return architecture(platform.machine())

    def memory(self) -> Memory:
        """As of now.  Never raises: what cannot be read is not known."""
        bounds = [*_of_machine(self._proc), *_of_groups(self._groups, self._proc)]
        if bounds:
            return Memory(
                min(bound.limit for bound in bounds),
                min(bound.free for bound in bounds),
                min(bounds, key=lambda bound: bound.free).source,
            )
        return _elsewhere()


def _of_machine(proc: Path) -> Iterator[_Bound]:
    """What the kernel says of the whole machine."""
    found = {}
    for line in _read(proc / "meminfo").splitlines():
        name, _, rest = line.partition(":")
        amount, _, unit = rest.strip().partition(" ")
        if amount.isdecimal() and unit == "kB":
            found[name] = int(amount) * 1024
    if "MemTotal" in found and "MemAvailable" in found:
        yield _Bound(found["MemTotal"], found["MemAvailable"], "the machine")


def _of_groups(groups: Path, proc: Path) -> Iterator[_Bound]:
    """What every control group above this process allows."""
    for line in _read(proc / "self" / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            root = groups / "unified" if (groups / "unified").is_dir() else groups
            yield from _climbed(root, path, _version_2)
        elif "memory" in controllers.split(","):
            yield from _climbed(groups / "memory", path, _version_1)


def _climbed(root: Path, path: str, read: _Read) -> Iterator[_Bound]:
    """The group at `path` and those above it.

    In a container the path may be one outside, and nothing lies there: then what is mounted at the
    root is its group.
    """
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    for depth in range(len(parts), -1, -1):
        bound = read(root.joinpath(*parts[:depth]))
        if bound is not None:
            yield bound


def _version_2(group: Path) -> _Bound | None:
    limits = [_number(group / name) for name in ("memory.max", "memory.high")]
    used = _number(group / "memory.current")
    stated = [limit for limit in limits if limit is not None]
    if not stated or used is None:
        return None
    return _bound(min(stated), used, _stat(group, "inactive_file"), "a control group")


def _version_1(group: Path) -> _Bound | None:
    """Where there is no limit this one says about 2**63, which is never the least."""
    limit = _number(group / "memory.limit_in_bytes")
    used = _number(group / "memory.usage_in_bytes")
    if limit is None or used is None:
        return None
    return _bound(limit, used, _stat(group, "total_inactive_file"), "a control group (v1)")


def _bound(limit: int, used: int, reclaimable: int, source: str) -> _Bound:
    """Cached file pages count as used and are given up at need: as Kubernetes, we take them off."""
    return _Bound(limit, max(0, limit - max(0, used - reclaimable)), source)


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdecimal() else None


def _stat(group: Path, name: str) -> int:
    for line in _read(group / "memory.stat").splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdecimal():
            return int(value)
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


class _Status(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = (
        ("length", ctypes.c_ulong),
        ("load", ctypes.c_ulong),
        *((name, ctypes.c_ulonglong) for name in ("total", "free", "a", "b", "c", "d", "e")),
    )


def _elsewhere() -> Memory:
    """Where there is no /proc."""
    if sys.platform == "win32":
        status = _Status(length=ctypes.sizeof(_Status))
        if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
            return Memory(status.total, status.free, "Windows; limits of a job are not known")
        return Memory(None, None, "Windows did not say")
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return Memory(None, None, f"{sys.platform} does not say")
    return Memory(total, None, f"{sys.platform} does not say what is free")
