"""What every Journal promises."""

from dataclasses import replace

import pytest

from agent.adapters.sqlite.database import Database
from agent.adapters.sqlite.journal import SqliteJournal
from agent.core.errors import UnavailableError
from agent.core.rollout import Blame, Desired, Phase, Rollout
from tests.unit.test_rollout import HOME, V1, V2


@pytest.fixture
def database(tmp_path):
    database = Database(tmp_path / "agent.db")
    yield database
    database.close()


def test_a_model_never_seen_is_at_rest(database):
    assert SqliteJournal(database).load("m") == Rollout()


@pytest.mark.parametrize(
    "rollout",
    [
        HOME,
        replace(HOME, phase=Phase.PROBATION, candidate=V2, waiting=Desired(V1), restarts=2),
        replace(HOME, waiting=Desired(None), quarantined=(V2.digest,), blame=Blame.VERDICT),
    ],
)
def test_what_was_saved_is_loaded_whole_after_a_restart(tmp_path, rollout):
    first = Database(tmp_path / "agent.db")
    SqliteJournal(first).save("m", rollout)
    SqliteJournal(first).save_document("desired", b"{}")
    first.close()
    second = Database(tmp_path / "agent.db")
    journal = SqliteJournal(second)
    assert journal.load("m") == rollout
    assert journal.models() == ["m"]
    assert journal.load_document("desired") == b"{}"
    assert journal.load_document("other") is None
    second.close()


def test_a_closed_journal_says_so(database):
    journal = SqliteJournal(database)
    database.close()
    with pytest.raises(UnavailableError):
        journal.save("m", HOME)
