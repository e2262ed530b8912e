"""A disk with no room left: scoring goes on, what must go is told, and the sum is exact."""

import asyncio
import subprocess
import time

import pytest

from agent.adapters.sqlite.database import Database
from agent.adapters.sqlite.journal import SqliteJournal
from agent.adapters.sqlite.outbox import SqliteOutbox
from agent.core.rollout import Rollout
from agent.ports import Entry, Record
from tests.world.loop_disk import LoopDisk, needs_loop_disk

ENTRIES = 5000
ROWS = 4
OUTBOX_BYTES = 64 * 2**20  # more than the disk will ever have


class Small:
    """A disk of 8 MiB, as ext4 and in memory."""

    def __init__(self, kind, folder):
        self.path = folder / kind / "disk"
        if kind == "ext4":
            self._disk = LoopDisk(folder / kind, 8)
            self._disk.mount()
        else:
            self._disk = None
            self.path.mkdir(parents=True)
            command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(self.path)]
            subprocess.run(command, check=True)

    def close(self):
        subprocess.run(["umount", "-l", str(self.path)], check=True)


@pytest.fixture(params=["ext4", "tmpfs"])
def disk(request, tmp_path):
    needs_loop_disk(tmp_path)
    small = Small(request.param, tmp_path)
    yield small.path
    small.close()


def produce(box, entries, first=0, size=2000):
    """As the lane does it: add, and go on whatever the disk says; returns the longest wait."""
    longest = 0.0
    for n in range(first, first + entries):
        began = time.perf_counter()
        record = Record("t", bytes(size), ROWS, 1, "s", "m", n * ROWS)
        ticket = box.add(Entry([record], {("s", "m"): b"%d" % n}, {"s": b"%d" % n}))
        while ticket - box.committed() > 64 and time.perf_counter() - began < 3:
            time.sleep(0.0005)
        assert time.perf_counter() - began < 3, f"stuck at {n}: {box.depth()}"
        longest = max(longest, time.perf_counter() - began)
    until = time.monotonic() + 20
    while box.committed() < ticket and time.monotonic() < until:
        time.sleep(0.001)
    assert box.committed() == ticket, "not everything was taken"
    return longest


def gaps_of(box, database):
    told = []
    while some := box.gaps():
        told += some
        box.told(some)
        database.call(lambda _: None)
    return told


def drained(box, database):
    async def all_of_it():
        rows = 0
        while box.depth()["records"]:
            batch = await asyncio.wait_for(box.batch(64), 10)
            box.accept([i for i, _ in batch])
            rows += sum(record.rows for _, record in batch)
            await asyncio.to_thread(database.call, lambda _: None)
        return rows

    return asyncio.run(all_of_it())


def opened(folder):
    database = Database(folder / "agent.db")
    return database, SqliteOutbox(database, OUTBOX_BYTES)


def test_on_a_full_disk_everything_is_taken_and_what_had_to_go_is_told_exactly(disk):
    """[durability-4.1] [durability-4.2]"""
    database, box = opened(disk)
    try:
        began = time.perf_counter()
        longest = produce(box, ENTRIES)
        rate = ENTRIES * ROWS / (time.perf_counter() - began)
        database.call(lambda _: None)
        assert box.marks() == {"s": b"%d" % (ENTRIES - 1)}
        kept_before = box.depth()
    finally:
        database.close()
        box.close()
    database, box = opened(disk)
    try:
        depth = box.depth()
        assert depth["records"] == kept_before["records"], "after a restart it is as it was"
        gaps = gaps_of(box, database)
        sent = drained(box, database)
        lost = sum(gap.rows for gap in gaps)
        print(
            f"{disk.name}: {ENTRIES * ROWS} rows on 8 MiB: {sent} kept, {lost} in {len(gaps)} gaps,"
            f" {rate:.0f} rows/s, longest wait {longest * 1000:.0f} ms"
        )
        assert lost == depth["gaps"] > 0
        assert sent + lost == ENTRIES * ROWS
        assert database.call(_check) == "ok"
    finally:
        database.close()
        box.close()


def test_others_fill_the_disk_and_scoring_goes_on_and_so_does_the_journal(disk):
    """[durability-4.2]"""
    database, box = opened(disk)
    try:
        produce(box, 200)
        with (disk / "log-of-somebody-else").open("wb") as file:
            try:
                while True:
                    file.write(bytes(65536))
                    file.flush()
            except OSError:
                pass
        SqliteJournal(database).save("m", Rollout(restarts=7))
        longest = produce(box, 1000, first=200)
        SqliteJournal(database).save("m", Rollout(restarts=8))
        (disk / "log-of-somebody-else").unlink()
        produce(box, 10, first=1200)
        lost = sum(gap.rows for gap in gaps_of(box, database))
        sent = drained(box, database)
        print(
            f"filled by others: {sent} kept, {lost} told as gaps, longest {longest * 1000:.0f} ms"
        )
        assert sent + lost == 1210 * ROWS
        assert SqliteJournal(database).load("m").restarts == 8
    finally:
        database.close()
        box.close()


def _check(connection):
    return connection.execute("PRAGMA integrity_check").fetchone()[0]
