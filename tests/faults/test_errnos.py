"""A disk that says no, in each of its ways, at each operation of an installation: it is weather, is
said as such, and the next attempt ends well.  (What SQLite does is in `test_disk_full`.)
"""

import contextlib
import errno
import json
import os
import traceback
from pathlib import Path

import pytest

from agent.adapters.files import FileStore, FileVault
from agent.core.errors import UnavailableError
from tests.contract.test_store import BODIES, PACKAGE

CALLS = ("open", "write", "fsync", "rename", "replace", "chmod", "mkdir", "ftruncate", "unlink")
CALLS += ("posix_fallocate",) if hasattr(os, "posix_fallocate") else ()
OPEN = Path("/proc/self/fd")
ERRNOS = (
    "EIO",
    *(pytest.param(e, marks=pytest.mark.soak) for e in ("ENOSPC", "EROFS", "EDQUOT", "EMFILE")),
)


class Disk:
    """From `arm(step)` on its `step`-th operation fails; once, or each from there on."""

    def __init__(self, number, *, lasting):
        self._number, self._lasting, self._left = number, lasting, -1
        self.hit = ""
        for name in CALLS:
            setattr(os, name, self._wrapped(name, getattr(os, name)))

    def arm(self, step):
        self._left, self.hit = step, ""

    def _wrapped(self, name, real):
        def call(*args, **more):
            self._left -= 1
            if self._left == 0 or (self._lasting and self.hit and self._left < 0):
                self.hit = self.hit or name
                raise OSError(self._number, os.strerror(self._number))
            return real(*args, **more)

        return call


def install(where):
    store = FileStore(where, 2**26)
    for file in PACKAGE.files:
        with contextlib.closing(store.partial(PACKAGE, file)) as partial:
            for start, end in partial.holes():
                partial.write(start, BODIES[file.path][start:end])
    store.adopt(PACKAGE)
    FileVault(where / "vault").keep("trust", b"floor")
    return store


def whole(store):
    path = store.path_of(PACKAGE.ref)
    return path is not None and {p.name: p.read_bytes() for p in path.iterdir()} == BODIES


def descriptors():
    return len(list(OPEN.iterdir()))


def swept(folder, number, *, lasting):
    """How many operations there are, and what went wrong at which, in sentences."""
    disk, wrong, step = Disk(number, lasting=lasting), [], 0
    install(folder / "first")  # what is imported late
    while True:
        step += 1
        where, before = folder / f"{step}", descriptors()
        disk.arm(step)
        said = ""
        try:
            install(where)
        except UnavailableError as error:
            said = str(error)
        except BaseException:
            wrong.append(f"{step} {disk.hit}: {traceback.format_exc(limit=-4)}")
        hit = disk.hit
        disk.arm(-1)
        if not hit:
            return step - 1, wrong
        if os.strerror(number) not in said and "disk is full" not in said and lasting:
            wrong.append(f"{step} {hit}: it says {said!r}")
        if descriptors() != before:
            wrong.append(f"{step} {hit}: {descriptors() - before} descriptors are left open")
        store = install(where)
        if not whole(store):
            wrong.append(f"{step} {hit}: not whole afterwards")
        store.collect([])
        if store.used_bytes():
            wrong.append(f"{step} {hit}: {store.used_bytes()} bytes are left behind")


@pytest.mark.skipif(not OPEN.is_dir(), reason="counts descriptors, and forks")
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("name", ERRNOS)
def test_whatever_a_disk_says_while_a_version_is_installed_is_weather(tmp_path, name, lasting):
    """[store-1.10] F13."""
    told = tmp_path / "told"
    child = os.fork()  # the wrapping ends with it
    if child == 0:
        try:
            with told.open("w") as file:
                json.dump(swept(tmp_path, getattr(errno, name), lasting=lasting), file)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    steps, wrong = json.loads(told.read_text())
    print(f"{name}: {steps} operations, {len(wrong)} ended otherwise")
    assert steps > 30
    assert not wrong, "\n".join(wrong)
