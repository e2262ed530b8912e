"""A package folder as its author left it: which files belong to it, and what they are."""

import mmap
from dataclasses import dataclass
from pathlib import Path

from agent.adapters.files.durable import open_regular, sha256_of, weather
from agent.core.errors import UnfitError
from agent.core.manifest import MANIFEST, MANIFEST_BYTES_MAX, Manifest, parse
from agent.core.onnx_file import OnnxFacts, inspect
from agent.core.packages import FILE_BYTES_MAX, FileEntry

MODEL_FILE = "model.onnx"


@dataclass(frozen=True, slots=True)
class Contents:
    """What a package folder holds.  `files` is what is published, by name; anything else lying
    there (notes, notebooks, caches) is left out.
    """

    manifest: Manifest
    facts: OnnxFacts
    files: tuple[FileEntry, ...]

    @property
    def has_golden(self) -> bool:
        """Whether golden samples are among the files."""
        return any(file.path == self.manifest.golden.file for file in self.files)


def read_manifest(folder: Path) -> Manifest:
    """The manifest in a package folder.

    Raises:
        UnfitError: there is none, or it is bad.
        UnavailableError: the disk said no.
    """
    path = folder / MANIFEST
    _refuse_link(path)
    if not path.is_file():
        raise UnfitError(f"{folder} has no {MANIFEST}; `edge-agent model init` writes one")
    with weather(f"cannot read {path}"), open_regular(path) as file:
        return parse(file.read(MANIFEST_BYTES_MAX + 1))


def read_model(path: Path) -> OnnxFacts:
    """What the ONNX file at `path` says of itself.

    Raises:
        UnfitError: there is none, or it is bad.
        UnavailableError: the disk said no.
    """
    _refuse_link(path)
    if not path.is_file():
        raise UnfitError(f"there is no {path}")
    if path.stat().st_size == 0:
        raise UnfitError(f"{path} is empty")
    with (
        weather(f"cannot read {path}"),
        open_regular(path) as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as view,
    ):
        try:
            return inspect(view)
        except UnfitError as error:
            # Its traceback holds slices of the map, which then could not be closed.
            why = str(error)
    raise UnfitError(f"{path.name}: {why}")


def read_folder(folder: Path) -> Contents:
    """What the package in `folder` is made of.  Golden samples may be missing, nothing else.

    Raises:
        UnfitError: a file is missing or bad; the text names it.
        UnavailableError: the disk said no.
    """
    manifest = read_manifest(folder)
    facts = read_model(folder / MODEL_FILE)
    wanted = {MODEL_FILE, MANIFEST, *facts.external}
    if (folder / manifest.golden.file).is_file():
        wanted.add(manifest.golden.file)
    files = []
    for name in sorted(wanted):
        path = folder / name
        _refuse_link(path)
        if not path.is_file():
            raise UnfitError(f"{folder} lacks {name}, in which {MODEL_FILE} keeps weights")
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            raise UnfitError(f"{name} has {size} bytes; at most {FILE_BYTES_MAX} travel")
        with weather(f"cannot read {path}"):
            files.append(FileEntry(name, size, sha256_of(path)))
    return Contents(manifest, facts, tuple(files))


def _refuse_link(path: Path) -> None:
    """What a link points to may change after it was looked at."""
    if path.is_symlink():
        raise UnfitError(f"{path.name} is a symbolic link; a package has plain files only")
