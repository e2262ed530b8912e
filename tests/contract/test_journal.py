"""What every Journal promises."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from agent.adapters.files import FileVault
from agent.adapters.sqlite.database import Database
from agent.adapters.sqlite.journal import SqliteJournal
from agent.core.errors import UnavailableError
from agent.core.rollout import Blame, Desired, Phase, Rollout
from agent.runtime.remembering import Remembering
from tests.unit.test_rollout import HOME, V1, V2
from tests.world.memory import MemoryJournal


class Kept:
    """A journal on disk that can be closed, and opened again."""

    def __init__(self, folder):
        self.folder = folder
        self.open()

    def open(self):
        self.database = Database(self.folder / "agent.db")
        return SqliteJournal(self.database)

    def close(self):
        self.database.close()


class Remembered:
    """The journal of the simulated world, which a restart does not touch."""

    def __init__(self, folder):
        self.journal = MemoryJournal()

    def open(self):
        self.journal.closed = False
        return self.journal

    def close(self):
        self.journal.closed = True


@pytest.fixture(params=[Kept, Remembered], ids=["sqlite", "memory"])
def home(request, tmp_path):
    """Where a journal is kept; open it again after closing it."""
    home = request.param(tmp_path)
    home.close()
    yield home
    home.close()


def test_a_model_never_seen_is_at_rest(home):
    assert home.open().load("m") == Rollout()


@pytest.mark.parametrize(
    "rollout",
    [
        HOME,
        replace(HOME, phase=Phase.PROBATION, candidate=V2, waiting=Desired(V1), restarts=2),
        replace(HOME, waiting=Desired(None), quarantined=(V2.digest,), blame=Blame.VERDICT),
    ],
)
def test_what_was_saved_is_loaded_whole_after_a_restart(home, rollout):
    journal = home.open()
    journal.save("m", rollout)
    journal.save_document("desired", b"{}")
    home.close()
    journal = home.open()
    assert journal.load("m") == rollout
    assert journal.models() == ["m"]
    assert journal.load_document("desired") == b"{}"
    assert journal.load_document("other") is None


def test_the_last_save_is_what_counts(home):
    journal = home.open()
    journal.save("m", HOME)
    journal.save("m", replace(HOME, phase=Phase.FETCHING, candidate=V2))
    journal.save("other", HOME)
    assert journal.load("m").candidate == V2
    assert sorted(journal.models()) == ["m", "other"]


def test_documents_are_listed_and_dropped(home):
    journal = home.open()
    for name in ("package:m:1", "package:m:2", "desired"):
        journal.save_document(name, b"{}")
    journal.drop_documents(["package:m:1", "never there"])
    home.close()
    assert sorted(home.open().document_names()) == ["desired", "package:m:2"]


def test_a_lost_journal_is_filled_from_its_second_copy_and_a_damaged_copy_is_none(tmp_path):
    """[durability-1.5]"""
    vault = FileVault(tmp_path)
    first = Remembering(MemoryJournal(), vault)
    first.save("m", HOME)
    first.save_document("stream:m", b"s")
    first.save_document("desired", b"{}")
    first.save_document("package:m:1", b"[]")
    first.drop_documents(["package:m:1"])
    again = Remembering(MemoryJournal(), vault)
    assert (again.models(), again.load("m")) == (["m"], HOME)
    assert again.load_document("stream:m") == b"s"
    assert sorted(again.document_names()) == ["desired", "stream:m"]
    (tmp_path / "control").write_bytes((tmp_path / "control").read_bytes()[:-3] + b"xxx")
    assert Remembering(MemoryJournal(), vault).models() == []


def test_a_candidate_that_nobody_has_heard_is_not_in_the_second_copy(tmp_path):
    """[durability-1.5] What is desired begins it anew; each copy costs two syncs."""
    journal = Remembering(MemoryJournal(), FileVault(tmp_path))
    journal.save("m", HOME)
    before = (tmp_path / "control").stat()
    journal.save_document("package:m:2", b"[2]")
    for phase in (Phase.FETCHING, Phase.VERIFYING, Phase.PREFLIGHT, Phase.SHADOW):
        journal.save("m", replace(HOME, phase=phase, candidate=V2, restarts=1))
        assert journal.load("m").phase is phase
    journal.save_document("package:m:3", b"[3]")
    journal.drop_documents(["package:m:3"])
    after = (tmp_path / "control").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert Remembering(MemoryJournal(), FileVault(tmp_path)).load("m") == HOME
    for rollout in (
        replace(HOME, phase=Phase.CANARY, candidate=V2),
        replace(HOME, phase=Phase.PROBATION, active=V2, candidate=V2, restarts=2),
        replace(HOME, quarantined=(V2.digest,), reason="it was bad"),
    ):
        journal.save("m", rollout)
        copy = Remembering(MemoryJournal(), FileVault(tmp_path))
        assert copy.load("m") == rollout
        assert copy.document_names() == ["package:m:2"]


def test_what_a_disk_has_changed_in_a_row_is_taken_from_the_second_copy(tmp_path):
    """[durability-1.9] SQLite's own check sees nothing of it."""

    def opened():
        database = Database(tmp_path / "agent.db")
        return database, Remembering(SqliteJournal(database), FileVault(tmp_path / "vault"))

    database, journal = opened()
    journal.save_document("package:m:1", b"[1]")
    journal.save("m", HOME)
    journal.save_document("desired", b"{}")
    journal.save_document("receipts:m", b"[2]")
    database.close()
    with closing(sqlite3.connect(tmp_path / "agent.db")) as connection, connection:
        connection.execute("UPDATE rollout SET body=replace(body, '1', '3')")
        connection.execute("UPDATE document SET body=x'ff' WHERE name<>'desired'")
        connection.execute("UPDATE document SET name='desirec' WHERE name='desired'")
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database, journal = opened()
    try:
        assert journal.load("m") == HOME
        assert sorted(journal.document_names()) == ["desired", "package:m:1"]
        assert journal.load_document("desired") == b"{}"
        assert journal.load_document("package:m:1") == b"[1]"
    finally:
        database.close()


def test_a_closed_journal_says_so(home):
    journal = home.open()
    home.close()
    with pytest.raises(UnavailableError):
        journal.save("m", HOME)
    with pytest.raises(UnavailableError):
        journal.save_document("d", b"")
