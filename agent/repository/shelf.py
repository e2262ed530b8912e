"""The folder of signed metadata: what is current in it, and how a new generation gets there.

Files are never changed, only added: a new generation becomes current with its timestamp, which is
written last, so a reader (or a crash) in between sees the old one whole.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from agent.adapters.files.durable import make_folder, weather, write_atomic
from agent.core.errors import RefusedError
from agent.core.trust import ROOTS_MAX

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)

_ROOT_FILE = re.compile(r"([1-9][0-9]{0,8})\.root\.json")


class Shelf:
    """The metadata in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def roots(self) -> dict[int, Path]:
        """Every root there is, by version, oldest first."""
        paths = self.folder.glob("*.root.json") if self.folder.is_dir() else ()
        found = {int(m[1]): path for path in paths if (m := _ROOT_FILE.fullmatch(path.name))}
        return dict(sorted(found.items()))

    def load(self, kind: type[T], name: str) -> T:
        """What stands in the file `name`.

        Raises:
            RefusedError: it is not there, or is not that.
        """
        path = self.folder / name
        try:
            metadata: Metadata[Any] = Metadata.from_bytes(path.read_bytes())
        except (OSError, RepositoryError) as error:
            raise RefusedError(f"{path} cannot be read: {error}; is this a repository?") from error
        if not isinstance(metadata.signed, kind):
            raise RefusedError(f"{path} holds {metadata.signed.type}, not {kind.type}")
        return metadata.signed

    def write(self, files: Mapping[str, bytes]) -> None:
        """Add `files` durably, in their order.  Raises UnavailableError: the disk said no."""
        with weather(f"cannot write to {self.folder}"):
            make_folder(self.folder)
            for name, raw in files.items():
                write_atomic(self.folder / name, raw)

    def prune(self, keep: Mapping[str, int]) -> None:
        """Drop every version but these of the roles in `keep`; roots stay for ever."""
        for role, version in keep.items():
            name = re.compile(r"([1-9][0-9]{0,17})\." + re.escape(role) + r"\.json")
            for path in self.folder.glob(f"*.{role}.json"):
                match = name.fullmatch(path.name)
                if match and int(match[1]) != version:
                    path.unlink(missing_ok=True)

    def bundle(self, current: Mapping[str, int], first_root: int | None) -> dict[str, bytes]:
        """Some roots, the roles in `current` at their versions, and the timestamp.

        The roots from `first_root` on; by default the last ones, as many as a device takes at once.
        """
        roots = list(self.roots())
        start = first_root if first_root is not None else (roots or [1])[-1] - ROOTS_MAX
        names = [f"{v}.root.json" for v in roots if v >= start][: ROOTS_MAX + 1]
        names += [f"{version}.{role}.json" for role, version in current.items()]
        return {name: (self.folder / name).read_bytes() for name in (*names, "timestamp.json")}
