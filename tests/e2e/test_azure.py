"""The main job as a module of IoT Edge, and a day of its life."""

import pytest

from tests.world import wild, zoo
from tests.world.edge_site import EdgeSite
from tests.world.waiting import eventually


def reading(n):
    return {"ts": 1_700_000_000 + n, **{f"f{i}": ((n * 7 + i * 3) % 20) / 10 - 1 for i in range(8)}}


@pytest.fixture
def site(tmp_path):
    with EdgeSite(tmp_path) as site:
        yield site.start()
    assert site.hub.broken == []


def test_a_version_arrives_is_swapped_in_and_reports_back(site, tmp_path):
    first = site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
    site.readings(reading(n) for n in range(200))
    site.scored("m", 200)
    second = site.deploy(zoo.mlp(tmp_path / "v2", bias=1.0, name="m"))
    site.readings(reading(n) for n in range(200, 400))
    books = site.scored("m", 400)
    assert books.check() == 400
    assert [books.rows[n][3] for n in (0, 199, 200, 399)] == [first, first, second, second]
    assert books.rows[0][0] == "p1"  # the sending module is the key
    whole = {"in": 400, "scored": 400, "rejected": {}, "expired": 0, "pending": 0}
    eventually(lambda: site.model("m")["counts"] == whole, 5)
    assert site.model("m")["state"] == "Healthy"
    receipt = eventually(
        lambda: [e["receipt"] for e in site.events if e["type"] == "swap"][1:], 10
    )[0]
    assert (receipt["last_seq"], receipt["first_seq"]) in ((199, 200), (199, None))
    assert receipt["gap"] == receipt["duplicates"] == 0
    eventually(lambda: (site.reported or {})["models"]["m"]["active"]["release"] == second, 10)
    assert site.command("ping", {})["code"] == 200
    assert site.command("rollback", {"model": "nobody"})["code"] == 404


def test_a_bad_version_is_taken_back_and_never_tried_again(site, tmp_path):
    good = site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
    bad = site.add(wild.nan_above(tmp_path / "v2", threshold=0.5, name="m"))
    site.desire("m", bad, rollout={"probation": {"windows": 1000}})
    eventually(lambda: site.model("m").get("phase") == "probation", 20)
    site.readings(reading(n) for n in range(100))
    model = site.settled("m")
    assert model["active"]["release"] == model["known_good"]["release"] == good
    assert "not a finite number" in model["why"]
    assert model["quarantined"]
    eventually(lambda: [e["type"] for e in site.events].count("rollback") == 1, 10)
    site.readings(reading(n) for n in range(100, 200))
    assert site.scored("m", 200).check() == 200
