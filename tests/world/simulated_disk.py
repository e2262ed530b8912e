"""A disk in a model: what a power cut may leave of a small workload, every legal state of it.

The workload runs on a real folder, watched.  Kept apart are what its files and folders are, and
what was synced of them.  A cut then leaves of each change of names not synced all or nothing, in
any combination; and of each file not synced what was there when it last was, nothing, a part, zeros
of the right length, or all.  A rename is one change (ext4, XFS and Btrfs keep it whole); syncing a
file does not sync its name.  So it is harsher than any one filesystem; SQLite is not watched (it
has such tests of its own), and no drive is simulated.
"""

import os
import random
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple, Self

Names = dict[tuple[int, str], int]  # (folder, name) -> file or folder
State = dict[str, bytes | None]  # path -> what a file holds; None: a folder

ROOT = 0
_NAMING = frozenset({"open", "replace", "rename", "unlink", "remove", "rmdir", "mkdir"})
_SYNCING = frozenset({"sync_file", "sync_folder"})


class _Change(NamedTuple):
    """One call that changed names."""

    gone: tuple[tuple[int, str], ...]
    come: Names

    def apply(self, names: Names) -> None:
        for key in self.gone:
            names.pop(key, None)
        names.update(self.come)

    def is_in(self, folder: int) -> bool:
        return any(key[0] == folder for key in (*self.gone, *self.come))


class Point(NamedTuple):
    """A moment just before a sync, or at the end; power may be cut at any time since the last."""

    told: int  # what the workload had said to be durable
    names: Names  # synced
    changes: tuple[_Change, ...]  # not synced
    folders: frozenset[int]
    bodies: dict[int, tuple[bytes | None, bytes]]  # of each file what was synced, and what is there

    def states(self, dice: random.Random | None = None, most: int = 0) -> Iterator[State]:
        """All of them; or, with `dice`, at most `most` drawn."""
        for names in self._subsets(dice, most):
            tree = self._tree(names)
            files = [(path, node) for path, node in tree if node not in self.folders]
            folders: State = {path: None for path, node in tree if node in self.folders}
            left = [self._left(node) for _, node in files]
            every = product(*left)
            if dice is not None and most:
                every = iter([tuple(dice.choice(one) for one in left) for _ in range(4)])
            for bodies in every:
                yield folders | {path: b for (path, _), b in zip(files, bodies, strict=True)}

    def _subsets(self, dice: random.Random | None = None, most: int = 0) -> Iterator[Names]:
        masks: Iterator[int] | list[int] = iter(range(2 ** len(self.changes)))
        if dice is not None and 2 ** len(self.changes) > most:
            masks = [dice.getrandbits(len(self.changes)) for _ in range(most)]
        for mask in masks:
            names = dict(self.names)
            for n, change in enumerate(self.changes):
                if mask >> n & 1:
                    change.apply(names)
            yield names

    def _tree(self, names: Names) -> list[tuple[str, int]]:
        """What can be reached from the root, folders before what is in them."""
        found, open_ = [], [("", ROOT)]
        while open_:
            path, folder = open_.pop()
            for (where, name), node in names.items():
                if where == folder:
                    found.append((f"{path}{name}", node))
                    if node in self.folders:
                        open_.append((f"{path}{name}/", node))
        return found

    def _left(self, node: int) -> list[bytes]:
        synced, there = self.bodies[node]
        if synced == there:
            return [there]
        every = (synced or b"", b"", there[: len(there) // 2], bytes(len(there)), there)
        return list(dict.fromkeys(every))


class Watched:
    """A context manager: what is done in `root`, by this thread, while it is open.

    `left_out` is a place that syncs, as `places` names them: there nothing is synced.
    """

    def __init__(self, root: Path, left_out: str = "") -> None:
        self.points: list[Point] = []
        self.places: dict[str, None] = {}
        self._root, self._left_out = root, left_out
        self._told = 0
        self._nodes: dict[int, int] = {}  # inode -> node, of what is there
        self._next = ROOT + 1
        self._there: Names = {}
        self._synced: Names = {}
        self._changes: list[_Change] = []
        self._folders = {ROOT}
        self._bodies: dict[int, bytes | None] = {}
        self._real = os.fsync

    def __enter__(self) -> Self:
        self._nodes = {self._root.stat().st_ino: ROOT}
        # The code under test has no seam for the disk, and is to have none: it calls `os`.
        os.fsync = self._fsync
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        os.fsync = self._real
        self._point()

    def tell(self, number: int) -> None:
        """The workload says that this is durable."""
        self._point()
        self._told = number

    def _profile(self, _frame: object, event: str, arg: object) -> None:
        if event == "c_return" and getattr(arg, "__name__", "") in _NAMING:
            self._look()

    def _fsync(self, fd: int) -> None:
        place = _caller()
        self.places[place] = None
        self._point()
        if place == self._left_out:
            return
        node = self._nodes[os.fstat(fd).st_ino]
        if node not in self._folders:
            self._bodies[node] = self._read(node)
            return
        for change in [c for c in self._changes if c.is_in(node)]:
            change.apply(self._synced)
            self._changes.remove(change)

    def _look(self) -> None:
        """What has changed since the last look, which is what one call did."""
        now: Names = {}
        inodes: dict[int, int] = {self._root.stat().st_ino: ROOT}
        open_ = [(self._root, ROOT)]
        while open_:
            path, folder = open_.pop()
            with os.scandir(path) as found:
                for entry in found:
                    inode = entry.inode()
                    node = self._nodes.get(inode)
                    if node is None:
                        node = self._next
                        self._next += 1
                        if entry.is_dir(follow_symlinks=False):
                            self._folders.add(node)
                        else:
                            self._bodies[node] = None
                    inodes[inode] = node
                    now[folder, entry.name] = node
                    if node in self._folders:
                        open_.append((Path(entry.path), node))
        gone = tuple(key for key in self._there if key not in now)
        come = {key: node for key, node in now.items() if self._there.get(key) != node}
        if gone or come:
            self._changes.append(_Change(gone, come))
        self._there, self._nodes = now, inodes

    def _point(self) -> None:
        self._look()
        bodies = {node: (synced, self._read(node)) for node, synced in self._bodies.items()}
        self.points.append(
            Point(
                self._told,
                dict(self._synced),
                tuple(self._changes),
                frozenset(self._folders),
                bodies,
            )
        )

    def _read(self, node: int) -> bytes:
        for (folder, name), one in self._there.items():
            if one == node:
                return (self._path(folder) / name).read_bytes()
        return self._bodies[node] or b""  # it has no name any more

    def _path(self, node: int) -> Path:
        for (folder, name), one in self._there.items():
            if one == node:
                return self._path(folder) / name
        return self._root


def _caller() -> str:
    """Who syncs: function and line, of whoever called the functions that only sync."""
    frame = sys._getframe(2)
    while frame.f_code.co_name in _SYNCING and frame.f_back is not None:
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}:{frame.f_lineno}"


def lay_out(state: State, folder: Path) -> None:
    """Make `folder`, which is empty, look like that."""
    for path, body in state.items():
        if body is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(body)
