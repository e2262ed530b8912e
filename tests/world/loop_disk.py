"""A small disk of its own in a file, whose power can be cut.

ext4's shutdown throws away all that was not synced, as xfstests' `godown` does.  It does not tear
sectors and reorders nothing inside a drive.  Needs root and loop devices.
"""

import fcntl
import os
import struct
import subprocess
from pathlib import Path

import pytest

_SHUTDOWN = (2 << 30) | (4 << 16) | (ord("X") << 8) | 125  # FS_IOC_SHUTDOWN
_NOLOGFLUSH = 2


class LoopDisk:
    """A context manager; `path` is where it is mounted."""

    def __init__(self, folder: Path, mb: int = 64):
        self.path = folder / "disk"
        self._image = folder / "disk.img"
        self.path.mkdir(parents=True)
        _run("truncate", "-s", f"{mb}M", self._image)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", self._image)

    def __enter__(self):
        self.mount()
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", "-l", self.path], capture_output=True, check=False)

    def mount(self):
        _run("mount", "-o", "loop,errors=continue", self._image, self.path)

    def cut(self):
        """From now on nothing reaches the disk, and nothing that was not synced is on it."""
        fd = os.open(self.path, os.O_RDONLY)
        fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NOLOGFLUSH))
        os.close(fd)

    def power_up(self):
        """After `cut`, when nobody uses it any more: the journal is replayed."""
        _run("umount", self.path)
        self.mount()


def needs_loop_disk(folder: Path) -> None:
    """Skip aloud where there can be no such disk."""
    if os.name == "nt" or os.geteuid() != 0:
        pytest.skip("POWER CUTS NOT TESTED: cutting the power of a disk needs root on Linux")
    try:
        with LoopDisk(folder / "probe", 8):
            pass
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"POWER CUTS NOT TESTED: no loop device here ({error})")


def _run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
