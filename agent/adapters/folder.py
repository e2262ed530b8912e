"""A repository in a folder: a USB stick, a network share, or a test (`file:///…`)."""

import asyncio
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from agent.core.errors import RefusedError, UnavailableError
from agent.core.names import FILE_PATTERN
from agent.core.packages import FileEntry
from agent.ports import Partial

METADATA_FILES_MAX = 128
METADATA_BYTES_MAX = 8 * 2**20
PIECE_BYTES = 2**20  # to hand a piece to a thread and back costs more than to copy 128 KiB
_FILE = re.compile(FILE_PATTERN)


class FolderFetcher:
    """A `ports.Fetcher` over the static tree that `edge-agent repo` writes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def metadata(self) -> Mapping[str, bytes]:
        """The files under `metadata/` by name.  Raises UnavailableError."""
        return await asyncio.to_thread(self._metadata)

    def _metadata(self) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        room = METADATA_BYTES_MAX
        try:
            for path in sorted((self._folder / "metadata").iterdir()):
                if _FILE.fullmatch(path.name) is None or not path.is_file():
                    continue
                with path.open("rb") as file:
                    files[path.name] = file.read(room + 1)
                room -= len(files[path.name])
                if room < 0 or len(files) > METADATA_FILES_MAX:
                    raise UnavailableError(
                        f"the metadata in {self._folder} is larger than is taken"
                    )
        except OSError as error:
            raise UnavailableError(
                f"there is no repository in {self._folder}: {error.strerror or error};"
                " is the medium there?"
            ) from error
        return files

    async def fetch(self, file: FileEntry, into: Partial, progress: Callable[[int], None]) -> None:
        """Fill the holes of `into`; `progress` is told of bytes as they come.

        Raises:
            UnavailableError: the blob is not there, not of the promised size, or cannot be read.
        """
        path = self._folder / "blobs" / "sha256" / file.hex
        try:
            with path.open("rb") as reader:
                size = os.fstat(reader.fileno()).st_size
                if size != file.size:
                    raise UnavailableError(
                        f"{file.path} has {size} bytes in {self._folder} and should have"
                        f" {file.size}; the copy is damaged"
                    )
                for hole, end in into.holes():
                    at = reader.seek(hole)
                    while at < end:
                        size = await asyncio.to_thread(_copy, reader, into, at, end)
                        if not size:
                            raise UnavailableError(f"{file.path} was cut short while it was read")
                        at += size
                        progress(size)
        except FileNotFoundError as error:
            raise UnavailableError(
                f"the repository in {self._folder} lacks {file.path} ({file.sha256[:19]}…)"
            ) from error
        except OSError as error:
            raise UnavailableError(f"cannot read {path}: {error.strerror or error}") from error


def _copy(reader: IO[bytes], into: Partial, at: int, end: int) -> int:
    """Copy the next piece, which belongs at `at`; its size, 0 at the end of what is read."""
    piece = reader.read(min(PIECE_BYTES, end - at))
    if piece:
        into.write(at, piece)
    return len(piece)


def folder_of(url: str) -> Path:
    """The folder that a `file:` URL names.

    Raises:
        RefusedError: it names another machine, or none.
    """
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path:
        raise RefusedError(f"{url!r} names no folder here; write file:///path/to/repository")
    return Path(url2pathname(parts.path) if os.name == "nt" else unquote(parts.path))
