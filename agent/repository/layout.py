"""Where things lie in a repository: static files that any web server or stick carries.

DIR/blobs/sha256/<hex>      every file of every release, by digest, 0444
DIR/metadata/catalog.json   what there is (`core.catalog`), and the signed metadata beside it
DIR/metadata.bundle         all of metadata/ as one text, for those who cannot list a folder
DIR/.lock                   while a command writes
"""

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from agent.adapters.files.durable import (
    copy_atomic,
    make_folder,
    sha256_of,
    sync_folder,
    weather,
    write_atomic,
)
from agent.core import catalog
from agent.core.enclosed import pack_metadata
from agent.core.errors import RefusedError, UnavailableError
from agent.core.packages import FileEntry, Package

BUNDLE_FILE = "metadata.bundle"
LOCK_FILE = ".lock"


class Repository:
    """One repository on the local disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metadata = folder / "metadata"
        self.blobs = folder / "blobs" / "sha256"

    @classmethod
    def init(cls, folder: Path) -> Self:
        """An empty repository in `folder`.

        Raises:
            RefusedError: one is there already (409), or something else is.
        """
        repo = cls(folder)
        if repo.exists():
            raise RefusedError(
                f"there is a repository in {folder} already; nothing was changed", 409
            )
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RefusedError(f"{folder} is not empty; name a new folder for the repository", 409)
        with weather(f"cannot make {folder}"):
            make_folder(repo.metadata)
            make_folder(repo.blobs)
        repo.write_packages(())
        return repo

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The repository in `folder`.

        Raises:
            RefusedError: there is none (404).
        """
        repo = cls(folder)
        if not repo.exists():
            raise RefusedError(
                f"there is no repository in {folder}; `edge-agent repo init {folder}` makes one",
                404,
            )
        return repo

    def exists(self) -> bool:
        """Whether a repository is there."""
        return (self.metadata / catalog.FILE).is_file()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep every other command from writing meanwhile.

        Raises:
            RefusedError: another one is writing (409).
        """
        path = self.folder / LOCK_FILE
        try:
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError as error:
            raise RefusedError(
                f"another command is writing to {self.folder}; if none is, delete {path}", 409
            ) from error
        except OSError as error:
            raise UnavailableError(f"cannot write to {self.folder}: {error.strerror}") from error
        os.close(fd)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def packages(self) -> list[Package]:
        """Every release there is, by name and release."""
        with weather(f"cannot read the catalog of {self.folder}"):
            return catalog.read_all((self.metadata / catalog.FILE).read_bytes())

    def next_release(self, name: str) -> int:
        """A number that no release of `name` ever had, removed ones included."""
        with weather(f"cannot read the catalog of {self.folder}"):
            highest = catalog.highest_in((self.metadata / catalog.FILE).read_bytes())
        return highest.get(name, 0) + 1

    def write_packages(self, packages: Sequence[Package]) -> None:
        """Make the catalog list exactly `packages`, at once and durably."""
        with weather(f"cannot write the catalog of {self.folder}"):
            path = self.metadata / catalog.FILE
            highest = catalog.highest_in(path.read_bytes()) if path.exists() else {}
            write_atomic(path, catalog.write(packages, highest))

    def metadata_files(self) -> dict[str, bytes]:
        """All that lies under metadata/, by name."""
        with weather(f"cannot read the metadata of {self.folder}"):
            return {
                path.name: path.read_bytes()
                for path in sorted(self.metadata.iterdir())
                if path.is_file() and not path.name.startswith(".")
            }

    def bundle(self) -> bytes:
        """All that lies under metadata/ as one text: the same text a desired document encloses."""
        return pack_metadata(self.metadata_files()).encode()

    def write_bundle(self) -> None:
        """Renew `metadata.bundle`; whoever changed a file under metadata/ calls this last."""
        with weather(f"cannot write {BUNDLE_FILE} of {self.folder}"):
            write_atomic(self.folder / BUNDLE_FILE, self.bundle())

    def blob(self, file: FileEntry) -> Path:
        """Where the bytes of `file` lie, or would."""
        return self.blobs / file.hex

    def put(self, file: FileEntry, source: Path) -> None:
        """Copy the bytes of `file` in from `source`, durably; nothing to do if they are there.

        Raises:
            UnavailableError: the disk said no, or the file changed while it was read.
        """
        target = self.blob(file)
        with weather(f"cannot copy {source} into {self.folder}"):
            if target.is_file() and target.stat().st_size == file.size:
                return
            arriving = target.with_name(f".{file.hex}.{secrets.token_hex(4)}")
            try:
                copy_atomic(source, arriving)
                if sha256_of(arriving) != file.sha256:
                    raise UnavailableError(f"{source} changed while it was copied; try again")
                arriving.replace(target)
            finally:
                arriving.unlink(missing_ok=True)
            sync_folder(self.blobs)

    def sweep(self, packages: Sequence[Package]) -> int:
        """Remove every blob that none of `packages` needs; gives the bytes that came free."""
        needed = {file.hex for package in packages for file in package.files}
        freed = 0
        with weather(f"cannot clear {self.blobs}"):
            for path in self.blobs.iterdir():
                if path.name not in needed:
                    freed += path.stat().st_size
                    path.unlink()
        return freed
