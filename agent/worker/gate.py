"""The last look at a version's files before onnxruntime sees them.

Everything in the folder is a plain file with one name; together they are what was signed, hashed
anew at each load; and `agent.core.onnx_gate` lets the model pass.  It runs where onnxruntime will:
in the jail and at the lowest priority, so that a file made to be slow to read costs the stream
nothing.  It and the pure files it calls are all that a worker has of the agent besides its own
package.
"""

import hashlib
import mmap
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.core import onnx_gate
from agent.core.errors import UnfitError
from agent.core.names import Digest
from agent.core.packages import FILE_BYTES_MAX, FILES_MAX, FileEntry, digest_of
from agent.worker.refusals import RefusalError, unfit

ORT_MARKER = b"ORTM"  # at offset 4 of onnxruntime's own format
_CHUNK_BYTES = 1 << 20

hashlib.sha256(b"")  # what OpenSSL reads when first used could not be read from inside the jail


def check(folder: Path, brief: Mapping[str, Any]) -> Path:
    """The path of the model in `folder`, which may be loaded.

    Raises:
        RefusalError: it may not.
        OSError: the folder cannot be read.
    """
    files = _plain_files(folder)
    if brief["digest"] is not None:
        _check_signed(folder, files, brief["name"], brief["digest"])
    path = folder / str(brief["model"])
    if path.name not in files:
        raise unfit(f"the package has no {path.name}")
    if files[path.name] == 0:
        raise unfit(f"{path.name} is empty")
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as view,
    ):
        why = _refusal(view, files, brief)
    if why:
        raise unfit(f"{path.name}: {why}")
    return path


def _refusal(view: memoryview, files: Mapping[str, int], brief: Mapping[str, Any]) -> str:
    """Why the model does not pass; empty if it does.

    No exception leaves here: its traceback would hold slices of the map, which could not be closed.
    """
    if view[4:8] == ORT_MARKER:
        return "it is in onnxruntime's own format; publish the .onnx it was made from"
    try:
        onnx_gate.admit(view, files, brief["domains"])
    except UnfitError as error:
        return str(error)
    return ""


def _plain_files(folder: Path) -> dict[str, int]:
    """Name -> bytes of all in `folder`.

    A link of either kind would make onnxruntime read, and an attacker see, another file's bytes.
    """
    files = {}
    with os.scandir(folder) as found:
        for entry in found:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                raise unfit(f"{entry.name} is a symbolic link; a package has plain files only")
            if not stat.S_ISREG(status.st_mode):
                raise unfit(f"{entry.name} is no plain file; a package is one flat folder of files")
            if status.st_nlink > 1:
                raise unfit(f"{entry.name} is a hard link to a file elsewhere; copy it instead")
            if status.st_size > FILE_BYTES_MAX:
                raise unfit(f"{entry.name} has more than {FILE_BYTES_MAX} bytes")
            files[entry.name] = status.st_size
            if len(files) > FILES_MAX:
                raise unfit(f"the package has more than {FILES_MAX} files")
    return files


def _check_signed(folder: Path, files: Mapping[str, int], name: str, digest: str) -> None:
    """That the files are those, all of those and only those, that `digest` was signed for."""
    found = [
        FileEntry(path, size, Digest(f"sha256:{_sha256(folder / path)}"))
        for path, size in files.items()
    ]
    if digest_of(name, found) != digest:
        raise RefusalError(
            "damaged",
            f"what lies in the store ({', '.join(sorted(files))}) is not what was signed;"
            " something on this device changed it after it was verified",
        )


def _sha256(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            total.update(chunk)
    return total.hexdigest()
