"""Packages on the local disk, by digest: a version is there whole and verified, or not at all.

    DIR/models/sha256/<package hex>/        its files, 0444, in a folder that is 0555
    DIR/models/sha256/<package hex>.json    which files those are
    DIR/partial/<package hex>/<file hex>    what is being fetched, and <file hex>.log beside it
    DIR/partial/<package hex>/whole/        the verified files, on their way to models/

The last step of adopting is one rename; the order of everything before it is in `durable`.
"""

import contextlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import structlog

from agent.adapters.files.adoption import gather, pour, take_up, verify
from agent.adapters.files.contents import read_folder
from agent.adapters.files.durable import (
    make_folder,
    open_regular,
    remove_tree,
    sha256_of,
    sync_folder,
    weather,
    write_atomic,
)
from agent.adapters.files.leisure import AT_LEISURE, AT_ONCE, Pace
from agent.adapters.files.partial import FilePartial
from agent.core.errors import MisfitError, RefusedError, UnavailableError
from agent.core.manifest import MANIFEST, MANIFEST_BYTES_MAX
from agent.core.names import FILE_PATTERN, ModelRef, is_digest
from agent.core.packages import FileEntry, Package, describe, digest_of, read

_FILE = re.compile(FILE_PATTERN)
_MB = 2**20

log = structlog.get_logger(__name__)


class FileStore:
    """A `ports.Store` under `folder`, of at most `bytes_max` bytes (partials count too).

    Raises:
        UnavailableError: the folder cannot be made.
    """

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._models = folder / "models" / "sha256"
        self._partials = folder / "partial"
        self._bytes_max = bytes_max
        with weather(f"cannot make the store in {folder}"):
            make_folder(self._models)
            make_folder(self._partials)

    # ---- what is there -------------------------------------------------------------------------

    def path_of(self, ref: ModelRef) -> Path | None:
        """The read-only folder of a complete, verified version; None if it is not there.

        A version whose files have changed size, kind or owner of their names since is not there,
        nor is one with another manifest: that is read here, all else by who loads it, and proven.
        """
        folder = self._models / _hex(ref.digest)
        try:
            package = self._record(folder)
            for file in package.files:
                found = (folder / file.path).lstat()
                regular = (found.st_mode & 0o170000) == 0o100000
                changed = not regular or found.st_size != file.size or found.st_nlink != 1
                if changed or (file.path == MANIFEST and not _is(folder / MANIFEST, file)):
                    log.warning("store.damaged", model=str(ref), file=file.path)
                    return None
        except (OSError, RefusedError, ValueError):
            return None
        return folder if package.ref.digest == ref.digest else None

    def used_bytes(self) -> int:
        """What versions and partials take, reserved bytes included."""
        with weather("cannot measure the store"):
            return sum(
                path.lstat().st_size
                for root in (self._models, self._partials)
                for path in root.rglob("*")
                if path.is_file()
            )

    # ---- fetching ------------------------------------------------------------------------------

    def partial(self, package: Package, file: FileEntry) -> FilePartial:
        """Where the bytes of `file` go; what had come before a restart is still there.

        Bytes that another version in the store already has are copied from there.

        Raises:
            MisfitError: the package is larger than the whole store may become.
            UnavailableError: there is no room for it now, or the disk said no.
        """
        _check(package)
        if file not in package.files:
            raise RefusedError(f"{package.ref} has no file {file.path}")
        self._check_room(package)
        folder = self._partials / _hex(package.ref.digest)
        path = folder / file.hex
        with weather(f"cannot make room for {package.ref}"):
            make_folder(folder)
            take_up(folder, file)
            fresh = not path.exists()
        partial = FilePartial(path, file.size)
        try:
            if fresh:
                self._fill_from_store(package, file, partial)
        except BaseException:
            partial.close()
            raise
        return partial

    def fetched(self, package: Package, file: FileEntry) -> bytes | None:
        """The bytes of one small file of a package that is being fetched.

        None if it has not come whole, is not what was signed, or is larger than a manifest may be.
        """
        begun = self._partials / _hex(package.ref.digest)
        for path in (begun / file.hex, begun / "whole" / file.path):
            with weather(f"cannot read {file.path} of {package.ref}"):
                if file.size > MANIFEST_BYTES_MAX or not path.is_file():
                    continue
                if path.stat().st_size == file.size and sha256_of(path) == file.sha256:
                    with open_regular(path) as opened:
                        return opened.read()
        return None

    def _check_room(self, package: Package) -> None:
        if package.size > self._bytes_max:
            raise MisfitError(
                f"{package.ref} has {package.size / _MB:.1f} MB and the store may hold"
                f" {self._bytes_max / _MB:.1f} MB; raise store.models_mb"
            )
        begun = self._partials / _hex(package.ref.digest)
        there = sum(path.stat().st_size for path in begun.rglob("*") if path.is_file())
        missing = max(0, package.size - there)
        free = self._bytes_max - self.used_bytes()
        if missing > free:
            raise UnavailableError(
                f"{package.ref} needs {missing / _MB:.1f} MB more and the store has"
                f" {max(0, free) / _MB:.1f} MB left; retire a model or raise store.models_mb"
            )

    def _fill_from_store(self, package: Package, file: FileEntry, partial: FilePartial) -> None:
        """From this version itself, of which something else was damaged, or from another.

        Copied, never linked: a second name would let one version's damage be another's.
        """
        own = self._models / _hex(package.ref.digest) / file.path
        with contextlib.suppress(OSError):
            if sha256_of(own) == file.sha256:
                pour(own, partial)
                return
        for record in self._models.glob("*.json"):
            try:
                twin = next(
                    f for f in self._record(record.with_suffix("")).files if f.hex == file.hex
                )
                source = record.with_suffix("") / twin.path
                if sha256_of(source) != file.sha256:
                    continue
                pour(source, partial)
            except (OSError, RefusedError, ValueError, StopIteration):
                continue
            return

    # ---- adopting ------------------------------------------------------------------------------

    def adopt(self, package: Package) -> Path:
        """Check every file's size and SHA-256 and make the version appear, durably, at once.

        Raises:
            DamagedError: a digest is wrong (the bad file is dropped, so a new fetch starts clean).
            UnavailableError: a file is missing or incomplete, or the disk said no.
        """
        return self._adopt(package, AT_LEISURE)

    def _adopt(self, package: Package, pace: Pace) -> Path:
        _check(package)
        if (there := self.path_of(package.ref)) is not None:
            return there
        begun = self._partials / _hex(package.ref.digest)
        with weather(f"cannot store {package.ref}"):
            for file in package.files:
                take_up(begun, file)
                verify(package, file, begun / file.hex, pace)
            whole = begun / "whole"
            make_folder(whole)
            for file in package.files:
                gather(package, file, begun)
            sync_folder(whole)
            return self._appear(package, whole)

    def _appear(self, package: Package, whole: Path) -> Path:
        target = self._models / _hex(package.ref.digest)
        remove_tree(target)  # damaged, or path_of would have found it
        record = json.dumps(describe(package), ensure_ascii=False).encode()
        write_atomic(_record_of(target), record)
        whole.rename(target)
        target.chmod(0o555)
        sync_folder(self._models)
        remove_tree(whole.parent)
        log.info("store.adopted", model=str(package.ref), bytes=package.size)
        return target

    def adopt_folder(self, folder: Path) -> Package:
        """Copy a package from a local folder (factory model) into the store, as release 0.

        Raises:
            UnfitError: it is no package; the text names the file.
            MisfitError: it is larger than the whole store may become.
            UnavailableError: there is no room for it now, or the disk said no.
        """
        contents = read_folder(folder)
        name = contents.manifest.name
        package = Package(
            ref=ModelRef(name, 0, digest_of(name, contents.files)),
            version="factory",
            files=contents.files,
            tags=contents.manifest.tags,
        )
        if self.path_of(package.ref) is not None:
            return package
        for file in package.files:
            partial = self.partial(package, file)
            try:
                with weather(f"cannot read {folder}"):
                    pour(folder / file.path, partial)
            finally:
                partial.close()
        self._adopt(package, AT_ONCE)  # nothing is scored yet
        return package

    # ---- forgetting ----------------------------------------------------------------------------

    def distrust(self, ref: ModelRef) -> None:
        """The version is not there any more; of its files, those that are whole are used again."""
        with weather(f"cannot drop {ref}"):
            (self._models / f"{_hex(ref.digest)}.json").unlink(missing_ok=True)
            sync_folder(self._models)

    def collect(self, keep: Sequence[ModelRef]) -> int:
        """Drop every version and partial not in `keep`; returns the bytes given back."""
        kept = {_hex(ref.digest) for ref in keep}
        whole = {_hex(ref.digest) for ref in keep if self.path_of(ref) is not None}
        with weather("cannot clear the store"):
            freed = sum(remove_tree(self._partials / name) for name in whole)
            there = {path.name.removesuffix(".json") for path in self._models.iterdir()}
            there |= {path.name for path in self._partials.iterdir()}
            return freed + sum(self._drop(name) for name in there - kept)

    def _drop(self, name: str) -> int:
        """The record goes first: without it a version is not there, however much of it is left."""
        freed = 0
        for loose in (self._models / f"{name}.json", self._models / name, self._partials / name):
            if loose.is_dir() and not loose.is_symlink():
                freed += remove_tree(loose)
            elif loose.is_symlink() or loose.exists():
                freed += loose.lstat().st_size
                loose.unlink()
        sync_folder(self._models)
        sync_folder(self._partials)
        return freed

    def _record(self, folder: Path) -> Package:
        with open_regular(_record_of(folder)) as file:
            document = json.loads(file.read())
        if not isinstance(document, dict):
            raise RefusedError(f"{_record_of(folder)} is no table")
        return read(document)


def _record_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _is(path: Path, file: FileEntry) -> bool:
    return sha256_of(path) == file.sha256


def _hex(digest: str) -> str:
    if not is_digest(digest):
        raise RefusedError(f"{digest!r} is no digest")
    return digest.removeprefix("sha256:")


def _check(package: Package) -> None:
    """Names become paths here: whoever made the package, they are looked at once more."""
    for file in package.files:
        if _FILE.fullmatch(file.path) is None or not is_digest(file.sha256):
            raise RefusedError(f"{package.ref} has a file {file.path!r}; names are flat and plain")
    if digest_of(package.ref.name, package.files) != package.ref.digest:
        raise RefusedError(f"the digest of {package.ref} does not match its file list")
