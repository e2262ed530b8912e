"""The main job as a thing of AWS IoT Core: jobs in, shadow out, packages as file streams."""

import pytest

from tests.world import wild, zoo
from tests.world.thing_site import ThingSite
from tests.world.waiting import eventually


def reading(n):
    return {"ts": 1_700_000_000 + n, **{f"f{i}": ((n * 7 + i * 3) % 20) / 10 - 1 for i in range(8)}}


@pytest.fixture
def site(broker, tmp_path):
    with ThingSite(broker, tmp_path, repository="mqtt") as site:
        yield site.start()
    assert site.core.broken == []


def test_a_version_arrives_is_swapped_in_and_reports_back(site, tmp_path):
    """[aws-1.1] [aws-2.1] [aws-3.1] [aws-4.1]"""
    first = site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
    eventually(lambda: site.core.status("job-1") == "SUCCEEDED", 10)
    site.readings(reading(n) for n in range(200))
    site.scored("m", 200)
    second = site.deploy(zoo.mlp(tmp_path / "v2", bias=1.0, name="m"))
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
    eventually(lambda: site.core.status("job-2") == "SUCCEEDED", 10)
    assert site.core.desired["models"]["m"]["release"] == second
    assert site.command("ping", {})["code"] == 200


def test_a_bad_version_is_taken_back_and_its_job_fails_with_the_reason(site, tmp_path):
    """[aws-3.2]"""
    good = site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
    bad = site.add(wild.nan_above(tmp_path / "v2", threshold=0.5, name="m"))
    job = site.desire("m", bad, rollout={"probation": {"windows": 1000}})
    eventually(lambda: site.model("m").get("phase") == "probation", 20)
    site.readings(reading(n) for n in range(100))
    model = site.settled("m")
    assert model["active"]["release"] == model["known_good"]["release"] == good
    eventually(lambda: site.core.status(job) == "FAILED", 10)
    assert "not a finite number" in site.core.updates[-1][2]["detail"]
    assert any("probation" in details["detail"] for _, _, details in site.core.updates)
    site.readings(reading(n) for n in range(100, 200))
    assert site.scored("m", 200).check() == 200
    eventually(lambda: site.model("m")["counts"]["in"] == 200, 10)


def test_a_job_that_cannot_be_taken_is_rejected_and_a_cancelled_one_let_go(site, tmp_path):
    """[aws-3.3] [aws-3.4]"""
    site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
    site.core.create_job("nonsense", {"models": {"m": {"release": "seven"}}})
    eventually(lambda: site.core.status("nonsense") == "REJECTED", 10)
    assert "release" in site.core.updates[-1][2]["detail"]
    site.desire("m", 99)
    eventually(lambda: site.core.status("job-2") == "REJECTED", 10)
    assert "not offered in release 99" in site.core.updates[-1][2]["detail"]
    slow = site.add(zoo.mlp(tmp_path / "v2", bias=1.0, name="m"))
    job = site.desire("m", slow, rollout={"probation": {"windows": 100_000, "time": "10m"}})
    eventually(lambda: site.core.status(job) == "IN_PROGRESS", 10)
    site.core.cancel(job)
    again = site.desire("m", slow)
    eventually(lambda: site.core.status(again) == "IN_PROGRESS", 10)
    assert site.core.status(job) == "CANCELED"


@pytest.mark.soak
def test_a_day_in_the_life(site, tmp_path):
    """[aws-3.5]"""
    first = site.deploy(zoo.mlp(tmp_path / "v0", name="m"))
    sent = 0

    def more(number=200):
        nonlocal sent
        site.readings(reading(n) for n in range(sent, sent + number))
        sent += number

    more()
    site.core.restart()
    more()
    # away for a day, with a job waiting; killed on the way
    site.core.down()
    more(400)
    second = site.add(zoo.mlp(tmp_path / "v1", bias=1.0, name="m"))
    job = site.desire("m", second)
    site.kill()
    more()
    site.start()
    more()
    assert site.model("m").get("active", {}).get("release", first) == first
    site.core.up()
    eventually(lambda: site.core.status(job) == "SUCCEEDED", 40)
    # the order is changed in the middle of its rollout
    slow = site.add(zoo.mlp(tmp_path / "v2", bias=2.0, name="m"))
    site.desire("m", slow, rollout={"probation": {"windows": 300, "time": "1s"}})
    eventually(lambda: site.model("m").get("phase") == "probation", 20)
    site.core.restart()
    last = site.add(zoo.mlp(tmp_path / "v3", bias=3.0, name="m"))
    site.core.cancel(f"job-{site.revision}")
    job = site.desire("m", last)
    more(400)
    eventually(lambda: (more(50), site.core.status(job) == "SUCCEEDED")[1], 40)
    assert site.scored("m", sent, 60).check() == sent
    eventually(lambda: site.model("m")["counts"]["scored"] == sent, 10)
    assert site.model("m")["active"]["release"] == last
    print(f"{sent} readings, {site.book('m').repeated} rows told twice")
