"""Wishes amended and followed, as pure documents; the broker's part is in integration."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import RefusedError
from agent.core.names import ID_PATTERN
from agent.core.wire import DesiredModel, parse_desired
from agent.repository.fleet import (
    Device,
    Follower,
    Newer,
    amend,
    bars_from,
    fleet_of,
    value_of,
)
from agent.repository.wishes import replacement
from tests.world.stand_in import model

NAME = "m"
ids = st.from_regex(ID_PATTERN, fullmatch=True)
models = st.dictionaries(ids, st.fixed_dictionaries({"release": st.integers(0, 99)}), max_size=4)


@given(st.integers(0, 999), models, ids, st.integers(0, 99), st.integers(0, 1999))
def test_amending_changes_one_wish_and_raises_the_revision(revision, before, name, release, above):
    document = {"schema": 1, "revision": revision, "models": before, "ours": [1]}
    wish = DesiredModel(release)
    number, body = amend(json.dumps(document).encode(), name, wish, metadata={}, above=above)
    after = parse_desired(body)
    assert after.revision == number > max(revision, above)
    assert after.models[name].release == release
    assert {n: m.release for n, m in after.models.items() if n != name} == {
        n: m["release"] for n, m in before.items() if n != name
    }
    assert json.loads(body)["ours"] == [1]


def test_metadata_of_an_earlier_wish_does_not_stay_behind():
    _, first = amend(None, NAME, DesiredModel(1), metadata={"timestamp.json": b"{}"})
    assert parse_desired(first).metadata == {"timestamp.json": b"{}"}
    _, second = amend(first, NAME, DesiredModel(2), metadata={})
    assert parse_desired(second).metadata is None


def test_bars_are_read_as_an_operator_writes_them():
    told = bars_from(["shadow.windows=50", "shadow.max=2m", "probation.latency_ratio=1.5"])
    assert told == {
        "shadow": {"windows": 50, "max": "2m"},
        "probation": {"latency_ratio": 1.5},
    }
    for wrong in ("shadow", "shadow=1", "shadow.windows", ".windows=1", "shadow.=1", "shadow.x="):
        with pytest.raises(RefusedError, match="is no bar"):
            bars_from([wrong])


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("true", True), ("[1]", [1]), ("x", "x"), ("NaN", "NaN"), ('1,"v":2', '1,"v":2')],
)
def test_a_value_is_json_or_the_text_it_is(text, value):
    assert value_of(text) == value


def test_only_reports_and_states_of_devices_make_a_fleet():
    good = b'{"schema":1,"revision":3}'
    fleet = fleet_of(
        {
            "edge/a/reported": good,
            "edge/a/status": b'{"online":false}',
            "edge/a/scores/reported": good,
            "edge/group/g/desired": good,
            "elsewhere/b/reported": good,
            "edge/c/reported": b"{",
        },
        "edge",
    )
    assert sorted(fleet) == ["a", "c"]
    assert fleet["a"].online is False
    assert fleet["a"].revision == 3
    assert fleet["c"].online is None
    assert "not JSON" in fleet["c"].trouble


class Report:
    """Reports of one device, one after the other, a second apart."""

    def __init__(self, release=7, revision=5, before=None):
        self.follower = Follower(NAME, release, revision, before or {})
        self.now = 100.0

    def see(self, *, after_s=1.0, revision=5, refusal=(200, ""), **members):
        self.now += after_s
        report = {"revision": revision, "code": refusal[0], "why": refusal[1]}
        if members:
            report["models"] = {NAME: model(**members)}
        return self.follower.see(Device("d", report=report), self.now)


def test_only_a_wish_that_was_seen_can_be_committed():
    said = Report()
    assert said.see(revision=4, active=7, known_good=7).committed is None
    assert said.see(revision=5, active=7, known_good=7).committed is True


def test_probation_is_no_end():
    said = Report()
    there = said.see(active=7, candidate=7, phase="probation", progress=0.4, state="Transitioning")
    assert (there.committed, there.phase, there.share) == (None, "probation", 0.4)
    assert said.see(active=7, candidate=7, phase="probation", state="Healthy").committed is None
    assert said.see(active=7, known_good=7).committed is True


def test_scoring_on_a_fallback_is_committed_once_it_is_the_known_good():
    said = Report()
    assert said.see(active=7, known_good=2, state="Unhealthy").committed is None
    assert said.see(active=7, known_good=7, state="Unhealthy").committed is True


def test_release_7_is_not_release_71():
    said = Report(before={"models": {NAME: model(why="")}})
    assert said.see(active=2, why="m:71 failed shadow: x").committed is None
    assert said.see(active=2, why="m:7 failed shadow: x").committed is False


def test_what_was_said_before_the_wish_is_no_answer_until_it_stays():
    old = {"code": 400, "why": "old", "models": {NAME: model(why="m:7 failed", state="Failed")}}
    said = Report(before=old)
    assert said.see(revision=4, refusal=(400, "old")).committed is None
    assert said.see(active=2, why="m:7 failed", state="Failed").committed is None
    assert said.see(after_s=6.0, active=2, why="m:7 failed", state="Failed").committed is False


def test_the_same_refusal_twice_is_an_answer_in_the_end():
    said = Report(before={"code": 400, "why": "no"})
    assert said.see(revision=4, refusal=(400, "no")).committed is None
    last = said.see(after_s=6.0, revision=4, refusal=(400, "no"))
    assert (last.committed, last.why) == (False, "no")


def test_a_device_that_sees_the_wish_and_does_nothing_is_not_waited_for_for_ever():
    said = Report()
    assert said.see(active=2).committed is None
    assert said.see(after_s=4.0, active=2).committed is None
    assert said.see(after_s=2.0, active=2).committed is False


NEWER = Newer(6, "revision 6 of d wishes for m:8 instead")


def test_a_newer_wish_ends_the_one_that_is_followed_once_the_device_has_turned_to_it():
    """[control-5.5]"""
    said = Report()
    said.see(active=1, candidate=7, phase="shadow", state="Transitioning")
    said.follower.replaced(NEWER)
    there = said.see(active=1, candidate=7, phase="shadow", state="Transitioning")
    assert (there.committed, there.phase, there.instead) == (None, "shadow", NEWER.words)
    told = said.see(revision=6, active=1, candidate=8, phase="fetching", state="Transitioning")
    assert (told.committed, told.phase, told.why) == (False, "replaced", NEWER.words)


def test_a_wish_that_a_newer_one_came_after_too_late_may_still_be_committed():
    """[control-5.5] From promotion on the newer one waits."""
    said = Report()
    said.follower.replaced(NEWER)
    late = {"revision": 6, "active": 7, "candidate": 7, "state": "Transitioning"}
    assert said.see(**late, phase="probation").committed is None
    next_one = {"revision": 6, "active": 7, "candidate": 8, "state": "Transitioning"}
    assert said.see(**next_one, known_good=7, phase="fetching").committed is True


def test_a_version_that_fails_while_a_newer_wish_waits_is_told_with_its_own_end():
    """[control-5.5]"""
    said = Report()
    said.see(active=7, candidate=7, phase="probation", state="Transitioning")
    said.follower.replaced(NEWER)
    why = f"{NAME}:7 failed probation: 3 bad scores"
    told = said.see(revision=6, active=1, known_good=1, why=why)
    assert (told.committed, told.phase, told.why) == (False, "refused", why)


def test_a_version_that_is_back_as_the_known_good_is_not_taken_for_committed():
    said = Report()
    busy = {"active": 8, "candidate": 8, "known_good": 7, "state": "Transitioning"}
    assert said.see(**busy, phase="probation").committed is None


@pytest.mark.parametrize(
    ("receipt", "ending"),
    [
        ({"kind": "rollback", "from": {"release": 7}, "number": 5}, "rolled back"),
        ({"kind": "rollback", "from": {"release": 7}, "number": 4}, "refused"),  # an old one
        ({"kind": "rollback", "from": {"release": 6}, "number": 5}, "refused"),
        ({"kind": "swap", "from": {"release": 7}, "number": 5}, "refused"),
        ({}, "refused"),
    ],
)
def test_it_is_told_whether_a_version_was_refused_or_rolled_back(receipt, ending):
    """[control-5.6]"""
    said = Report(before={"models": {NAME: {"receipt": {"number": 4}}}})
    why = f"{NAME}:7 failed: no good"
    assert said.see(active=6, known_good=6, why=why, receipt=receipt).phase == ending
    assert said.see(why=why, receipt=receipt, state="Failed").phase == "failed"


def wish(revision, **models):
    models = {name: {"release": release} for name, release in models.items()}
    return json.dumps({"schema": 1, "revision": revision, "models": models}).encode()


@pytest.mark.parametrize(
    ("raw", "above", "words"),
    [
        (wish(6, m=8), 5, "revision 6 of d wishes for m:8 instead"),
        (wish(6, other=1), 5, "revision 6 of d wishes for no m instead"),
        (wish(6, m=7), 5, ""),
        (wish(5, m=8), 5, ""),  # our own, as it came back
        (wish(1, m=8), None, "revision 1 of d wishes for m:8 instead"),
        (wish(1, other=1), None, ""),  # of the device, over a group's: it says nothing of m
        (b"", 5, ""),
        (b"{", None, ""),
    ],
)
def test_a_document_takes_the_place_of_a_wish_if_it_is_newer_and_wishes_otherwise(
    raw, above, words
):
    """[control-5.5]"""
    newer = replacement(raw, NAME, 7, above=above, of="d")
    assert (newer.words if newer else "") == words


def test_a_member_of_a_group_is_judged_without_its_revision():
    said = Report(revision=None)
    assert said.see(revision=0, active=2).committed is None
    assert said.see(after_s=99.0, revision=0, active=2).committed is None
    assert said.see(revision=0, active=7, known_good=7).committed is True


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=3))
def test_a_report_of_any_shape_is_survived(nonsense):
    for report in ({"models": nonsense}, {"models": {NAME: nonsense}}, {"code": nonsense}):
        device = Device("d", report={"revision": 5, **report})
        Follower(NAME, 7, 5, {}).see(device, 1.0)
        for key in ("active", "phase", "progress", "why", "known_good", "candidate"):
            told = {"revision": 5, "models": {NAME: {key: nonsense}}}
            Follower(NAME, 7, 5, told).see(Device("d", report=told), 1.0)
