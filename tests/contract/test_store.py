"""The store's contract: a version is there whole and verified, or not at all; whatever happens."""

import hashlib
import os
import random
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.adapters.files import FileStore
from agent.core.errors import DamagedError, MisfitError, RefusedError, UnavailableError, UnfitError
from agent.core.names import Digest, ModelRef
from agent.core.packages import CHUNK_BYTES, FileEntry, Package, digest_of
from tests.world import zoo

MB = 2**20


def content(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def entry(name: str, body: bytes) -> FileEntry:
    return FileEntry(name, len(body), Digest(f"sha256:{hashlib.sha256(body).hexdigest()}"))


def package_of(bodies: dict[str, bytes], name: str = "pump", release: int = 1) -> Package:
    files = tuple(entry(n, b) for n, b in sorted(bodies.items()))
    return Package(ModelRef(name, release, digest_of(name, files)), str(release), files)


BODIES = {
    "model.onnx": content(3 * CHUNK_BYTES + 17),
    "model.toml": b"name = 'pump'\n",
    "none": b"",
}
PACKAGE = package_of(BODIES)
BIG = PACKAGE.files[0]


@pytest.fixture
def folder(tmp_path: Path):
    yield tmp_path / "store"
    for path in (tmp_path / "store").rglob("*"):
        if path.is_dir():
            path.chmod(0o755)


def store_in(folder: Path, bytes_max: int = 64 * MB) -> FileStore:
    return FileStore(folder, bytes_max)


def fill(store: FileStore, package: Package, bodies: dict[str, bytes]) -> None:
    for file in package.files:
        partial = store.partial(package, file)
        for start, end in partial.holes():
            partial.write(start, bodies[file.path][start:end])
        partial.close()


def test_a_version_appears_whole_and_read_only(folder):
    store = store_in(folder)
    assert store.path_of(PACKAGE.ref) is None
    fill(store, PACKAGE, BODIES)
    assert store.path_of(PACKAGE.ref) is None, "fetched is not adopted"
    path = store.adopt(PACKAGE)
    assert path == store.path_of(PACKAGE.ref) == store_in(folder).path_of(PACKAGE.ref)
    assert {p.name: p.read_bytes() for p in path.iterdir()} == BODIES
    assert stat.S_IMODE(path.stat().st_mode) == 0o555
    assert {stat.S_IMODE(p.stat().st_mode) for p in path.iterdir()} == {0o444}
    assert path.parent.parts[-2:] == ("models", "sha256")
    assert not list((folder / "partial").iterdir())


def test_a_small_file_can_be_read_before_the_rest_has_come(folder):
    """[rollout-8.2]"""
    store = store_in(folder)
    manifest = next(file for file in PACKAGE.files if file.path == "model.toml")
    assert store.fetched(PACKAGE, manifest) is None
    partial = store.partial(PACKAGE, manifest)
    assert store.fetched(PACKAGE, manifest) is None
    partial.write(0, b"name = 'bump'\n")
    assert store.fetched(PACKAGE, manifest) is None  # not what was signed
    partial.write(0, BODIES["model.toml"])
    partial.close()
    assert store.fetched(PACKAGE, manifest) == BODIES["model.toml"]
    fill(store, PACKAGE, BODIES)
    assert store.fetched(PACKAGE, BIG) is None  # too large to be a manifest


def test_adopting_twice_is_adopting_once(folder):
    store = store_in(folder)
    fill(store, PACKAGE, BODIES)
    assert store.adopt(PACKAGE) == store.adopt(PACKAGE)


def test_the_same_bytes_under_another_release_are_there_already(folder):
    store = store_in(folder)
    fill(store, PACKAGE, BODIES)
    store.adopt(PACKAGE)
    assert store.path_of(package_of(BODIES, release=9).ref) is not None


def test_what_came_before_a_restart_is_not_asked_for_again(folder):
    partial = store_in(folder).partial(PACKAGE, BIG)
    assert partial.holes() == ((0, BIG.size),)
    body = BODIES[BIG.path]
    partial.write(CHUNK_BYTES, body[CHUNK_BYTES : 2 * CHUNK_BYTES])
    partial.write(0, body[:1000])  # not a whole block: believed only while we run
    assert partial.holes() == ((1000, CHUNK_BYTES), (2 * CHUNK_BYTES, BIG.size))
    partial.close()
    again = store_in(folder).partial(PACKAGE, BIG)
    assert again.holes() == ((0, CHUNK_BYTES), (2 * CHUNK_BYTES, BIG.size))
    again.close()


def test_bytes_may_come_in_any_pieces(folder):
    store, chance = store_in(folder), random.Random(1)
    body = BODIES[BIG.path]
    partial = store.partial(PACKAGE, BIG)
    starts = list(range(0, BIG.size, 10_007))
    chance.shuffle(starts)
    for start in starts:
        partial.write(start, body[start : start + 10_007])
    assert partial.holes() == ()
    partial.close()
    again = store_in(folder).partial(PACKAGE, BIG)
    assert again.holes() == (), "every block was logged, by whichever piece completed it"
    again.close()


@pytest.mark.parametrize("start", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES + 9])
def test_blocks_that_a_larger_piece_fills_or_completes_are_believed(folder, start):
    body = BODIES[BIG.path]
    partial = store_in(folder).partial(PACKAGE, BIG)
    partial.write(0, body[:start])
    partial.write(start, body[start : 3 * CHUNK_BYTES + 5])
    partial.close()
    again = store_in(folder).partial(PACKAGE, BIG)
    assert again.holes() == ((3 * CHUNK_BYTES, BIG.size),)
    again.close()


def _data(folder: Path) -> Path:
    return next(p for p in (folder / "partial").rglob(BIG.hex))


@pytest.mark.parametrize("torn", ["data", "log", "log tail", "no log", "short", "hard link"])
def test_what_a_power_cut_tore_is_fetched_again_and_no_more(folder, torn):
    """[store-1.3]"""
    fill(store_in(folder), PACKAGE, BODIES)
    data = _data(folder)
    log = data.with_name(f"{data.name}.log")
    if torn == "data":
        with data.open("r+b") as file:
            file.seek(CHUNK_BYTES + 5)
            file.write(b"\0\0\0")
        holes = ((CHUNK_BYTES, 2 * CHUNK_BYTES),)
    elif torn == "log":
        raw = bytearray(log.read_bytes())
        raw[5] ^= 1
        log.write_bytes(raw)
        holes = ((0, CHUNK_BYTES),)
    elif torn == "log tail":
        log.write_bytes(log.read_bytes()[:-7])
        holes = ((3 * CHUNK_BYTES, BIG.size),)
    else:
        if torn == "no log":
            log.unlink()
        elif torn == "short":
            os.truncate(data, 10)
        else:
            os.link(data, folder / "elsewhere")
        holes = ((0, BIG.size),)
    store = store_in(folder)
    partial = store.partial(PACKAGE, BIG)
    assert partial.holes() == holes
    partial.close()
    fill(store, PACKAGE, BODIES)
    store.adopt(PACKAGE)


def test_a_wrong_digest_is_damage_that_names_the_file_and_leaves_a_clean_start(folder):
    """[store-1.4]"""
    store = store_in(folder)
    fill(store, PACKAGE, {**BODIES, BIG.path: content(BIG.size, seed=9)})
    with pytest.raises(DamagedError, match=r"model\.onnx"):
        store.adopt(PACKAGE)
    assert store.path_of(PACKAGE.ref) is None
    fill(store, PACKAGE, BODIES)
    store.adopt(PACKAGE)


def test_a_hole_is_weather(folder):
    store = store_in(folder)
    with pytest.raises(UnavailableError, match="not been fetched"):
        store.adopt(PACKAGE)
    fill(store, PACKAGE, BODIES)
    partial = store.partial(PACKAGE, BIG)
    partial.close()
    partial.remove()
    store.partial(PACKAGE, BIG).close()
    with pytest.raises(UnavailableError, match=f"{BIG.size} bytes of model.onnx"):
        store.adopt(PACKAGE)


def test_writing_outside_the_file_is_a_bug(folder):
    partial = store_in(folder).partial(PACKAGE, BIG)
    for offset, chunk in ((BIG.size - 1, b"xx"), (-1, b"x"), (BIG.size, b"x")):
        with pytest.raises(ValueError, match="outside"):
            partial.write(offset, chunk)
    partial.close()


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", ".hidden", "a/b", "", "a\0b"])
def test_names_that_could_leave_the_folder_are_refused(folder, name):
    """[store-1.7]"""
    file = FileEntry(name, 1, entry("x", b"x").sha256)
    package = Package(ModelRef("pump", 1, digest_of("pump", [file])), "1", (file,))
    with pytest.raises(RefusedError):
        store_in(folder).partial(package, file)


def test_a_digest_that_does_not_match_its_files_is_refused(folder):
    package = Package(ModelRef("pump", 1, Digest("sha256:" + "0" * 64)), "1", PACKAGE.files)
    with pytest.raises(RefusedError, match="digest"):
        store_in(folder).partial(package, BIG)


def test_a_link_in_the_way_is_not_followed(folder, tmp_path):
    """[store-1.7]"""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    store = store_in(folder)
    where = folder / "partial" / PACKAGE.ref.digest.removeprefix("sha256:")
    where.mkdir()
    (where / BIG.hex).symlink_to(victim)
    (where / f"{BIG.hex}.log").touch()
    fill(store, PACKAGE, BODIES)
    store.adopt(PACKAGE)
    assert victim.read_bytes() == b"precious"


def test_what_can_never_fit_is_a_misfit_and_what_does_not_fit_now_is_weather(folder):
    """[store-1.6]"""
    store = store_in(folder, bytes_max=PACKAGE.size + 50_000)
    huge = package_of({"a": content(PACKAGE.size + 50_001)})
    with pytest.raises(MisfitError, match=r"store\.models_mb"):
        store.partial(huge, huge.files[0])
    fill(store, PACKAGE, BODIES)
    store.adopt(PACKAGE)
    other = package_of({"a": content(60_000)})
    with pytest.raises(UnavailableError, match="retire"):
        store.partial(other, other.files[0])
    store.collect([])
    store.partial(other, other.files[0]).close()


def test_the_quota_counts_what_is_reserved(folder):
    store = store_in(folder, bytes_max=PACKAGE.size + 50_000)
    store.partial(PACKAGE, BIG).close()
    store.partial(PACKAGE, BIG).close()  # its own reservation is no obstacle
    other = package_of({"a": content(60_000)})
    with pytest.raises(UnavailableError):
        store.partial(other, other.files[0])


def test_a_full_disk_is_known_before_the_first_byte(tmp_path):
    """[store-1.5]"""
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", mount],
        check=False,
        capture_output=True,
    )
    if made.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        store = store_in(mount / "store")
        with pytest.raises(UnavailableError, match="the disk is full"):
            store.partial(PACKAGE, BIG)
        small = package_of({"a": content(1000)})
        fill(store, small, {"a": content(1000)})
        store.adopt(small)
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


def test_files_that_another_version_has_are_copied_and_not_linked(folder):
    """[store-1.8]"""
    store = store_in(folder)
    fill(store, PACKAGE, BODIES)
    first = store.adopt(PACKAGE)
    bodies = {**BODIES, "model.toml": b"name = 'pump' # 2\n"}
    package = package_of(bodies, release=2)
    partial = store.partial(package, BIG)
    assert partial.holes() == ()
    partial.close()
    fill(store, package, bodies)
    second = store.adopt(package)
    assert (second / BIG.path).stat().st_ino != (first / BIG.path).stat().st_ino
    store.collect([package.ref])
    assert store.path_of(package.ref) == second


def test_a_damaged_version_is_not_copied_from(folder):
    store = store_in(folder)
    fill(store, PACKAGE, BODIES)
    path = store.adopt(PACKAGE) / BIG.path
    path.chmod(0o644)
    path.write_bytes(content(BIG.size, seed=4))
    package = package_of({**BODIES, "model.toml": b"2"}, release=2)
    partial = store.partial(package, BIG)
    assert partial.holes() == ((0, BIG.size),)
    partial.close()


def test_the_same_bytes_under_two_names_are_fetched_once(folder):
    bodies = {"a": content(1000), "b": content(1000), "c": b"c"}
    package, store = package_of(bodies), store_in(folder)
    fill(store, package, bodies)
    path = store.adopt(package)
    assert {p.name: p.read_bytes() for p in path.iterdir()} == bodies
    assert {p.stat().st_nlink for p in path.iterdir()} == {1}


DAMAGES = (
    *("shorter", "gone", "linked", "replaced by a link", "no record"),
    *("another manifest", "distrusted"),
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_version_that_was_damaged_is_not_there_and_can_be_fetched_again(folder, damage, tmp_path):
    """[store-1.9]"""
    store = store_in(folder)
    fill(store, PACKAGE, BODIES)
    path = store.adopt(PACKAGE)
    path.chmod(0o755)
    model = path / BIG.path
    model.chmod(0o644)
    if damage == "shorter":
        os.truncate(model, 10)
    elif damage == "linked":
        os.link(model, tmp_path / "second-name")
    elif damage == "no record":
        path.with_name(f"{path.name}.json").unlink()
    elif damage == "another manifest":
        flipped = BODIES["model.toml"].swapcase()
        (path / "model.toml").chmod(0o644)
        (path / "model.toml").write_bytes(flipped)
    elif damage == "distrusted":
        model.write_bytes(content(BIG.size, seed=4))
        assert store.path_of(PACKAGE.ref) is not None, "who loads it looks at every byte"
        store.distrust(PACKAGE.ref)
    else:
        model.unlink()
        if damage == "replaced by a link":
            model.symlink_to("/etc/hostname")
    assert store.path_of(PACKAGE.ref) is None
    fill(store, PACKAGE, BODIES)
    assert {p.name: p.read_bytes() for p in store.adopt(PACKAGE).iterdir()} == BODIES


def test_collecting_keeps_what_is_named_and_gives_back_the_rest(folder):
    store = store_in(folder)
    kept, begun = package_of({"a": content(5000)}), package_of({"b": content(7000)})
    for package in (PACKAGE, kept):
        fill(store, package, {**BODIES, "a": content(5000)})
        store.adopt(package)
    store.partial(begun, begun.files[0]).close()
    before = store.used_bytes()
    freed = store.collect([kept.ref])
    assert freed >= PACKAGE.size + begun.size
    assert store.used_bytes() == before - freed
    assert store.path_of(PACKAGE.ref) is None
    assert store.path_of(kept.ref) is not None
    assert store.collect([kept.ref]) == 0


def test_a_partial_of_something_kept_is_kept(folder):
    store = store_in(folder)
    fill(store, PACKAGE, BODIES)
    store.collect([PACKAGE.ref])
    partial = store.partial(PACKAGE, BIG)
    assert partial.holes() == ()
    partial.close()


def test_a_factory_model_is_release_0_and_carries_its_weights(folder, tmp_path):
    source = zoo.external(tmp_path / "factory", name="pump")
    (source / "notes.txt").write_text("not part of it")
    store = store_in(folder)
    package = store.adopt_folder(source)
    assert (package.ref.name, package.ref.release) == ("pump", 0)
    path = store.path_of(package.ref)
    names = {"model.onnx", "model.toml", "golden.npz", "weights.bin"}
    assert {p.name for p in path.iterdir()} == names
    assert store.adopt_folder(source) == package


@pytest.mark.parametrize("missing", ["model.onnx", "model.toml", "weights.bin"])
def test_a_factory_model_that_is_not_whole_names_what_it_lacks(folder, tmp_path, missing):
    source = zoo.external(tmp_path / "factory")
    (source / missing).unlink()
    with pytest.raises(UnfitError, match=missing):
        store_in(folder).adopt_folder(source)


# ---- killed at every step ------------------------------------------------------------------------

STEPS = {"open", "os.rename", "os.chmod", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}


def killed_at(step: int, act: Callable[[], object]) -> bool:
    """Run `act` in a child that dies before its `step`-th operation on files; whether it died."""
    pid = os.fork()
    if pid == 0:
        seen = 0

        def watch(event: str, _args: object) -> None:
            nonlocal seen
            if event in STEPS:
                seen += 1
                if seen == step:
                    os._exit(9)

        try:
            sys.addaudithook(watch)
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9), "the child failed in another way"
    return code == 9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked child")
@pytest.mark.parametrize("asks", [True, False], ids=["asks for holes first", "adopts at once"])
def test_killed_at_any_step_of_adopting_nothing_is_half_there_and_nothing_is_lost(folder, asks):
    """[store-1.1] [store-1.2]"""
    step = 0
    while True:
        step += 1
        where = folder / str(step)
        fill(store_in(where), PACKAGE, BODIES)
        died = killed_at(step, lambda at=where: store_in(at).adopt(PACKAGE))
        store = store_in(where)
        if (path := store.path_of(PACKAGE.ref)) is not None:
            assert {p.name: p.read_bytes() for p in path.iterdir()} == BODIES
        elif asks:
            for file in PACKAGE.files:
                partial = store.partial(PACKAGE, file)
                assert partial.holes() == (), f"step {step}: bytes of {file.path} are lost"
                partial.close()
        path = store.adopt(PACKAGE)
        assert {p.name: p.read_bytes() for p in path.iterdir()} == BODIES
        store.collect([PACKAGE.ref])
        assert not list((where / "partial").iterdir())
        if not died:
            break
    assert step > 15, "there are more steps than that"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked child")
def test_killed_at_any_step_of_dropping_it_is_there_whole_or_gone(folder):
    step, died = 0, True
    while died:
        step += 1
        where = folder / str(step)
        fill(store_in(where), PACKAGE, BODIES)
        store_in(where).adopt(PACKAGE)
        died = killed_at(step, lambda at=where: store_in(at).collect([]))
        store = store_in(where)
        if (path := store.path_of(PACKAGE.ref)) is not None:
            assert {p.name: p.read_bytes() for p in path.iterdir()} == BODIES
        store.collect([])
        assert store.used_bytes() == 0
    assert step > 4
