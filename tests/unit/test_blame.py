"""Who is to blame for what SQLite says, and for how long a disk is borne with."""

import sqlite3

import pytest

from agent.adapters.sqlite.blame import Patience, is_damage, is_full, is_unread, is_weather


def said(name):
    """An error of that code; none at all, as some are."""
    error = sqlite3.OperationalError("as SQLite says it")
    if name:
        error.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{name}")
    return error


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("FULL", {is_full, is_weather}),
        ("IOERR", {is_weather}),
        ("IOERR_WRITE", {is_weather}),
        ("IOERR_FSYNC", {is_weather}),
        ("IOERR_READ", {is_weather, is_unread}),
        ("IOERR_SHORT_READ", {is_weather, is_unread}),
        ("IOERR_CORRUPTFS", {is_weather, is_unread}),
        ("IOERR_DATA", {is_weather, is_unread}),
        ("CANTOPEN", {is_weather}),
        ("CANTOPEN_FULLPATH", {is_weather}),
        ("READONLY", {is_weather}),
        ("BUSY", {is_weather}),
        ("CORRUPT", {is_damage}),
        ("CORRUPT_INDEX", {is_damage}),
        ("NOTADB", {is_damage}),
        ("ERROR", set()),
        ("CONSTRAINT_PRIMARYKEY", set()),
        ("", set()),
    ],
)
def test_each_code_has_its_blame(name, kinds):
    error = said(name)
    assert {kind for kind in (is_full, is_weather, is_unread, is_damage) if kind(error)} == kinds


def test_damage_is_not_borne_with_and_weather_always():
    """[durability-7.3]"""
    patience = Patience(30.0, 5.0)
    assert patience.is_over(said("CORRUPT"), 0.0)
    assert not any(patience.is_over(said("IOERR_WRITE"), float(now)) for now in range(100))


def test_what_is_not_read_for_long_is_damage_unless_it_was_read_between():
    """[durability-7.3]"""
    patience, unread = Patience(30.0, 5.0), said("IOERR_READ")
    looks = [patience.is_over(unread, 100.0 + now) for now in range(0, 36, 5)]
    assert looks == [False] * 6 + [True] * 2
    assert not patience.is_over(unread, 140.1), "a pause: it has been read meanwhile"
    assert [patience.is_over(unread, 140.1 + now) for now in (4, 8, 12)] == [False] * 3
    assert not patience.is_over(said("IOERR_WRITE"), 171.0)
