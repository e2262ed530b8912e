"""Every durable operation on files, in one place: what is here has survived a power cut when it
returns, and what was there before is whole until then.

The order is always the same: write a temporary file, fsync it, rename it, fsync the folder.  Where
the platform cannot fsync a folder (Windows), the rename itself is what it promises.
"""

import errno
import hashlib
import io
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.adapters.files.leisure import AT_ONCE, STEP_BYTES, Pace
from agent.core.errors import UnavailableError
from agent.core.names import Digest

COPY_BYTES = 1024 * 1024
_BINARY = getattr(os, "O_BINARY", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
READ = os.O_RDONLY | _BINARY | _NOFOLLOW
CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY | _NOFOLLOW
UPDATE = os.O_RDWR | _BINARY | _NOFOLLOW


@contextmanager
def weather(doing: str) -> Iterator[None]:
    """The disk said no: an OSError becomes UnavailableError, "DOING: why"."""
    try:
        yield
    except OSError as error:
        why = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise UnavailableError(f"{doing}: {why}") from error


def write_atomic(path: Path, body: bytes, *, mode: int = 0o644) -> None:
    """Make `path` hold `body`: afterwards it does, and at no instant does it hold half of it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(temporary, CREATE, mode), "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def copy_atomic(source: Path, target: Path, *, mode: int = 0o444) -> None:
    """Copy the regular file `source` to `target`, durably; `target` appears whole."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with (
            open_regular(source) as reader,
            os.fdopen(os.open(temporary, CREATE, mode), "wb") as out,
        ):
            shutil.copyfileobj(reader, out, COPY_BYTES)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def open_regular(path: Path) -> io.BufferedReader:
    """`path` for reading, if it is a regular file and no link; OSError if not."""
    fd = os.open(path, READ)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file")
    return os.fdopen(fd, "rb")


def sync_file(path: Path) -> None:
    """What was written to `path` is on the disk."""
    fd = os.open(path, UPDATE)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(path: Path) -> None:
    """Names made and removed in `path` are on the disk."""
    if os.name == "nt":
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(path: Path) -> None:
    """`path` and its parents exist, durably."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_folder(folder.parent)


def reserve(fd: int, size: int, folder: Path) -> None:
    """Give the empty file its `size` and disk blocks for it; OSError(ENOSPC) if no room.

    Where blocks cannot be reserved (Windows, some network filesystems) the free space is asked for
    instead, which someone else may take meanwhile.
    """
    if size == 0:
        return
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
        else:
            return
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(fd, size)


def sha256_of(path: Path, pace: Pace = AT_ONCE) -> Digest:
    """The digest of a regular file's bytes."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        began = time.monotonic()
        while step := file.read(STEP_BYTES):
            digest.update(step)
            pace.rest(began)
            began = time.monotonic()
    return Digest(f"sha256:{digest.hexdigest()}")


def remove_tree(path: Path) -> int:
    """Remove a folder of ours whole, read-only parts too; gives the bytes that came free."""
    if not path.is_dir() or path.is_symlink():
        return 0
    freed = 0
    for folder, _, names in os.walk(path):
        Path(folder).chmod(0o700)
        for name in names:
            file = Path(folder, name)
            freed += file.lstat().st_size
            if os.name == "nt":
                file.chmod(0o644)
    shutil.rmtree(path)
    return freed
