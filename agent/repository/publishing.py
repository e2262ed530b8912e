"""What a publisher does to a repository: add a release, remove one, publish what is there.

Adding is visible at once: the catalog, and what the Publisher makes of it, are renewed with every
change.  `publish` does the same again without a change, to renew signatures before they expire.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agent.adapters.files import read_folder
from agent.adapters.files.durable import remove_tree
from agent.core import catalog
from agent.core.errors import RefusedError, UnavailableError
from agent.core.manifest import Manifest
from agent.core.names import ModelRef
from agent.core.onnx_file import OnnxFacts
from agent.core.packages import Package, digest_of
from agent.repository.layout import Repository

TAGS_MAX = 64
_VERSION = r"\d[\w.+-]*"
_CLAUSE = rf"\s*(>=|<=|==|!=|>|<)?\s*{_VERSION}\s*"
_RANGE = rf"{_CLAUSE}(,{_CLAUSE})*"
_TAG = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$")


class Publisher(Protocol):
    """Turns what a repository holds into the metadata that devices believe."""

    def init(self, repo: Repository) -> None:
        """Whatever an empty repository needs (keys, the devices' trust anchor)."""
        ...

    def write(self, repo: Repository, packages: Sequence[Package]) -> Sequence[str]:
        """Write the metadata files for exactly these packages under `repo.metadata`.

        Gives sentences about what the publisher should see to (keys that will run out).

        Raises:
            RefusedError: it cannot be done; what was published before still is.
        """
        ...


@dataclass(frozen=True, slots=True)
class Added:
    """What became of an `add`: `fresh` is False where the newest release has the same bytes."""

    package: Package
    fresh: bool
    notes: Sequence[str] = ()


def init(folder: Path, publisher: Publisher) -> Repository:
    """A new repository.  Raises RefusedError (409) if there is one."""
    repo = Repository.init(folder)
    try:
        publisher.init(repo)
        _renew(repo, (), publisher)
    except BaseException:
        remove_tree(folder)  # it was empty or not there: nobody else's is lost
        raise
    return repo


def add(
    repo: Repository,
    folder: Path,
    publisher: Publisher,
    *,
    tags: Mapping[str, str] | None = None,
    demands: Mapping[str, Any] | None = None,
    again: bool = False,
    build: Callable[[Path], object] | None = None,
    look: Callable[[Path], object] = lambda _: None,
) -> Added:
    """Register the package in `folder` as the next release of its model.

    Where golden samples are missing, `build` is called first; `look` may find fault with those that
    are there.  The same bytes as the newest release are no new release, unless `again`: that is how
    old bytes are rolled forward under a new number.
    `demands` is signed with what the package itself requires; see `requirements`.

    Raises:
        UnfitError: it is no package; the text names the file.
        RefusedError: a tag cannot be taken, or another command is writing.
        UnavailableError: the disk said no.
    """
    contents = read_folder(folder)
    if not contents.has_golden:
        if build is None:
            golden = contents.manifest.golden.file
            raise RefusedError(f"{folder} has no {golden}; run `edge-agent model build {folder}`")
        build(folder)
        contents = read_folder(folder)
    look(folder / contents.manifest.golden.file)
    wanted = {**contents.manifest.tags, **(tags or {})}
    check_tags(wanted)
    with repo.writing():
        packages = repo.packages()
        releases = [p for p in packages if p.ref.name == contents.manifest.name]
        newest = max(releases, key=lambda p: p.ref.release, default=None)
        digest = digest_of(contents.manifest.name, contents.files)
        if newest is not None and newest.ref.digest == digest and not again:
            return Added(newest, fresh=False)
        release = repo.next_release(contents.manifest.name)
        package = Package(
            ref=ModelRef(contents.manifest.name, release, digest),
            version=str(release),
            files=contents.files,
            tags=wanted,
            custom=requirements(contents.manifest, contents.facts, demands or {}),
        )
        for file in package.files:
            repo.put(file, folder / file.path)
        notes = _renew(repo, [*packages, package], publisher)
    return Added(package, fresh=True, notes=notes)


def remove(repo: Repository, name: str, release: int, publisher: Publisher) -> int:
    """Forget a release, and the blobs that no other release needs; gives the bytes that came free.

    Devices that run it go on; nobody can fetch it any more, and its number is not given again.

    Raises:
        RefusedError: there is no such release (404), or another command is writing.
    """
    with repo.writing():
        packages = repo.packages()
        gone = catalog.pick(packages, name, release)
        left = [package for package in packages if package.ref != gone.ref]
        _renew(repo, left, publisher)
        return repo.sweep(left)


def publish(repo: Repository, publisher: Publisher) -> tuple[int, Sequence[str]]:
    """Renew the metadata of what is there; gives how many releases that is, and sentences.

    Raises:
        UnavailableError: a blob is missing or not whole; nothing was changed.
    """
    with repo.writing():
        packages = repo.packages()
        for package in packages:
            for file in package.files:
                blob = repo.blob(file)
                if not blob.is_file() or blob.stat().st_size != file.size:
                    raise UnavailableError(
                        f"{file.path} of {package.ref} is missing from {repo.folder};"
                        f" add the package again, or remove {package.ref}"
                    )
        return len(packages), _renew(repo, packages, publisher)


def _renew(repo: Repository, packages: Sequence[Package], publisher: Publisher) -> Sequence[str]:
    """From packages to what devices read.  Blobs are there before anything names them.

    The catalog goes first: cut off after it, `publish` finishes the work.
    """
    before = repo.packages()
    repo.write_packages(packages)
    try:
        notes = publisher.write(repo, packages)
    except RefusedError:
        repo.write_packages(before)
        raise
    repo.write_bundle()
    return notes


def check_tags(tags: Mapping[str, str]) -> None:
    """Raises RefusedError if a tag cannot be taken."""
    if len(tags) > TAGS_MAX:
        raise RefusedError(f"a release carries at most {TAGS_MAX} tags, not {len(tags)}")
    for key, value in tags.items():
        if _TAG.fullmatch(key) is None or len(value) > 256 or not value.isprintable():
            raise RefusedError(f"{key}={value!r} is no tag; write --tag area=pumps")


def requirements(
    manifest: Manifest, facts: OnnxFacts, demands: Mapping[str, Any]
) -> dict[str, Any]:
    """What a device must have to run the package, to be known before anything is fetched.

    It is signed with the package and read there as `Package.custom`:

    min_agent    the oldest agent that runs it
    hw           any of these architectures or names of hardware
    min_release  from now on no older release of the model may run (the family's security floor)
    runtime      ort (">=1.23"), opsets, ir_version, providers, require, memory_mb

    `demands` gives those that the package does not know of itself: the first three, and "ort".

    Raises:
        RefusedError: one of them is not as devices can read it.
    """
    wanted = {key: value for key, value in demands.items() if value}
    for key, spelling in (("min_agent", _VERSION), ("ort", _RANGE)):
        if key in wanted and re.fullmatch(spelling, wanted[key]) is None:
            raise RefusedError(f"{wanted[key]!r} is no version as {key} takes it, such as 1.2")
    runtime = {
        "ir_version": facts.ir_version,
        "opsets": dict(facts.opsets),
        "providers": list(manifest.runtime.providers),
        "require": manifest.runtime.require,
        "memory_mb": manifest.runtime.memory_mb,
    }
    if "ort" in wanted:
        runtime["ort"] = wanted.pop("ort")
    return {**wanted, "runtime": runtime}
