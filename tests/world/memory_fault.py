"""A memory fault: bytes in a running process become others, as a cosmic ray or a bad bank does it.

Linux, and only for who may write to the process.
"""

import os
from pathlib import Path
from typing import BinaryIO, cast


def flip(pid: int, was: bytes, becomes: bytes) -> int:
    """Change `was` into `becomes`, of the same length, wherever the process may write to it.

    Returns how often it was there.
    """
    assert len(was) == len(becomes)
    found = 0
    with os.fdopen(os.open(f"/proc/{pid}/mem", os.O_RDWR), "r+b", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights = line.split()[:2]
            if not rights.startswith("rw"):
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            found += _flip_in(cast("BinaryIO", memory), start, end, was, becomes)
    return found


def _flip_in(memory: BinaryIO, start: int, end: int, was: bytes, becomes: bytes) -> int:
    try:
        memory.seek(start)
        region = memory.read(end - start)
    except (OSError, OverflowError, ValueError):
        return 0  # [vvar] and its like
    found, at = 0, region.find(was)
    while at >= 0:
        memory.seek(start + at)
        memory.write(becomes)
        found, at = found + 1, region.find(was, at + 1)
    return found
