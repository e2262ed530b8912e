"""What every Ring promises; and what the one on disk does when the disk, or someone, hurts it."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.adapters.files import DiskRing
from agent.adapters.files.ring_record import Given, frames, pack, unpack
from agent.ports import Scored
from tests.world.memory import MemoryRing

MB = 2**20


def scored(seq, rows=4, features=3, *, release=1, dtype=np.float32, length=0, keys=None):
    """A batch whose every value tells its number."""
    shape = (rows, length, features) if length else (rows, features)
    values = np.arange(seq, seq + int(np.prod(shape)), dtype=dtype).reshape(shape)
    times = np.arange(seq, seq + rows, dtype=np.float64) / 7
    names = keys or [f"p{n % 3}" for n in range(rows)]
    return Scored(seq, rows, release, names, times, values)


def told(one):
    return (
        *(one.seq, one.rows, one.release, tuple(one.keys)),
        *(one.times.tobytes(), one.values.dtype.str, one.values.shape, one.values.tobytes()),
    )


def same(found, wanted):
    assert [told(one) for one in found] == [told(one) for one in wanted]


class OnDisk:
    """A ring that can be closed and opened again on the same folder."""

    def __init__(self, folder, bytes_max=MB, **more):
        self.folder, self.bytes_max = folder, bytes_max
        self.more = {"spare_bytes": 0, **more}
        self.open()

    def open(self):
        self.ring = DiskRing(self.folder, self.bytes_max, **self.more)
        return self.ring

    def again(self):
        self.close()
        return self.open()

    def close(self):
        self.ring.close()

    def files(self):
        return sorted(self.folder.iterdir())


class InMemory:
    def __init__(self, folder, bytes_max=MB):
        self.ring = MemoryRing(bytes_max)

    def again(self):
        self.ring.restart()
        return self.ring

    def close(self):
        self.ring.close()


@pytest.fixture(params=[OnDisk, InMemory], ids=["disk", "memory"])
def make(request, tmp_path):
    yield from _maker(request.param, tmp_path / "ring")


@pytest.fixture
def disk(tmp_path):
    yield from _maker(OnDisk, tmp_path / "ring")


def _maker(kind, folder):
    made = []

    def open_one(**more):
        made.append(kind(folder, **more))
        return made[-1]

    yield open_one
    for one in made:
        one.close()


def fill(ring, batches, rows=4, *, stream="s", model="m", start=0, features=3):
    wanted = [scored(start + n * rows, rows, features) for n in range(batches)]
    for one in wanted:
        ring.append(stream, model, one)
    return wanted


# ---- what every ring promises --------------------------------------------------------------------


def test_what_is_appended_is_read_oldest_first_and_as_it_was(make):
    """[durability-2.1]"""
    ring = make().ring
    wanted = [
        scored(0),
        scored(4, 1, dtype=np.float64),
        scored(5, 2, length=6, release=9),
        scored(7, 3, keys=["ü\udcff", "", "x" * 300]),
        scored(10, 2, features=0),
    ]
    for one in wanted:
        ring.append("s", "m", one)
    same(ring.read("s", "m", 0), wanted)
    assert ring.dropped("s", "m") == 0


def test_a_batch_is_read_if_one_of_its_rows_is_wanted(make):
    ring = make().ring
    wanted = fill(ring, 5)
    same(ring.read("s", "m", 8), wanted[2:])
    same(ring.read("s", "m", 11), wanted[2:])
    same(ring.read("s", "m", 20), [])


def test_streams_and_models_are_kept_apart(make):
    ring = make().ring
    wanted = {pair: fill(ring, 3, stream=pair[0], model=pair[1]) for pair in ("ab", "ba", "aa")}
    for pair, batches in wanted.items():
        same(ring.read(*pair, 0), batches)
    same(ring.read("a", "c", 0), [])


def test_what_was_appended_outlives_the_process_that_did_it(make):
    """[durability-2.1]"""
    opened = make()
    wanted = fill(opened.ring, 9)
    ring = opened.again()
    wanted += fill(ring, 2, start=36)
    same(ring.read("s", "m", 0), wanted)
    assert ring.dropped("s", "m") == 0


def test_reading_sees_what_was_appended_before_and_not_what_came_after(make):
    ring = make().ring
    wanted = fill(ring, 3)
    reading = ring.read("s", "m", 0)
    later = fill(ring, 3, start=12)
    same(ring.read("s", "m", 12), later)
    same(reading, wanted)


def test_batches_may_share_a_number(make):
    """Windows that the known good makes for itself go by the rows of whoever answers."""
    opened = make()
    wanted = [scored(10, 5), scored(10, 5), scored(11, 5)]
    for one in wanted:
        opened.ring.append("s", "m", one)
    same(opened.ring.read("s", "m", 0), wanted)
    ring = opened.again()
    wanted.append(scored(40))
    ring.append("s", "m", wanted[-1])
    same(ring.read("s", "m", 0), wanted)
    assert ring.dropped("s", "m") == 0, "numbers with gaps tell nothing of what is missing"


def test_numbers_that_begin_again_take_the_place_of_those_kept(make):
    """[durability-2.4] Scores that were not durable are made again after a restart."""
    opened = make()
    wanted = fill(opened.ring, 8)
    ring = opened.again()
    again = [scored(12, 6)]
    ring.append("s", "m", again[0])
    same(ring.read("s", "m", 0), [*wanted[:3], *again])
    ring = opened.again()
    same(ring.read("s", "m", 0), [*wanted[:3], *again])
    assert ring.dropped("s", "m") == 0


def test_numbers_that_go_on_below_what_is_kept_take_its_place_though_nothing_is_appended(make):
    """[durability-2.4]"""
    made = make()
    wanted = fill(made.ring, 5)
    fill(made.ring, 2, model="other")
    ring = made.again()
    ring.begin("s", "m", 12)
    same(ring.read("s", "m", 0), wanted[:3])
    later = fill(ring, 1, start=40)
    same(ring.read("s", "m", 0), [*wanted[:3], *later])
    assert len([*ring.read("s", "other", 0)]) == 2


def test_numbers_may_begin_again_while_it_runs(make):
    """[durability-2.4]"""
    opened = make()
    wanted = fill(opened.ring, 8)
    list(opened.ring.read("s", "m", 0))
    back = [scored(8, 2), scored(10, 2)]
    for one in back:
        opened.ring.append("s", "m", one)
    same(opened.ring.read("s", "m", 0), [*wanted[:2], *back])
    ring = opened.again()
    same(ring.read("s", "m", 0), [*wanted[:2], *back])
    assert ring.dropped("s", "m") == 0
    ring.append("s", "m", scored(0))
    same(ring.read("s", "m", 0), [scored(0)])


def test_what_is_forgotten_is_not_read_and_not_counted(make):
    ring = make().ring
    wanted = fill(ring, 6)
    ring.forget("s", "m", 10)
    ring.forget("s", "other", 10)
    same(ring.read("s", "m", 0), wanted[2:])
    ring.forget("s", "m", 10**9)
    same(ring.read("s", "m", 0), [])
    assert (ring.dropped("s", "m"), ring.bytes()) == (0, 0)


def test_what_is_appended_after_forgetting_is_not_forgotten(make):
    """Nobody can forget beforehand: the numbers may have begun again."""
    ring = make().ring
    fill(ring, 6)
    ring.forget("s", "m", 10**9)
    same(ring.read("s", "m", 0), [])
    wanted = fill(ring, 2)
    same(ring.read("s", "m", 0), wanted)
    ring.forget("s", "m", 4)
    same(ring.read("s", "m", 0), wanted[1:])


def test_past_its_bound_the_oldest_are_given_up_and_counted(make):
    """[durability-2.2]"""
    ring = make(bytes_max=128 * 1024).ring
    wanted = fill(ring, 400, rows=16, features=16)
    kept = list(ring.read("s", "m", 0))
    assert 40 < len(kept) < 400
    same(kept, wanted[-len(kept) :])
    assert ring.dropped("s", "m") == 16 * (400 - len(kept))
    assert ring.bytes() <= 128 * 1024


def test_one_model_does_not_crowd_out_another(make):
    """[durability-2.2] The share of one that has little is its own."""
    ring = make(bytes_max=256 * 1024).ring
    few = fill(ring, 20, rows=16, features=16, model="few")
    fill(ring, 1000, rows=16, features=16, model="many")
    same(ring.read("s", "few", 0), few)
    late = fill(ring, 1000, rows=16, features=16, model="late")
    sizes = {
        model: sum(one.values.nbytes for one in ring.read("s", model, 0))
        for model in ("few", "many", "late")
    }
    assert sizes["many"] == pytest.approx(sizes["late"], rel=0.35)
    same(ring.read("s", "late", late[-1].seq), late[-1:])


def test_a_batch_larger_than_all_the_room_is_counted(make):
    ring = make(bytes_max=64 * 1024).ring
    ring.append("s", "m", scored(0, 64, 1024))
    same(ring.read("s", "m", 0), [])
    assert ring.dropped("s", "m") == 64


def test_a_closed_ring_keeps_nothing_and_counts_it(make):
    opened = make()
    fill(opened.ring, 1)
    opened.close()
    opened.close()
    fill(opened.ring, 1, start=4)
    opened.ring.forget("s", "m", 4)
    assert opened.ring.dropped("s", "m") == 4


class Followed(RuleBasedStateMachine):
    """Every row appended is read back, forgotten, or counted; and what is read is as it was."""

    pairs = st.sampled_from([("s", "a"), ("s", "b"), ("t", "a")])

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp())
        self.opened = OnDisk(self.folder / "ring", 64 * 1024)
        self.given, self.lost, self.floor = {}, {}, {}

    @rule(pair=pairs, count=st.integers(1, 12), rows=st.integers(1, 40), wide=st.integers(1, 30))
    def append(self, pair, count, rows, wide):
        given = self.given.setdefault(pair, [])
        for _ in range(count):
            seq = given[-1].seq + given[-1].rows if given else 0
            given.append(scored(seq, rows, wide))
            self.opened.ring.append(*pair, given[-1])

    @rule(pair=pairs, part=st.floats(0, 1))
    def forget(self, pair, part):
        given = self.given.get(pair, [])
        below = given[int(part * (len(given) - 1))].seq if given else 5
        self.opened.ring.forget(*pair, below)
        self.floor[pair] = max(self.floor.get(pair, 0), below) if given else 0

    @rule()
    def restart(self):
        self.opened.close()
        for pair in self.given:
            if self.lost.setdefault(pair, 0) is not None:
                self.lost[pair] += self.opened.ring.dropped(*pair)
        self.opened.open()

    @rule(pair=pairs, back=st.integers(1, 20))
    def begin_again(self, pair, back):
        """The process ends before the last scores were durable."""
        given = self.given.setdefault(pair, [])
        self.restart()
        del given[-back:]
        seq = given[-1].seq + given[-1].rows if given else 0
        self.floor[pair] = min(self.floor.get(pair, 0), seq)
        self.lost[pair] = None  # what was given up may be among what is given again
        given.append(scored(seq, 3, release=2))
        self.opened.ring.append(*pair, given[-1])

    @invariant()
    def all_is_accounted_for(self):
        for pair, given in self.given.items():
            floor = self.floor.get(pair, 0)
            found = list(self.opened.ring.read(*pair, floor))
            wanted = [one for one in given if one.seq + one.rows > floor]
            same(found, wanted[len(wanted) - len(found) :])
            if self.lost.get(pair, 0) is not None:
                missing = sum(one.rows for one in wanted[: len(wanted) - len(found)])
                gone = self.lost.get(pair, 0) + self.opened.ring.dropped(*pair)
                assert gone >= missing
                if not floor:
                    assert gone == missing
        list(self.opened.ring.read("s", "nobody", 0))  # it has begun, and written all
        assert self.opened.ring.bytes() <= 64 * 1024
        on_disk = sum(path.stat().st_size for path in self.opened.folder.glob("*"))
        assert on_disk <= self.opened.ring.bytes()

    def teardown(self):
        if hasattr(self, "opened"):
            self.opened.close()
            shutil.rmtree(self.folder)


class TestFollowed(Followed.TestCase):
    settings = settings(max_examples=12, stateful_step_count=12, deadline=None)


# ---- the frames ----------------------------------------------------------------------------------


def packed(mark, *batches):
    return [pack(mark, Given(one, one.seq)) for one in batches]


def test_a_frame_torn_at_any_byte_is_no_frame_and_takes_no_other_along():
    """[durability-2.3]"""
    mark, (one, two) = b"a random", (scored(0), scored(4))
    first, second = packed(mark, one, two)
    for cut in range(len(second)):
        raw = first + second[:cut]
        same([unpack(raw, frame) for frame in frames(raw, mark, 0)], [one])


def test_a_flipped_bit_costs_the_frame_it_is_in_and_no_other():
    """[durability-2.3]"""
    mark, batches = b"a random", [scored(0), scored(4), scored(8)]
    records = packed(mark, *batches)
    raw = b"".join(records)
    for at in range(len(raw)):
        hurt = bytearray(raw)
        hurt[at] ^= 1 << (at % 8)
        left = [one for n, one in enumerate(batches) if at // len(records[0]) != n]
        found = [unpack(bytes(hurt), frame) for frame in frames(bytes(hurt), mark, 0)]
        same(found, left)


def test_a_reading_cannot_pass_for_a_frame(tmp_path):
    """Each file has a mark of its own, which no sensor can know."""
    known, opened = OnDisk(tmp_path / "known"), OnDisk(tmp_path / "ring")
    fill(known.ring, 2)
    known.close()
    raw = known.files()[0].read_bytes()
    values = np.frombuffer(raw + b"\0" * (-len(raw) % 4), np.float32).reshape(1, -1)
    wanted = [scored(0), Scored(4, 1, 1, ["a"], np.zeros(1), values)]
    for one in wanted:
        opened.ring.append("s", "m", one)
    same(opened.ring.read("s", "m", 0), wanted)
    opened.close()
    (path,) = opened.files()
    hurt = bytearray(path.read_bytes())
    assert raw in hurt
    hurt[-1] ^= 1
    path.write_bytes(hurt)
    same(opened.open().read("s", "m", 0), wanted[:1])
    opened.close()


# ---- the files -----------------------------------------------------------------------------------


def test_a_tail_torn_at_any_byte_is_cut_off_and_counted_when_the_numbers_go_on(disk):
    """[durability-2.3]"""
    opened = disk()
    wanted = fill(opened.ring, 3)
    opened.close()
    (path,) = opened.files()
    whole = path.read_bytes()
    record = len(pack(b"12345678", Given(wanted[0], 0)))
    head = len(whole) - 3 * record
    for cut in range(0, len(whole), 3):
        for other in opened.files():
            other.unlink()
        path.write_bytes(whole[:cut])
        ring = opened.open()
        left = max(0, cut - head) // record
        same(ring.read("s", "m", 0), wanted[:left])
        ring.append("s", "m", scored(12))
        same(ring.read("s", "m", 0), [*wanted[:left], scored(12)])
        assert ring.dropped("s", "m") == (12 - 4 * left if left else 0)
        opened.close()
        same(opened.open().read("s", "m", 0), [*wanted[:left], scored(12)])
        opened.close()


def test_damage_between_is_stepped_over_and_counted_at_the_next_start(disk):
    """[durability-2.3]"""
    opened = disk()
    wanted = fill(opened.ring, 5)
    opened.close()
    (path,) = opened.files()
    hurt = bytearray(path.read_bytes())
    record = len(pack(b"12345678", Given(wanted[0], 0)))
    hurt[-2 * record - 5] ^= 16
    path.write_bytes(hurt)
    ring = opened.open()
    same(ring.read("s", "m", 0), [*wanted[:2], *wanted[3:]])
    assert ring.dropped("s", "m") == 4


def test_damage_that_comes_later_is_counted_once_however_often_it_is_read(disk):
    """[durability-2.3]"""
    opened = disk()
    wanted = fill(opened.ring, 5)
    list(opened.ring.read("s", "m", 0))
    (path,) = opened.files()
    hurt = bytearray(path.read_bytes())
    hurt[-5] ^= 16
    path.write_bytes(hurt)
    for _ in range(2):
        same(opened.ring.read("s", "m", 0), wanted[:-1])
        assert opened.ring.dropped("s", "m") == 4


@pytest.mark.parametrize("hurt", ["gone", "empty", "noise", "link", "folder"])
def test_a_file_that_is_no_use_any_more_costs_what_was_in_it(disk, hurt):
    """[durability-2.3]"""
    opened = disk(bytes_max=256 * 1024)
    wanted = fill(opened.ring, 150, rows=16, features=16)
    opened.close()
    assert len(opened.files()) > 4
    path = opened.files()[2]
    path.unlink()
    match hurt:
        case "empty":
            path.touch()
        case "noise":
            path.write_bytes(os.urandom(9000))
        case "link":
            path.symlink_to(opened.files()[0])
        case "folder":
            path.mkdir()
    ring = opened.open()
    found = list(ring.read("s", "m", 0))
    lost = ring.dropped("s", "m")
    assert 0 < lost == 16 * (len(wanted) - len(found))
    assert set(map(told, found)) < set(map(told, wanted))
    ring.append("s", "m", scored(2400))
    same(ring.read("s", "m", 2400), [scored(2400)])
    assert ring.dropped("s", "m") == lost


def test_files_taken_away_while_it_runs_are_counted_and_it_goes_on(disk):
    opened = disk(rest_s=0.0)
    fill(opened.ring, 2)
    list(opened.ring.read("s", "m", 0))
    shutil.rmtree(opened.folder)
    fill(opened.ring, 1, start=8)
    same(opened.ring.read("s", "m", 0), [])
    assert opened.ring.dropped("s", "m") == 12
    wanted = fill(opened.ring, 1, start=12)
    same(opened.ring.read("s", "m", 0), wanted)


def test_a_disk_that_said_no_is_left_alone_for_a_while(disk):
    """[durability-2.5]"""
    opened = disk(rest_s=3600.0)
    fill(opened.ring, 2)
    list(opened.ring.read("s", "m", 0))
    shutil.rmtree(opened.folder)
    for n in range(3):
        fill(opened.ring, 1, start=8 + 4 * n)
        same(opened.ring.read("s", "m", 0), [])
    assert opened.ring.dropped("s", "m") == 20
    assert not opened.folder.exists()


def test_a_file_of_a_later_format_is_not_read(disk):
    opened = disk()
    fill(opened.ring, 2)
    opened.close()
    (path,) = opened.files()
    raw = bytearray(path.read_bytes())
    raw[8] += 1
    path.write_bytes(raw)
    same(opened.open().read("s", "m", 0), [])
    assert opened.files() == []


def test_a_smaller_bound_holds_from_the_start_on(disk):
    """[durability-2.2]"""
    opened = disk(bytes_max=512 * 1024)
    wanted = fill(opened.ring, 250, rows=16, features=16)
    opened.close()
    opened.bytes_max = 64 * 1024
    ring = opened.open()
    kept = list(ring.read("s", "m", 0))
    same(kept, wanted[-len(kept) :])
    assert ring.bytes() <= 64 * 1024
    assert ring.dropped("s", "m") == 16 * (250 - len(kept))


def test_only_the_agent_may_read_them(disk):
    opened = disk()
    fill(opened.ring, 1)
    opened.close()
    (path,) = opened.files()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(opened.folder.stat().st_mode) == 0o700


def test_names_stand_in_no_path(disk):
    opened = disk()
    pair = ("../../s", "CON/m\\:*")
    opened.ring.append(*pair, scored(0))
    same(opened.again().read(*pair, 0), [scored(0)])
    assert [path.suffix for path in opened.files()] == [".seg"]


def test_what_is_no_scored_batch_is_counted_and_takes_no_other_along(disk):
    ring = disk().ring
    good = [scored(0), scored(8)]
    ring.append("s", "m", good[0])
    ring.append("s", "m", Scored(4, 4, 1, ["a"] * 4, np.zeros(4), np.zeros((4, 2), np.int64)))
    ring.append("s", "m", good[1])
    same(ring.read("s", "m", 0), good)
    assert ring.dropped("s", "m") == 4


# ---- the disk ------------------------------------------------------------------------------------


def test_a_queue_that_is_full_takes_no_more_and_counts_it(disk):
    """[durability-2.5]"""
    ring = disk(queue_bytes_max=16 * 1024).ring
    wanted = fill(ring, 200, rows=16, features=16)
    kept = list(ring.read("s", "m", 0))
    assert set(map(told, kept)) <= set(map(told, wanted))
    assert ring.dropped("s", "m") == 16 * (200 - len(kept)) > 0


def test_what_is_written_leaves_the_queue(disk):
    ring = disk(queue_bytes_max=32 * 1024).ring
    for n in range(30):
        fill(ring, 5, rows=16, features=16, start=80 * n)
        list(ring.read("s", "m", 0))
    assert ring.dropped("s", "m") == 0


def test_a_full_disk_is_counted_and_nothing_is_raised(tmp_path):
    """[durability-2.5] And when there is room again, it goes on."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a small disk (tmpfs)")
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", mount],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"no small disk can be made here: {made.stderr.decode().strip()}")
    opened = OnDisk(mount / "ring", MB, rest_s=0.0)
    try:
        wanted = []
        for n in range(40):
            wanted += fill(opened.ring, 10, rows=16, features=16, start=160 * n)
            found = list(opened.ring.read("s", "m", 0))
            assert opened.ring.dropped("s", "m") == 16 * (len(wanted) - len(found))
        assert set(map(told, found)) < set(map(told, wanted))
        assert found
        for path in mount.glob("*/*"):
            assert path.stat().st_size > 0
        dropped = opened.ring.dropped("s", "m")
        fill(opened.ring, 1, start=6400)
        assert opened.ring.dropped("s", "m") >= dropped
        same(opened.ring.read("s", "m", 6400), [scored(6400)])
        kept = list(map(told, opened.ring.read("s", "m", 0)))
        assert list(map(told, opened.again().read("s", "m", 0))) == kept
    finally:
        opened.close()
        subprocess.run(["umount", mount], check=True)


def test_a_part_of_the_disk_is_left_to_others(tmp_path):
    """[durability-2.5]"""
    free = shutil.disk_usage(tmp_path).free
    opened = OnDisk(tmp_path / "ring", MB, spare_bytes=2 * free)
    fill(opened.ring, 3)
    same(opened.ring.read("s", "m", 0), [])
    assert opened.ring.dropped("s", "m") == 12
    opened.close()


def test_a_write_that_breaks_off_leaves_whole_batches_only(tmp_path):
    """[durability-2.5] A limit on the size of files cuts writes short as a full disk does."""
    code = """
        import resource, signal, sys
        from pathlib import Path
        from agent.adapters.files import DiskRing
        from tests.contract.test_ring import fill
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        ring = DiskRing(Path(sys.argv[1]), 2**20, spare_bytes=0, rest_s=0)
        for n in range(30):
            fill(ring, 1, rows=16, features=16, start=16 * n)
            found = [one.seq for one in ring.read("s", "m", 0)]
            assert ring.dropped("s", "m") == 16 * (n + 1 - len(found)), n
        ring.close()
        print(*found)
    """
    out = run(code, tmp_path / "ring")
    kept = [int(seq) for seq in out.splitlines()[-1].split()]
    assert 10 < len(kept) < 30
    sizes = [path.stat().st_size for path in sorted((tmp_path / "ring").iterdir())]
    opened = OnDisk(tmp_path / "ring")
    same(opened.ring.read("s", "m", 0), [scored(seq, 16, 16) for seq in kept])
    assert [path.stat().st_size for path in opened.files()] == sizes
    opened.close()


def test_appending_does_not_wait_for_a_disk_that_hangs(disk):
    """[durability-2.5] A lock that the writer needs stands for the disk."""
    opened = disk(queue_bytes_max=64 * 1024)
    with opened.ring._shelves._lock:
        fill(opened.ring, 1000, rows=16, features=16)
        opened.ring.forget("s", "m", 0)
        assert opened.ring.dropped("s", "m") > 0
    kept = list(opened.ring.read("s", "m", 0))
    assert opened.ring.dropped("s", "m") == 16 * (1000 - len(kept))


WRITER = """
    import sys
    from pathlib import Path
    from agent.adapters.files import DiskRing
    from tests.contract.test_ring import scored
    ring, n = DiskRing(Path(sys.argv[1]), 2**20, spare_bytes=0), int(sys.argv[2])
    while True:
        for n in range(n, n + 20):
            ring.append("s", "m", scored(n * 16, 16, 16))
        n += 1
        next(ring.read("s", "m", n * 16 - 16))  # all before it is on its way to the disk
        print(n, flush=True)
"""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.soak)])
def test_a_process_killed_while_it_writes_loses_only_what_was_on_its_way(tmp_path, kills):
    """[durability-2.3]"""
    at = 0
    for turn in range(kills):
        writer = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), tmp_path / "ring", str(at)],
            stdout=subprocess.PIPE,
            text=True,
        )
        with writer:
            told_last = 0
            for _ in range(3 + turn % 5):
                told_last = int(writer.stdout.readline())
            threading.Event().wait(0.003 * (turn % 7))
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read().split()
        told_last = max([told_last, *map(int, rest)])
        opened = OnDisk(tmp_path / "ring")
        found = list(opened.ring.read("s", "m", 0))
        opened.close()
        first, last = found[0].seq // 16, found[-1].seq // 16
        assert last + 1 >= told_last > at
        same(found, [scored(n * 16, 16, 16) for n in range(first, last + 1)])
        at = told_last  # as from the database: what came after is numbered again


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_holds_no_descriptor_between_writes(disk):
    listing = Path("/proc/self/fd")
    if not listing.is_dir():
        pytest.skip("nothing here tells which descriptors are open")
    before = len(list(listing.iterdir()))
    ring = disk().ring
    for model in range(30):
        fill(ring, 3, model=f"m{model}")
    list(ring.read("s", "m0", 0))
    assert len(list(listing.iterdir())) == before
