"""A version as the repository's metadata describes it: its files, by digest, before any is fetched.

A package is a flat set of content-addressed files; there is no archive format.  Its own digest is
the SHA-256 over the canonical JSON of its name, release-independent file list, so the same bytes
have the same digest under any release number (which is how an operator rolls old bytes forward).
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.core.errors import RefusedError
from agent.core.names import FILE_PATTERN, Digest, ModelRef, is_digest, is_id

FILES_MAX = 256
FILE_BYTES_MAX = 16 * 2**30
CHUNK_BYTES = 128 * 1024  # of the MQTT transfer; also the size after which a bad sender is caught
_FILE = re.compile(FILE_PATTERN)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a package: flat name, size in bytes, and SHA-256 as `sha256:<hex>`."""

    path: str
    size: int
    sha256: Digest

    @property
    def hex(self) -> str:
        """The digest without its prefix: the blob's name in the repository."""
        return self.sha256.removeprefix("sha256:")


@dataclass(frozen=True, slots=True)
class Package:
    """One release of one model: who it is and what it is made of.  `custom` is for requirements."""

    ref: ModelRef
    version: str
    files: tuple[FileEntry, ...]
    tags: Mapping[str, str] = field(default_factory=dict)
    custom: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def digest_of(name: str, files: Iterable[FileEntry]) -> Digest:
    """The digest that pins every file of a version of `name`."""
    listing = [[f.path, f.size, f.sha256] for f in sorted(files, key=lambda f: f.path)]
    canonical = json.dumps([name, listing], separators=(",", ":"), ensure_ascii=True)
    return Digest(f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}")


def describe(package: Package) -> dict[str, Any]:
    """The package as a metadata document; `read` is its inverse."""
    return {
        "name": package.ref.name,
        "release": package.ref.release,
        "version": package.version,
        "digest": package.ref.digest,
        "files": [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in package.files],
        "tags": dict(package.tags),
        "custom": dict(package.custom),
    }


def read(document: Mapping[str, Any]) -> Package:
    """A package out of metadata that came from outside.

    Raises:
        RefusedError: it is not one: a name that could leave its folder, a digest that does not
            match the file list, absurd sizes.
    """
    name, release = document.get("name"), document.get("release")
    if not isinstance(name, str) or not is_id(name):
        raise RefusedError(f"the metadata names a model {name!r}, which is no model name")
    if not isinstance(release, int) or isinstance(release, bool) or not 0 <= release < 2**53:
        raise RefusedError(
            f"the metadata of {name} has the release {release!r}, which is no number"
        )
    raw = document.get("files")
    if not isinstance(raw, list) or not 0 < len(raw) <= FILES_MAX:
        raise RefusedError(f"the metadata of {name}:{release} lists no files, or too many")
    files = tuple(_file(name, entry) for entry in raw)
    if len({f.path for f in files}) != len(files):
        raise RefusedError(f"the metadata of {name}:{release} lists a file twice")
    digest = digest_of(name, files)
    if document.get("digest", digest) != digest:
        raise RefusedError(f"the digest of {name}:{release} does not match its own file list")
    tags = document.get("tags") or {}
    custom = document.get("custom") or {}
    if not isinstance(tags, Mapping) or not isinstance(custom, Mapping):
        raise RefusedError(f"the metadata of {name}:{release} has tags or custom of the wrong type")
    return Package(
        ref=ModelRef(name, release, digest),
        version=str(document.get("version", release)),
        files=files,
        tags={str(k): str(v) for k, v in tags.items()},
        custom=custom,
    )


def _file(name: str, entry: object) -> FileEntry:
    if not isinstance(entry, Mapping):
        raise RefusedError(f"the metadata of {name} lists a file that is no table")
    path, size, sha256 = entry.get("path"), entry.get("size"), entry.get("sha256")
    if not isinstance(path, str) or _FILE.fullmatch(path) is None:
        raise RefusedError(
            f"the metadata of {name} lists the file {path!r}; names are flat and plain"
        )
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= FILE_BYTES_MAX:
        raise RefusedError(f"the metadata of {name} gives {path} the size {size!r}")
    if not isinstance(sha256, str) or not is_digest(sha256):
        raise RefusedError(f"the metadata of {name} gives {path} no SHA-256")
    return FileEntry(path, size, Digest(sha256))
