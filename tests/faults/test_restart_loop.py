"""A device whose power is cut again a moment after each start, in the middle of a rollout: it ends
well, after no more than a few tries.
"""

import json
import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from tests.world import zoo
from tests.world.loop_disk import LoopDisk, needs_loop_disk
from tests.world.rollout_story import remains
from tests.world.site import Site
from tests.world.stream import Stream
from tests.world.waiting import eventually

CUTS, CUTS_SOAK = 2, 5
CHAINS_SOAK = int(os.environ.get("CHAINS", "20"))
AFTER_S_MAX = 3.0
RATE = 100.0
TRIAL = {
    "shadow": {"windows": 150},
    "canary": {"share": 0.5, "windows": 50},
    "probation": {"windows": 100},
}
WRITES_MAX = 28  # of the state of one rollout: what flash can bear (reliability.md, F5)


def powered_up(disk):
    """Once nobody uses it any more: workers end a moment after their agent."""

    def done():
        try:
            disk.power_up()
        except subprocess.CalledProcessError:
            return False
        return True

    eventually(done, 10, "nobody uses the disk")


def steps(site):
    """How often the rollout of version 2 was journalled, and how often it was begun anew."""
    events = [json.loads(line) for line in site.log().splitlines() if line.startswith("{")]
    moved = [e for e in events if e["event"] == "rollout" and e["candidate"] == "m:2"]
    began = sum(e["event"] == "running" for e in events)
    return len(moved) + began - 1


def chain(broker, folder, dice, cuts):
    """Cut, and cut again; how it ended, and how many writes that took."""
    with (
        LoopDisk(folder) as disk,
        Site(broker, folder, store={"dir": str(disk.path / "store")}) as site,
    ):
        site.start()
        site.deploy(zoo.mlp(folder / "v1", name="m"))
        release = site.add(zoo.mlp(folder / "v2", bias=1.0, name="m"))
        before = remains(disk.path / "store", folder / "copy").floor
        with Stream(broker.port, RATE):
            site.desire("m", release, rollout=TRIAL)
            for _ in range(cuts):
                time.sleep(dice.uniform(0, AFTER_S_MAX))
                disk.cut()
                site.kill()
                powered_up(disk)
                now = remains(disk.path / "store", folder / "copy").floor
                assert now >= before, "the floor fell"
                before = now
                site.start()
            eventually(lambda: _ended(site), 60, f"the rollout ends; {site.model('m')}")
        model = site.model("m")
        quarantined = bool(model["quarantined"])
        assert model["active"]["release"] == (1 if quarantined else 2), model
        if quarantined:  # by then it is the suspect, as it must be
            assert "the agent died" in model["why"]
        writes = steps(site)
        site.stop()
    assert writes <= WRITES_MAX
    return "given up" if quarantined else "done", writes


def _ended(site):
    model = site.model("m")
    tried = model.get("active", {}).get("release") == 2 or model.get("quarantined")
    return model.get("phase") == "steady" and tried and model["active"]["provider"]


def chains(broker, tmp_path, times, cuts):
    needs_loop_disk(tmp_path)
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    dice, ends = random.Random(seed), []
    for n in range(times):
        with type(broker)() as fresh:
            ends.append(chain(fresh, _folder(tmp_path / f"{n}"), dice, cuts))
    most = max(writes for _, writes in ends)
    done = sum(how == "done" for how, _ in ends)
    print(
        f"{times} chains of {cuts} cuts: {done} rollouts done, {times - done} given up after three"
        f" deaths; at most {most} writes of state; floor kept"
    )


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_power_cut_soon_after_each_start_is_survived(broker, tmp_path):
    """[durability-3.5] F5."""
    chains(broker, tmp_path, 1, CUTS)


@pytest.mark.soak
@pytest.mark.timeout(2 * 3600)
def test_many_chains_of_power_cuts_are_survived(broker, tmp_path):
    """F5."""
    chains(broker, tmp_path, CHAINS_SOAK, CUTS_SOAK)
