"""The steps by which fetched files become a version: take up, verify, gather.

Each can be cut off at any instant and done again.
"""

from pathlib import Path

from agent.adapters.files.durable import copy_atomic, open_regular, sha256_of, sync_file
from agent.adapters.files.leisure import AT_ONCE, Pace
from agent.adapters.files.partial import FilePartial
from agent.core.errors import DamagedError, UnavailableError
from agent.core.packages import CHUNK_BYTES, FileEntry, Package


def take_up(begun: Path, file: FileEntry) -> None:
    """Take up `file` where an adoption was cut off before its last rename."""
    gathered = begun / "whole" / file.path
    if gathered.is_file():
        gathered.chmod(0o600)
        gathered.replace(begun / file.hex)


def verify(package: Package, file: FileEntry, path: Path, pace: Pace) -> None:
    """What lies at `path` is `file`, whole.

    Raises:
        DamagedError: it is whole and has the wrong digest; it is dropped.
        UnavailableError: it is not all there.
    """
    if not path.exists():
        raise UnavailableError(f"{file.path} of {package.ref} has not been fetched yet")
    if path.stat().st_size == file.size and sha256_of(path, pace) == file.sha256:
        return
    partial = FilePartial(path, file.size)
    partial.close()
    missing = sum(end - start for start, end in partial.holes())
    if missing:
        raise UnavailableError(f"{missing} bytes of {file.path} of {package.ref} are still missing")
    partial.remove()
    raise DamagedError(f"{file.path} of {package.ref} is not what was signed: its SHA-256 is wrong")


def gather(package: Package, file: FileEntry, begun: Path) -> None:
    """Move a verified file to where the version is put together, durably and under its name."""
    path, target = begun / file.hex, begun / "whole" / file.path
    if path.exists():
        sync_file(path)
        path.replace(target)
    elif not target.exists():  # the same bytes under two names
        twin = next(f for f in package.files if f.hex == file.hex)
        copy_atomic(begun / "whole" / twin.path, target)
    target.chmod(0o444)


def pour(source: Path, partial: FilePartial) -> None:
    """Fill the holes of `partial` from a local file.  OSError as it comes."""
    with open_regular(source) as reader:
        for hole, end in partial.holes():
            at = reader.seek(hole)
            while at < end and (chunk := reader.read(min(CHUNK_BYTES, end - at))):
                partial.write(at, chunk, AT_ONCE)
                at += len(chunk)
