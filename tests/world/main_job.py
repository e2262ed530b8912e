"""The main job as every dialect of control must do it: a swap under a stream, and a bad version.

`site` is a `Site`, or one of a cloud: it deploys, sends readings, and keeps the consumer's books.
"""

from tests.world import wild, zoo
from tests.world.waiting import eventually

BARS = {"probation": {"windows": 1000}}


def reading(n):
    """Reading `n`, of 8 features."""
    return {"ts": 1_700_000_000 + n, **{f"f{i}": ((n * 7 + i * 3) % 20) / 10 - 1 for i in range(8)}}


def swapped_in(site, folder):
    """Two versions arrive, one after the other, and nothing is lost; the second one's release."""
    first = site.deploy(zoo.mlp(folder / "v1", name="m"))
    site.readings(reading(n) for n in range(200))
    site.scored("m", 200)
    second = site.deploy(zoo.mlp(folder / "v2", bias=1.0, name="m"))
    site.readings(reading(n) for n in range(200, 400))
    books = site.scored("m", 400)
    assert books.check() == 400
    assert [books.rows[n][3] for n in (0, 199, 200, 399)] == [first, first, second, second]
    whole = {"in": 400, "scored": 400, "rejected": {}, "expired": 0, "pending": 0}
    eventually(lambda: site.model("m")["counts"] == whole, 5)
    assert site.model("m")["state"] == "Healthy"
    receipt = eventually(
        lambda: [e["receipt"] for e in site.events if e["type"] == "swap"][1:], 10
    )[0]
    assert (receipt["last_seq"], receipt["first_seq"]) in ((199, 200), (199, None))
    assert receipt["gap"] == receipt["duplicates"] == 0
    eventually(lambda: (site.reported or {})["models"]["m"]["active"]["release"] == second, 10)
    return second


def taken_back(site, folder):
    """A version that says NaN is taken out by itself; what wishing for it gave."""
    good = site.deploy(zoo.mlp(folder / "v1", name="m"))
    bad = site.add(wild.nan_above(folder / "v2", threshold=0.5, name="m"))
    wish = site.desire("m", bad, rollout=BARS)
    eventually(lambda: site.model("m").get("phase") == "probation", 20)
    site.readings(reading(n) for n in range(100))
    model = site.settled("m")
    assert model["active"]["release"] == model["known_good"]["release"] == good
    assert "not a finite number" in model["why"]
    assert model["quarantined"]
    eventually(lambda: [e["type"] for e in site.events].count("rollback") == 1, 10)
    site.readings(reading(n) for n in range(100, 200))
    assert site.scored("m", 200).check() == 200
    eventually(lambda: site.model("m")["counts"]["in"] == 200, 10)
    return wish
