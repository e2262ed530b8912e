"""A publisher with other tools than ours, who signs and publishes whatever lies in a folder.

`repo add` looks at a package first; what it would turn away has to be turned away by the device as
well, because not everybody who holds a key uses it.
"""

from pathlib import Path

from agent.adapters.files.durable import sha256_of
from agent.core.names import ModelRef
from agent.core.packages import FileEntry, Package, digest_of
from agent.repository.layout import Repository
from agent.repository.signed import SignedPublisher

KEPT = 50  # releases: devices read so much metadata, and no more


def publish(repository: Path, folder: Path, name: str = "m") -> Package:
    """Sign every file in `folder` as the next release of `name`, without a look at one of them."""
    repo = Repository.open(repository)
    files = tuple(
        FileEntry(path.name, path.stat().st_size, sha256_of(path))
        for path in sorted(folder.iterdir())
    )
    with repo.writing():
        packages = repo.packages()[-KEPT:]
        release = repo.next_release(name)
        ref = ModelRef(name, release, digest_of(name, files))
        package = Package(ref=ref, version=str(release), files=files)
        for file in files:
            repo.put(file, folder / file.path)
        repo.write_packages([*packages, package])
        SignedPublisher().write(repo, [*packages, package])
        repo.write_bundle()
    return package


def blob(repository: Path, package: Package, path: str) -> Path:
    """Where the bytes of one file of `package` lie in the repository."""
    repo = Repository.open(repository)
    return repo.blob(next(file for file in package.files if file.path == path))
