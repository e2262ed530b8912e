"""Documents from outside: what is taken, what is refused, and what it costs to refuse it."""

import base64
import gzip
import json
import math
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import enclosed, strict, wire
from agent.core.bars import Bars
from agent.core.errors import RefusedError
from agent.core.names import ID_PATTERN
from agent.core.topics import device_of
from agent.core.wire import Desired, DesiredModel, Topics

ids = st.from_regex(ID_PATTERN, fullmatch=True)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
bundles = st.dictionaries(
    st.from_regex(r"[a-z0-9]{1,8}\.json", fullmatch=True), st.binary(max_size=200), max_size=5
)


def desired(**members):
    return json.dumps({"schema": 1, "revision": 1, "models": {}} | members).encode()


def refused(raw, parse=wire.parse_desired):
    with pytest.raises(RefusedError) as caught:
        parse(raw)
    return caught.value


# ---- strict JSON ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b'{"revision": 1, "revision": 2, "models": {}}', "'revision' is there twice"),
        (b'{"revision": NaN, "models": {}}', "NaN is no number"),
        (b'{"revision": 1e999, "models": {}}', "too large"),
        (b'{"revision": ' + b"9" * 5000 + b"}", "5000 digits"),
        (b"[" * 200_000, "nested too deep"),
        (b'{"a":' * 60 + b"1" + b"}" * 60, "nested too deep"),
        (b"[1]", "is a JSON array"),
        (b"null", "is a JSON null"),
        (b'"x"', "is a JSON string"),
        (b"", "not JSON"),
        (b"\xff{}", "not UTF-8"),
        (b'{"x": "\\ud800"}', "lone surrogate"),
        (b'{"\\udc00": 1}', "lone surrogate"),
    ],
)
def test_a_text_that_two_readers_could_read_differently_is_refused(raw, says):
    error = refused(raw)
    assert error.code == 400
    assert says in str(error)


def test_a_document_that_is_too_large_is_refused_before_it_is_read():
    error = refused(b"\xff" * (wire.DESIRED_BYTES_MAX + 1))
    assert error.code == 413


@given(st.binary(max_size=300))
def test_no_bytes_at_all_do_anything_but_parse_or_be_refused(raw):
    try:
        wire.parse_desired(raw)
    except RefusedError as error:
        assert str(error)
        assert "\n" not in str(error)[:20]


@given(st.dictionaries(st.text(), plain, max_size=4))
def test_strict_json_reads_what_json_writes(document):
    raw = json.dumps(document).encode()
    assert strict.read_object(raw, "x", bytes_max=2**20) == document


# ---- desired -------------------------------------------------------------------------------------


def test_a_desired_document_is_read_whole_and_what_it_may_grow_later_is_ignored():
    raw = desired(
        revision=42,
        later={"not": "known"},
        models={
            "pump-anomaly": {
                "release": 7,
                "stream": "pump",
                "later": 1,
                "rollout": {"shadow": {"windows": 50, "max": "2m"}},
            },
            "seal": {"release": 1},
        },
    )
    wish = wire.parse_desired(raw)
    assert wish.revision == 42
    assert wish.models["pump-anomaly"].release == 7
    assert wish.models["pump-anomaly"].stream == "pump"
    assert wish.models["seal"] == DesiredModel(1, None, {})
    assert wish.metadata is None


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"revision": "42"}, "revision"),
        ({"revision": True}, "revision"),
        ({"revision": -1}, "revision"),
        ({"revision": 2**60}, "revision"),
        ({"models": []}, "models"),
        ({"models": {"../x": {"release": 1}}}, "models.../x"),
        ({"models": {"a/b": {"release": 1}}}, "models.a/b"),
        ({"models": {"m": {}}}, "models.m.release"),
        ({"models": {"m": {"release": 1.5}}}, "models.m.release"),
        ({"models": {"m": {"release": 1, "stream": "+"}}}, "models.m.stream"),
        ({"models": {"m": {"release": 1, "rollout": {"shadow": 3}}}}, "models.m.rollout.shadow"),
        (
            {"models": {"m": {"release": 1, "rollout": {"shadow": {"windows": -1}}}}},
            "models.m.rollout.shadow.windows",
        ),
        (
            {"models": {"m": {"release": 1, "rollout": {"canary": {"share": 2}}}}},
            "models.m.rollout.canary.share",
        ),
        ({"models": {f"m{i}": {"release": 1} for i in range(257)}}, "models"),
        ({"schema": 2}, "schema 2"),
        ({"metadata": 7}, "metadata"),
        ({"metadata": "????"}, "base64"),
        ({"metadata": base64.b64encode(b"plain").decode()}, "gzip"),
    ],
)
def test_a_malformed_wish_is_refused_with_a_sentence_that_names_the_member(members, says):
    assert says in str(refused(desired(**members)))


def test_a_device_may_be_left_with_no_model_at_all():
    assert wire.parse_desired(desired()).models == {}


# ---- overlay -------------------------------------------------------------------------------------


def test_the_devices_own_wish_wins_model_by_model():
    fleet = Desired(9, {"a": DesiredModel(1), "b": DesiredModel(1)})
    line = Desired(4, {"b": DesiredModel(2), "c": DesiredModel(2)})
    own = Desired(3, {"c": DesiredModel(3, "own-stream")})
    both = wire.overlay([fleet, line], own)
    assert {name: model.release for name, model in both.models.items()} == {"a": 1, "b": 2, "c": 3}
    assert both.models["c"].stream == "own-stream"
    assert both.revision == 3
    assert wire.overlay([fleet, line], None).revision == 9
    assert wire.overlay([], None) == Desired(0, {}, None)


def test_the_newest_bundle_is_taken_wherever_it_came_from():
    def stamped(version):
        return {"timestamp.json": json.dumps({"signed": {"version": version}}).encode()}

    group = Desired(9, {}, stamped(12))
    own = Desired(3, {}, stamped(5))
    assert wire.overlay([group], own).metadata == stamped(12)
    assert wire.overlay([Desired(9, {}, stamped(2))], own).metadata == stamped(5)
    assert wire.overlay([Desired(9, {}, {"x": b"?"})], own).metadata == stamped(5)
    assert wire.overlay([Desired(9, {})], Desired(3, {})).metadata is None
    same = stamped(5) | {"1.root.json": b"{}"}
    assert wire.overlay([Desired(9, {}, same)], own).metadata == stamped(5)


wishes = st.builds(
    Desired,
    st.integers(0, 99),
    st.dictionaries(ids, st.builds(DesiredModel, st.integers(0, 9)), max_size=4),
)


@given(st.lists(wishes, max_size=3), st.none() | wishes)
def test_overlay_loses_no_model_and_invents_none(groups, own):
    both = wire.overlay(groups, own)
    everyone = [*groups, *([own] if own else [])]
    assert set(both.models) == {name for wish in everyone for name in wish.models}
    for name, model in both.models.items():
        last = next(wish for wish in reversed(everyone) if name in wish.models)
        assert model == last.models[name]


# ---- bars ----------------------------------------------------------------------------------------


def test_overrides_change_their_own_bar_and_leave_the_others():
    bars = Bars.model_validate({"shadow": {"windows": 200, "agreement": 0.9}})
    put = wire.apply_bars(bars, {"shadow": {"windows": 50}, "probation": {"time": "5m"}})
    assert (put.shadow.windows, put.shadow.agreement) == (50, 0.9)
    assert put.probation.time == 300.0
    assert wire.apply_bars(bars, {}) == bars


@pytest.mark.parametrize(
    "overrides",
    [
        {"shadow": {"windows": "many"}},
        {"shadow": {"windows": True}},
        {"shadow": {"max": "soon"}},
        {"probation": {"latency_ratio": 0}},
        {"probation": {"latency_ratio": math.inf}},
        {"canary": None},
    ],
)
def test_a_bar_that_makes_no_sense_is_refused(overrides):
    assert "rollout." in str(refused(overrides, lambda x: wire.apply_bars(Bars(), x)))


def test_an_operators_typo_is_found_though_a_device_would_ignore_it():
    overrides = {"shadow": {"windwos": 5, "windows": 5}, "shdow": {}}
    assert wire.unknown_bars(overrides) == ["shdow", "shadow.windwos"]
    assert wire.apply_bars(Bars(), overrides).shadow.windows == 5


# ---- the metadata bundle -------------------------------------------------------------------------


@given(bundles)
def test_a_bundle_comes_out_as_it_went_in(files):
    text = wire.pack_metadata(files)
    assert wire.unpack_metadata(text) == files
    assert wire.pack_metadata(dict(reversed(files.items()))) == text
    assert wire.parse_desired(desired(metadata=text)).metadata == files


def test_a_gzip_bomb_is_refused_at_the_bound_and_not_unfolded():
    bomb = base64.b64encode(gzip.compress(b'{"a.json": "' + b"A" * 100_000_000)).decode()
    assert len(bomb) < enclosed.PACKED_BYTES_MAX
    tracemalloc.start()
    assert refused(bomb, wire.unpack_metadata).code == 413
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * enclosed.PLAIN_BYTES_MAX


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (gzip.compress(b"{}", mtime=0)[:-4], "cut short"),
        (gzip.compress(b"{}", mtime=0) + b"more", "behind its end"),
        (gzip.compress(b"[]", mtime=0), "array"),
        (gzip.compress(b'{"../root.json": ""}', mtime=0), "no file name"),
        (gzip.compress(b'{"a.json": 1}', mtime=0), "a.json is not base64"),
        (gzip.compress(b'{"a.json": "?"}', mtime=0), "a.json is not base64"),
        (gzip.compress(b'{"a.json": "", "a.json": ""}', mtime=0), "twice"),
        (
            gzip.compress(json.dumps({f"{i}.json": "" for i in range(200)}).encode(), mtime=0),
            "200 files",
        ),
    ],
)
def test_a_bundle_that_is_not_one_is_refused(raw, says):
    assert says in str(refused(base64.b64encode(raw).decode(), wire.unpack_metadata))


def test_a_bundle_that_would_not_arrive_is_not_sent():
    assert refused({"a.json": bytes(3 * 2**20)}, wire.pack_metadata).code == 413
    assert refused({"../a.json": b""}, wire.pack_metadata).code == 400


# ---- commands ------------------------------------------------------------------------------------

NOW = 1_732_180_000.0


def command(**members):
    return json.dumps({"id": "c1", "expires": NOW + 60, "args": {}} | members).encode()


@pytest.mark.parametrize(
    "expires", [NOW + 60, (NOW + 60) * 1000, "2024-11-21T09:07:40Z", "2024-11-21T09:07:40"]
)
def test_a_command_says_when_it_expires_in_any_of_the_usual_ways(expires):
    parsed = wire.parse_command("ping", command(expires=expires), NOW)
    assert parsed == wire.Command("c1", "ping", {}, NOW + 60)


@pytest.mark.parametrize(
    ("name", "members", "code", "says"),
    [
        ("reboot", {}, 404, "known are ping"),
        ("ping", {"expires": NOW}, 410, "expired 0 s ago"),
        ("ping", {"expires": NOW - 5}, 410, "expired 5 s ago"),
        ("ping", {"expires": None}, 400, "expires is missing"),
        ("ping", {"expires": "tomorrow"}, 400, "expires is missing"),
        ("ping", {"expires": True}, 400, "expires is missing"),
        ("ping", {"id": "a/b"}, 400, "id is missing"),
        ("ping", {"id": 7}, 400, "id is missing"),
        ("ping", {"args": []}, 400, "args must be an object"),
        ("ping", {"schema": 9}, 400, "schema 9"),
        ("rollback", {}, 400, "args.model"),
        ("retry", {"args": {"model": "../x"}}, 400, "args.model"),
        ("pause", {"args": {"model": "m"}}, 400, "args.stream"),
        ("score", {"args": {"inputs": []}}, 400, "args.model"),
    ],
)
def test_a_command_that_cannot_be_taken_is_refused(name, members, code, says):
    error = refused(command(**members), lambda raw: wire.parse_command(name, raw, NOW))
    assert error.code == code
    assert says in str(error)


def test_a_refused_command_can_still_be_answered_if_it_said_who_it_is():
    assert wire.command_id(command(expires=0)) == "c1"
    assert wire.command_id(command(id="../../x")) == ""
    assert wire.command_id(b"{") == ""


# ---- what we say ---------------------------------------------------------------------------------


@given(st.dictionaries(st.text(), plain, max_size=3))
def test_an_event_is_json_that_our_own_strict_reader_takes(more):
    raw = wire.event("swap", now_iso="2024-11-21T09:07:40Z", model="m", why="", receipt=more)
    told = strict.read_object(raw, "event", bytes_max=2**20)
    assert told["schema"] == 1
    assert told["receipt"] == more


def test_an_event_says_null_where_json_has_no_number():
    raw = wire.event(
        "gap", now_iso="t", model="m", why="w", p99=math.nan, rows=[1.0, math.inf], type_="x"
    )
    assert json.loads(raw)["p99"] is None
    assert json.loads(raw)["rows"] == [1.0, None]
    assert json.loads(raw)["type"] == "gap"


def test_what_is_told_cannot_be_passed_off_as_another_model():
    raw = wire.event("gap", now_iso="t", model="m", why="w", schema=9)
    assert json.loads(raw)["schema"] == 1


def test_offline_is_a_will_that_says_nothing_else():
    assert json.loads(wire.status(online=False)) == {"schema": 1, "online": False}
    assert json.loads(wire.status(online=True, since="t", agent="1.2.0")) == {
        "schema": 1,
        "online": True,
        "since": "t",
        "agent": "1.2.0",
    }


def test_an_answer_names_the_command_it_answers():
    told = json.loads(wire.answer("c1", code=404, why="no such model", model="m"))
    assert told == {"schema": 1, "id": "c1", "code": 404, "why": "no such model", "model": "m"}


# ---- topics --------------------------------------------------------------------------------------


def test_topics_are_those_of_the_contract():
    topics = Topics("edge", "pump-7")
    assert topics.desired == "edge/pump-7/desired"
    assert topics.group_desired("line-3") == "edge/group/line-3/desired"
    assert topics.reported == "edge/pump-7/reported"
    assert topics.status == "edge/pump-7/status"
    assert topics.scores("m") == "edge/pump-7/scores/m"
    assert topics.events == "edge/pump-7/events"
    assert topics.command("ping") == "edge/pump-7/command/ping"
    assert topics.commands == "edge/pump-7/command/+"
    assert topics.answer("c1") == "edge/pump-7/answer/c1"
    assert topics.repo_get == "edge/repo/get/pump-7"
    assert topics.repo_data == "edge/repo/data/pump-7"


@given(ids, ids)
def test_the_device_is_found_in_its_topics_under_any_root(root, device):
    deep = f"{root}/plant"
    assert device_of(Topics(deep, device).reported, deep) == device
    assert device_of("elsewhere/x/reported", deep) == ""
