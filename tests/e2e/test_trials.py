"""A candidate proves itself beside the live version, or is undone, on a live stream."""

import json

import pytest

from tests.world import turning, zoo
from tests.world.rollout_story import rollbacks
from tests.world.site import Site
from tests.world.stream import BASE, SENSORS, Stream, accounted, reading
from tests.world.waiting import eventually

RATE = 400.0
TRIAL = {
    "shadow": {"windows": 200, "agreement": 0.98, "score_distance": 0.1, "max": 60.0},
    "canary": {"share": 0.5, "windows": 100},
    "probation": {"windows": 400, "latency_ratio": 5.0},
}
SCORE = {"score": {"tensor": "y", "threshold": 0.5}}


@pytest.fixture
def site(broker, tmp_path):
    with Site(broker, tmp_path) as site:
        yield site.start()


def port(site):
    return int(site.broker.url.rsplit(":", 1)[1])


def test_a_good_version_walks_through_every_trial_under_a_live_stream(site, tmp_path):
    """[rollout-5.1] [rollout-5.6] [rollout-5.9]"""
    first = site.deploy(zoo.mlp(tmp_path / "v1", name="m", output=SCORE))
    with Stream(port(site), RATE) as stream:
        site.scored("m", 100)
        second = site.add(zoo.mlp(tmp_path / "v2", bias=1e-3, name="m", output=SCORE))
        site.desire("m", second, rollout=TRIAL)
        site.committed("m", second)
        sent = stream.stop()
    books = site.scored("m", sent)
    assert accounted(books, sent) == {"lost": 0, "repeated": 0, "disordered": 0}
    trail = {seen["phase"]: seen for seen in site.model("m")["trail"]}
    assert list(trail) == ["shadow", "canary", "probation"]
    assert all(seen["verdict"] == "PASS" for seen in trail.values())
    assert trail["shadow"]["agreement"] >= 0.98
    assert trail["shadow"]["windows"] >= 200
    assert trail["canary"]["windows"] >= 100
    releases = [books.rows[seq][3] for seq in sorted(books.rows)]
    keys = {books.rows[seq][0] for seq in books.rows if books.rows[seq][3] == second}
    swap = max(seq for seq in books.rows if books.rows[seq][3] == first)
    canary = {books.rows[seq][0] for seq in range(swap) if books.rows[seq][3] == second}
    assert 0 < len(canary) < SENSORS
    assert len(keys) == SENSORS
    assert releases[0] == first
    assert releases[-1] == second
    assert site.model("m")["counts"]["expired"] == 0


def test_a_version_that_decides_otherwise_never_answers(site, tmp_path):
    """[rollout-5.4]"""
    first = site.deploy(zoo.mlp(tmp_path / "v1", name="m", output=SCORE))
    with Stream(port(site), RATE) as stream:
        site.scored("m", 100)
        bad = site.add(zoo.mlp(tmp_path / "v2", bias=0.6, name="m", output=SCORE))
        site.desire("m", bad, rollout=TRIAL)
        eventually(lambda: site.model("m").get("phase") == "shadow", 20)
        model = site.settled("m")
        sent = stream.stop()
    assert model["active"]["release"] == first
    assert "failed shadow" in model["why"]
    assert model["quarantined"]
    books = site.scored("m", sent)
    assert {row[3] for row in books.rows.values()} == {first}
    assert accounted(books, sent) == {"lost": 0, "repeated": 0, "disordered": 0}


@pytest.mark.parametrize("phase", ["canary", "probation"])
def test_what_a_bad_version_said_is_scored_again_by_the_known_good(site, tmp_path, phase):
    """[rollout-6.1] [rollout-6.3]"""
    first = site.deploy(turning.counting(tmp_path / "v1", name="m"))
    bars = {"probation": {"windows": 5000, "latency_ratio": 5.0}}
    if phase == "canary":
        bars["canary"] = {"share": 0.5, "windows": 5000}
    with Stream(port(site), RATE) as stream:
        site.scored("m", 100)
        bad = site.add(turning.nan_after(tmp_path / "v2", calls=60, name="m"))
        site.desire("m", bad, rollout=bars)
        eventually(lambda: site.model("m").get("quarantined"), 60)
        model = site.settled("m")
        sent = stream.stop()
    assert model["active"]["release"] == first
    assert f"failed {phase}" in model["why"]
    books = site.book("m")
    eventually(lambda: len(books.corrected()) == sent, 30, "every reading, once")
    receipts = eventually(lambda: rollbacks(site), 20, "a receipt of it")
    said = [seq for seq, row in books.rows.items() if row[3] == bad]
    assert receipts[-1]["rescored"] == {"rows": len(said), "refused": 0, "missing": 0}
    again = eventually(lambda: len(books.superseding) >= len(said) and books.superseding, 20)
    assert sorted(again.values()) == sorted(said)
    now = books.corrected()
    assert {row[3] for row in now.values()} == {first}
    for row in now.values():  # what the known good says of each reading, exactly
        n = round(row[1]) - BASE
        assert row[2] == pytest.approx(json.loads(reading(n))["f0"], abs=1e-6)
    assert len(now) == sent
    whole = {"in": sent, "scored": sent, "rejected": {}, "expired": 0, "pending": 0}
    eventually(lambda: site.model("m")["counts"] == whole, 5)


def test_versions_with_unlike_windows_are_tried_swapped_and_taken_back(site, tmp_path):
    """[rollout-6.5] [rollout-5.1] Each reading is accounted for once, under whichever windows."""
    first = site.deploy(zoo.cnn(tmp_path / "v1", length=4, name="m"))
    bars = {"shadow": {"windows": 40, "max": 60.0}, "probation": {"windows": 10**6}}
    with Stream(port(site), RATE) as stream:
        site.scored("m", 50)
        second = site.add(zoo.cnn(tmp_path / "v2", length=8, name="m"))
        site.desire("m", second, rollout=bars)
        books = site.book("m")
        eventually(lambda: sum(row[3] == second for row in dict(books.rows).values()) > 50, 60)
        assert site.command("rollback", {"model": "m"})["code"] == 200
        model = site.settled("m")
        sent = stream.stop()
    assert model["active"]["release"] == first
    trail = {seen["phase"]: seen for seen in model["trail"]}
    assert trail["shadow"]["verdict"] == "PASS"
    assert trail["shadow"]["windows"] >= 40
    receipts = eventually(lambda: rollbacks(site), 20, "a receipt of it")
    rescored = receipts[-1]["rescored"]
    assert rescored["rows"] > 50, "windows of four, where there were windows of eight"
    assert (rescored["refused"], rescored["missing"]) == (0, 0)
    eventually(lambda: len(books.superseding) == rescored["rows"], 20)
    books.check()
    assert {books.rows[seq][3] for seq in books.superseding} == {first}

    def accounts():
        counts = site.model("m")["counts"]
        whole = counts["scored"] + counts["expired"] + counts["pending"]
        return counts["in"] == sent == whole and not counts["rejected"] and counts

    counts = eventually(accounts, 20, f"{sent} readings, each once; {site.model('m')['counts']}")
    assert counts["pending"] < 4 * SENSORS
    assert counts["expired"] < 2 * 8 * SENSORS, "the windows that were open at the two swaps"
