"""Where packages lie, and where they come from."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from agent.core.names import ModelRef
from agent.core.packages import FileEntry, Package


class Partial(Protocol):
    """A file that is being fetched.  Survives restarts; is not trusted until adopted."""

    size: int

    def holes(self) -> Sequence[tuple[int, int]]:
        """Byte ranges (start, end) still wanted, ascending; empty when all is there."""
        ...

    def write(self, offset: int, chunk: bytes) -> None: ...
    def close(self) -> None: ...


class Store(Protocol):
    """Content-addressed packages on the local disk; a version is there whole or not at all."""

    def path_of(self, ref: ModelRef) -> Path | None:
        """The read-only folder of a complete, verified version; None if it is not there."""
        ...

    def partial(self, package: Package, file: FileEntry) -> Partial: ...

    def fetched(self, package: Package, file: FileEntry) -> bytes | None:
        """The bytes of one small file of a package that is being fetched; None if it has not come
        whole, or is not what was signed.
        """
        ...

    def adopt(self, package: Package) -> Path:
        """Check every file's size and SHA-256 and make the version appear, durably, at once.

        Raises:
            DamagedError: a digest is wrong (the bad file is dropped, so a new fetch starts clean).
            UnavailableError: a file is missing or incomplete, or the disk said no.
        """
        ...

    def adopt_folder(self, folder: Path) -> Package:
        """Copy a package from a local folder (factory model) into the store, as release 0."""
        ...

    def distrust(self, ref: ModelRef) -> None:
        """A version's files are not what was signed any more: it is not there until it is adopted
        again, from those of them that still are and what is fetched.
        """
        ...

    def collect(self, keep: Sequence[ModelRef]) -> int:
        """Drop every version and partial not in `keep`; returns the bytes given back."""
        ...


class Fetcher(Protocol):
    """Where metadata and files come from.  Trusts nothing, decides nothing."""

    async def metadata(self) -> Mapping[str, bytes]:
        """The repository's metadata files by name.  Raises UnavailableError."""
        ...

    async def fetch(self, file: FileEntry, into: Partial, progress: Callable[[int], None]) -> None:
        """Fill the holes of `into`; `progress` is told of bytes as they come.

        Raises:
            UnavailableError: it broke off; what came stays, the next call goes on from there.
        """
        ...
