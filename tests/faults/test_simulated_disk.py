"""Every state in which a power cut may leave the store, the vault and single files, by the model of
a disk that keeps no more than it must; and each sync, left out where it is called, is missed.
"""

import hashlib
import random
import shutil
import tempfile
from pathlib import Path

import pytest

from agent.adapters.files import FileStore, FileVault
from agent.adapters.files.durable import copy_atomic, write_atomic
from agent.core.names import Digest, ModelRef
from agent.core.packages import FileEntry, Package, digest_of
from tests.world.simulated_disk import Watched, lay_out

DRAWN = 24  # of the ways in which names may be left at one point, in the fast suite


def package(number):
    """Two files; the second package has the first of them under two names."""
    weights = random.Random(number).randbytes(64)
    bodies = {"model.onnx": weights, "model.toml": b"name = 'm%d'" % number}
    if number == 2:
        bodies["same.bin"] = weights
    files = tuple(
        FileEntry(name, len(b), Digest(f"sha256:{hashlib.sha256(b).hexdigest()}"))
        for name, b in sorted(bodies.items())
    )
    return Package(ModelRef("m", number, digest_of("m", files)), str(number), files), bodies


def install(folder, number):
    store, (one, bodies) = FileStore(folder, 2**20), package(number)
    for file in one.files:
        partial = store.partial(one, file)
        for start, end in partial.holes():
            partial.write(start, bodies[file.path][start:end])
        partial.close()
    store.adopt(one)


class Writes:
    """`write_atomic`: the last that was told, or the next, never half."""

    def work(self, folder, disk):
        for number in (1, 2, 3):
            write_atomic(folder / "a", b"%d" % number * 64)
            disk.tell(number)

    def wrong(self, folder, told):
        body = (folder / "a").read_bytes() if (folder / "a").exists() else b"0"
        if len(set(body)) != 1 or len(body) not in {1, 64}:
            return "half of it"
        return f"{told} was told and {body[:1]} is there" if int(body[:1]) < told else ""


class Copies:
    """`copy_atomic`: there whole if told, else whole or not at all."""

    def work(self, folder, disk):
        write_atomic(folder / "source", b"x" * 64)
        for number in (1, 2):
            copy_atomic(folder / "source", folder / f"copy-{number}")
            disk.tell(number)

    def wrong(self, folder, told):
        there = sorted(folder.glob("copy-*"))
        if any(path.read_bytes() != b"x" * 64 for path in there):
            return "half of a copy"
        return f"copy {told} is not there" if len(there) < told else ""


class Keeps:
    """The vault: the floor never falls."""

    def work(self, folder, disk):
        vault = FileVault(folder / "vault")
        for number in (1, 2):
            vault.keep("trust", b"%d " % number * 16)
            disk.tell(number)

    def wrong(self, folder, told):
        parts = (FileVault(folder / "vault").recall("trust") or b"0").split()
        if len(set(parts)) != 1 or len(parts) not in {1, 16}:
            return "half of it"
        return f"the floor fell from {told} to {parts[0]}" if int(parts[0]) < told else ""


class Installs:
    """The store: a version adopted is there with every byte; another is not, and installs anew."""

    def __init__(self, versions):
        self.versions = range(1, versions + 1)

    def work(self, folder, disk):
        for number in self.versions:
            install(folder, number)
            disk.tell(number)

    def wrong(self, folder, told):
        for number in self.versions:
            one, bodies = package(number)
            path = FileStore(folder, 2**20).path_of(one.ref)
            if path is None and number <= told:
                return f"version {number} is not there"
            if path is not None and any((path / n).read_bytes() != b for n, b in bodies.items()):
                return f"version {number} has wrong bytes"
        install(folder, told + 1)
        return ""


class Discards:
    """The store: a version dropped does not come back."""

    def work(self, folder, disk):
        install(folder, 1)
        FileStore(folder, 2**20).collect([])
        disk.tell(1)

    def wrong(self, folder, told):
        left = any(
            path.name.startswith(package(1)[0].ref.digest.removeprefix("sha256:"))
            for path in folder.rglob("*")
        )
        return "it came back" if told and left else ""


WORKS = (Writes(), Copies(), Keeps(), Installs(2), Discards())


@pytest.fixture
def folder(tmp_path):
    """In memory, where there is such a place: thousands of states are laid out."""
    memory = Path("/dev/shm")
    where = memory if memory.is_dir() else tmp_path
    with tempfile.TemporaryDirectory(dir=where, ignore_cleanup_errors=True) as made:
        yield Path(made)


def explored(work, folder, *, left_out="", drawn=0):
    """States looked at, the first that is wrong, in words, and the places that sync."""
    root, seen, looked = folder / "watched", set(), 0
    root.mkdir()
    with Watched(root, left_out) as disk:
        work.work(root, disk)
    dice, again = random.Random(1), folder / "again"
    wrong = ""
    for point in disk.points:
        for state in point.states(dice if drawn else None, drawn):
            key = (point.told, frozenset(state.items()))
            if key in seen:
                continue
            seen.add(key)
            looked += 1
            again.mkdir()
            lay_out(state, again)
            wrong = work.wrong(again, point.told)
            shutil.rmtree(again)
            if wrong:
                break
        if wrong:
            break
    shutil.rmtree(root)
    return looked, wrong, disk.places


@pytest.mark.parametrize("work", WORKS, ids=lambda work: type(work).__name__)
def test_no_state_a_power_cut_may_leave_is_wrong(work, folder):
    """[durability-3.2] [durability-3.3]"""
    drawn = DRAWN if isinstance(work, Installs | Discards) else 0
    looked, wrong, _ = explored(work, folder, drawn=drawn)
    print(f"{type(work).__name__}: {looked} states, {'drawn' if drawn else 'all there are'}")
    assert not wrong


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("work", [Installs(1), Discards()], ids=lambda work: type(work).__name__)
def test_no_state_at_all_that_a_power_cut_may_leave_of_a_store_is_wrong(work, folder):
    looked, wrong, _ = explored(work, folder)
    print(f"{type(work).__name__}: {looked} states, all there are")
    assert not wrong


def test_each_sync_left_out_where_it_is_called_is_missed(folder):
    """[durability-3.4]"""
    places = {}
    for work in WORKS:
        _, _, found = explored(work, folder, drawn=1)
        for place in found:
            places.setdefault(place, []).append(work)
    unmissed = []
    for place, works in places.items():
        for work in works:
            looked, wrong, _ = explored(work, folder, left_out=place, drawn=DRAWN)
            if wrong:
                break
        print(f"{place:32} {type(work).__name__:9} {looked:6} states: {wrong or 'NOT MISSED'}")
        unmissed += [] if wrong else [place]
    assert unmissed == []
