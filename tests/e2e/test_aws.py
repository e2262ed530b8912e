"""The main job as a thing of AWS IoT Core: jobs in, shadow out, packages as file streams."""

import pytest

from tests.world import zoo
from tests.world.main_job import reading, swapped_in, taken_back
from tests.world.thing_site import ThingSite
from tests.world.waiting import eventually


@pytest.fixture
def site(broker, tmp_path):
    with ThingSite(broker, tmp_path, repository="mqtt") as site:
        yield site.start()
    assert site.core.broken == []


def test_a_version_arrives_is_swapped_in_and_reports_back(site, tmp_path):
    """[aws-1.1] [aws-2.1] [aws-3.1] [aws-4.1]"""
    second = swapped_in(site, tmp_path)
    eventually(lambda: site.core.status("job-1") == "SUCCEEDED", 10)
    eventually(lambda: site.core.status("job-2") == "SUCCEEDED", 10)
    assert site.core.desired["models"]["m"]["release"] == second
    assert site.command("ping", {})["code"] == 200


def test_a_bad_version_is_taken_back_and_its_job_fails_with_the_reason(site, tmp_path):
    """[aws-3.2]"""
    job = taken_back(site, tmp_path)
    eventually(lambda: site.core.status(job) == "FAILED", 10)
    assert "not a finite number" in site.core.updates[-1][2]["detail"]
    assert any("probation" in details["detail"] for _, _, details in site.core.updates)


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
