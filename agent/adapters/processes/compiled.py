"""Compiled code kept between starts: optimised graphs and engines, by everything they depend on.

The worker of a candidate writes them, once, into a folder that is its own; when its golden samples
are right the agent seals the folder with the hashes of all in it, and from then on workers only
read.  What does not match its seal is dropped and built anew.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

log = structlog.get_logger(__name__)

FILES_MAX = 4096
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Compiled:
    """All that is kept on this device, in `folder`, of at most `bytes_max`."""

    folder: Path
    bytes_max: int

    def shelf(self, key: str) -> "Shelf":
        """The place of one version, runtime and device; `key` is a file name."""
        return Shelf(self, key)

    def tidy(self, keep: str) -> None:
        """Drop what has not been used for longest until the rest fits; never `keep`."""
        sizes = {}
        for folder in self.folder.iterdir():
            if folder.is_dir():
                sizes[folder] = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        total = sum(sizes.values())
        for folder in sorted(sizes, key=lambda each: _used(_seal_of(each))):
            if total > self.bytes_max and folder.name != keep:
                total -= sizes[folder]
                _drop(folder)


@dataclass(frozen=True, slots=True)
class Shelf:
    """One version's; `kept` is None where nothing is kept."""

    kept: Compiled | None = None
    key: str = ""

    def opened(self) -> Mapping[str, Any]:
        """`cache` and `cache_bytes` of a worker's outfit: the folder, and what it may write there
        (0: it is sealed).  Empty where nothing is kept.
        """
        if self.kept is None:
            return {}
        folder = self.kept.folder / self.key
        try:
            if _whole(folder):
                os.utime(_seal_of(folder))
                return {"cache": str(folder), "cache_bytes": 0}
            _drop(folder)
            folder.mkdir(parents=True)
            self.kept.tidy(self.key)
        except OSError as error:
            log.warning("compiled.not_kept", why=error.strerror or str(error))
            return {"cache": "", "cache_bytes": 0}
        return {"cache": str(folder), "cache_bytes": self.kept.bytes_max}

    def seal(self) -> None:
        """What lies there is good: it reproduced the golden outputs."""
        if self.kept is None:
            return
        folder = self.kept.folder / self.key
        seal = _seal_of(folder)
        try:
            if seal.exists():
                return
            body = json.dumps(_hashes(folder)).encode()
            temporary = seal.with_suffix(".new")
            with temporary.open("wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(seal)
            self.kept.tidy(self.key)
        except OSError as error:
            log.warning("compiled.not_kept", why=error.strerror or str(error))


def _seal_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.seal")


def _used(seal: Path) -> float:
    try:
        return seal.stat().st_mtime
    except OSError:
        return 0.0


def _drop(folder: Path) -> None:
    _seal_of(folder).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _whole(folder: Path) -> bool:
    try:
        sealed = json.loads(_seal_of(folder).read_bytes())
    except (OSError, ValueError):
        return False
    if _hashes(folder) == sealed:
        return True
    log.warning("compiled.damaged", folder=folder.name)
    return False


def _hashes(folder: Path) -> dict[str, str]:
    """Raises OSError: too much, or not plain."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        if path.is_symlink() or not path.is_file() or len(found) >= FILES_MAX:
            msg = f"{path.name} is no plain file, or one too many"
            raise OSError(msg)
        digest = hashlib.sha256()
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        found[path.relative_to(folder).as_posix()] = digest.hexdigest()
    return found
