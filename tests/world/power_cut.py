"""Cuts the power of a disk under the outbox, the vault and the store, again and again.

    python -m tests.world.power_cut --cuts 25 --seed 1 [--mistake NAME] [--stop]

Each cut: a forked child works and says what is durable; at a random instant the power goes; after
power-up all that was said must be there, and nothing half.  `--mistake` leaves out one sync in the
child: a campaign that stays green with it proves nothing.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from agent.adapters.files import FileStore, FileVault
from agent.adapters.sqlite import opening
from agent.adapters.sqlite.database import Database
from agent.adapters.sqlite.journal import SqliteJournal
from agent.adapters.sqlite.outbox import SqliteOutbox
from agent.adapters.sqlite.packing import Packing
from agent.core import scores
from agent.core.names import Digest, ModelRef
from agent.core.packages import FileEntry, Package, digest_of
from agent.core.rollout import Rollout
from agent.ports import Entry, Record
from tests.world.loop_disk import LoopDisk

PAUSE_S_MAX = 0.03  # without it the sync of the next step hides what this one left out
MODEL_BYTES = 96 * 1024
PACK_EVERY_BYTES = 1000  # so that packing goes on all the time
WORKS = ("outbox", "vault", "store")

# What a careless programmer leaves out: (function that syncs, who called it; "" is anybody).
MISTAKES = {
    "outbox: FULL lowered to NORMAL": ("outbox", "NORMAL"),
    "vault: no fsync of the file": ("vault", "write_atomic"),
    "vault: no fsync of its folder": ("vault", "sync_folder"),
    "store: no fsync of model files": ("store", "sync_file"),
    "store: no fsync of any folder": ("store", "sync_folder"),
}


def package(number: int) -> tuple[Package, dict[str, bytes]]:
    """A package that is like no other."""
    body = random.Random(number).randbytes(MODEL_BYTES)
    bodies = {"model.onnx": body, "model.toml": b"name = 'm%d'\n" % number}
    files = tuple(
        FileEntry(name, len(b), Digest(f"sha256:{hashlib.sha256(b).hexdigest()}"))
        for name, b in sorted(bodies.items())
    )
    return Package(ModelRef("m", number, digest_of("m", files)), str(number), files), bodies


# ---- the child ----------------------------------------------------------------------------------


def make(mistake: str) -> None:
    """Make `mistake` in this process."""
    _, where = MISTAKES[mistake]
    if where == "NORMAL":
        opening.PRAGMAS = tuple(
            p.replace("synchronous=FULL", "synchronous=NORMAL") for p in opening.PRAGMAS
        )
        return
    real = os.fsync

    def fsync(fd: int) -> None:
        if sys._getframe(1).f_code.co_name != where:
            real(fd)

    os.fsync = fsync


def work(name: str, disk: Path, first: int, told: int, dice: random.Random) -> None:
    """Until killed; writes each number to `told` when it is durable."""
    step = {"outbox": _boxes, "vault": _vaults, "store": _stores}[name](disk)
    for number in range(first, first + 100_000):
        step(number)
        os.write(told, number.to_bytes(8, "big"))
        time.sleep(dice.uniform(0, PAUSE_S_MAX))


def _boxes(disk: Path):
    database = Database(disk / "agent.db")
    packing = Packing(scores.join, PACK_EVERY_BYTES)
    box, journal = SqliteOutbox(database, 2**24, 0, packing=packing), SqliteJournal(database)

    def step(number: int) -> None:
        ticket = box.add(Entry([_score(number)], _books(number)))
        while box.committed() < ticket:
            time.sleep(0.0005)
        journal.save("m", Rollout(restarts=number))

    return step


def _score(number: int) -> Record:
    body = scores.encode(
        model="m",
        release=1,
        stream="s",
        epoch=1,
        seq=number,
        keys=[f"p{number}"],
        times=np.array([float(number)]),
        columns=scores.ScoreColumns(np.array([number / 7])),
    )
    return Record("t", body, 1, 1, "s", "m", number)


def _books(number: int):
    return {("s", "m"): b"%d" % number}


def _vaults(disk: Path):
    vault = FileVault(disk / "vault")
    return lambda number: vault.keep("trust", b"%d " % number * 500)


def _stores(disk: Path):
    store = FileStore(disk, 2**30)

    def step(number: int) -> None:
        one, bodies = package(number)
        for file in one.files:
            partial = store.partial(one, file)
            for start, end in partial.holes():
                partial.write(start, bodies[file.path][start:end])
            partial.close()
        store.adopt(one)

    return step


# ---- after power-up ------------------------------------------------------------------------------


def look(name: str, disk: Path, told: int) -> list[str]:
    """What is wrong, in sentences."""
    return {"outbox": _look_boxes, "vault": _look_vaults, "store": _look_stores}[name](disk, told)


def _look_boxes(disk: Path, told: int) -> list[str]:
    wrong = []
    database = Database(disk / "agent.db")
    box = SqliteOutbox(database, 2**24)
    kept = _kept(database)
    if (disk / "agent.db.bad").exists():
        wrong.append("the database was damaged")
    if kept != list(range(1, len(kept) + 1)):
        wrong.append("the records have holes")
    if told > len(kept):
        wrong.append(f"{told - len(kept)} accepted records are lost")
    account = int(box.accounts().get(("s", "m"), b"0"))
    if account != len(kept):
        wrong.append(f"the account says {account} where {len(kept)} records are")
    if (journalled := SqliteJournal(database).load("m").restarts) < told:
        wrong.append(f"the journal went back to {journalled} from {told}")
    database.close()
    box.close()
    return wrong


def _kept(database: Database) -> list[int]:
    """The numbers of all rows in the outbox, as their keys tell them; -1 where a record errs."""
    query = "SELECT first_seq, rows, payload FROM outbox ORDER BY id"
    kept = []
    for first, rows, payload in database.call(lambda c: c.execute(query).fetchall()):
        keys = json.loads(payload)["key"]
        right = len(keys) == rows and keys[0] == f"p{first}"
        kept += [int(key[1:]) if right else -1 for key in keys]
    return kept


def _look_vaults(disk: Path, told: int) -> list[str]:
    body = FileVault(disk / "vault").recall("trust") or b""
    parts = set(body.split())
    if len(parts) > 1 or (body and len(body.split()) != 500):
        return ["the vault holds half of something"]
    floor = int(next(iter(parts), b"0"))
    return [f"the floor fell from {told} to {floor}"] if floor < told else []


def _look_stores(disk: Path, told: int) -> list[str]:
    wrong, store = [], FileStore(disk, 2**30)
    for number in range(1, told + 3):
        one, bodies = package(number)
        path = store.path_of(one.ref)
        if path is None and number <= told:
            wrong.append(f"version {number} was installed and is not there")
        if path is not None and any((path / n).read_bytes() != b for n, b in bodies.items()):
            wrong.append(f"version {number} is there with wrong bytes")
    step = _stores(disk)
    step(told + 1)  # and it goes on
    return wrong


# ---- the campaign --------------------------------------------------------------------------------


def campaign(
    cuts: int, seed: int, mistake: str = "", *, stop: bool = False
) -> tuple[int, list[str]]:
    """How many cuts there were, and what was wrong after them."""
    dice, wrong = random.Random(seed), []
    with tempfile.TemporaryDirectory(prefix="power-") as folder:
        disks: dict[str, LoopDisk] = {}
        last = dict.fromkeys(WORKS, 0)
        try:
            for cut in range(cuts):
                name = MISTAKES[mistake][0] if mistake else WORKS[cut % len(WORKS)]
                if name not in disks:
                    disks[name] = LoopDisk(Path(folder, name)).__enter__()
                found, last[name] = _one(disks[name], name, last[name], mistake, dice)
                wrong += [f"cut {cut + 1}, {name}: {why}" for why in found]
                if name == "store" and (last[name] > 150 or found):
                    disks.pop(name).__exit__()
                    _clear(Path(folder, name))
                    last[name] = 0
                if wrong and stop:
                    return cut + 1, wrong
        finally:
            for disk in disks.values():
                disk.__exit__()
    return cuts, wrong


def _clear(folder: Path) -> None:
    (folder / "disk").rmdir()
    (folder / "disk.img").unlink()
    folder.rmdir()


def _one(disk: LoopDisk, name: str, last: int, mistake: str, dice: random.Random):
    hear, say = os.pipe()
    seed = dice.random()
    child = os.fork()
    if child == 0:
        try:
            os.close(hear)
            if mistake:
                make(mistake)
            work(name, disk.path, last + 1, say, random.Random(seed))
        finally:
            os._exit(1)
    os.close(say)
    time.sleep(dice.uniform(0.05, 0.35))
    os.set_blocking(hear, False)
    try:
        said = os.read(hear, 1 << 16)  # what was said before the cut, no more
    except BlockingIOError:
        said = b""
    disk.cut()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(hear)
    disk.power_up()
    told = int.from_bytes(said[-8:], "big") if said else last
    try:
        wrong = look(name, disk.path, told)
    except Exception as error:
        return [f"it does not start again: {error!r}"], told
    return wrong, _highest(name, disk.path, told)


def _highest(name: str, disk: Path, told: int) -> int:
    """From where the next child goes on: one step may be durable that nobody said so of.

    What is durable of it by half is completed: if the next child is cut before it says anything,
    this is what it is held to.
    """
    if name == "store":
        return told + 1
    if name == "vault":
        return told
    database = Database(disk / "agent.db")
    count = len(_kept(database))
    SqliteJournal(database).save("m", Rollout(restarts=count))
    database.close()
    return count


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cuts", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mistake", default="", choices=["", *MISTAKES])
    parser.add_argument("--stop", action="store_true", help="at the first thing that is wrong")
    told = parser.parse_args()
    began = time.monotonic()
    cuts, wrong = campaign(told.cuts, told.seed, told.mistake, stop=told.stop)
    for why in wrong:
        print(why)
    print(f"{cuts} cuts, {len(wrong)} wrong, {(time.monotonic() - began) / cuts:.2f} s each")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
