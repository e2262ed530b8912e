"""kill -9 again and again while what a bad version said is being scored again: it goes on where it
was, each row is superseded once, and it ends.
"""

import json

import pytest

from tests.world import rollout_story as story
from tests.world import turning
from tests.world.dying import AT, SCORES, TRACE
from tests.world.keeper import Keeper
from tests.world.site import Site
from tests.world.stream import BASE, reading
from tests.world.waiting import eventually

GOOD, BAD = 1, 2  # the releases
CALLS = 200  # that BAD stands
TURNS = 10  # milliseconds, about, that GOOD takes for a row: so there are commits to die at
SENT = CALLS + 20
TRIAL = {"probation": {"windows": 20_000, "latency_ratio": 100.0}}


@pytest.mark.parametrize("kinds", ["after", pytest.param("before", marks=pytest.mark.soak)])
def test_a_rollback_that_is_killed_again_and_again(broker, tmp_path, kinds):
    """[rollout-6.4]"""
    points = [f"{SCORES} in rolling-back of {BAD} #{n} {kinds}" for n in (5, 10, 15, 20)]
    with Site(broker, tmp_path) as site:
        site.program = "tests.world.dying"
        site.environ = {TRACE: str(tmp_path / "trace"), AT: ";".join(points)}
        with Keeper(site) as keeper:
            good = turning.slow_after(tmp_path / "v1", calls=0, turns=TURNS, name="m")
            site.deploy(good, rollout=story.AT_ONCE)
            bad = turning.nan_after(tmp_path / "v2", calls=CALLS, name="m")
            site.desire("m", site.add(bad), rollout=TRIAL)
            eventually(lambda: site.model("m").get("phase") == "probation", 30)
            site.readings(json.loads(reading(n)) for n in range(SENT))
            story.settled(site, 120)
            books = site.book("m")
            eventually(lambda: len(books.corrected()) >= SENT, 30, f"{len(books.rows)} rows")
            receipt = eventually(lambda: story.rollbacks(site), 20, "its receipt")[-1]
            eventually(lambda: len(books.superseding) >= receipt["rescored"]["rows"], 30)
        assert (keeper.others, keeper.broken) == ([], [])
        assert 1 <= keeper.deaths <= len(points)  # most often all: who commits seldom dies less
        said = {seq for seq, row in books.rows.items() if row[3] == BAD}
        again = list(books.superseding.values())
        assert len(again) == len(set(again)), "nothing is superseded twice"
        assert set(again) <= said
        missing = len(said) - len(again)
        assert receipt["rescored"] == {"rows": len(again), "refused": 0, "missing": missing}
        assert books.check() == SENT
        assert len(books.rows) == SENT + len(again), "nobody was told more than that"
        now = [row for row in books.corrected().values() if row[3] == GOOD]
        for row in now:
            f0 = json.loads(reading(round(row[1]) - BASE))["f0"]
            assert row[2] == pytest.approx(f0, abs=1e-6)
        assert len(now) == SENT - missing
        print(f"\n{keeper.deaths} deaths, {len(again)} rows scored again, {missing} missing")
