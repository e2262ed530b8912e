"""kill -9 before and after each durable operation of a story of three rollouts: it ends the same.

The operations are counted by `tests.world.dying`; the story and what it must end in are those of
`tests.world.rollout_story`.
"""

import json
import os
import random

import pytest

from tests.world import rollout_story as story
from tests.world.dying import AT, SCORES, TRACE, Point, traced
from tests.world.keeper import Keeper
from tests.world.site import Site

END = {
    "active": story.SECOND,
    "known_good": story.SECOND,
    "phase": "steady",
    "quarantined": 1,
    "receipts": {(story.BAD, story.SECOND)},
    "rescored": True,
    "condemned for good": True,
    "told": True,
}
NEVER_CONDEMNED = {"deaths_s": 0.001}
POINTS_SOAK = int(os.environ.get("SWEEP_POINTS", "0"))  # 0: all
SCORES_EVERY = 10  # commits of nothing but scores are all alike

# No more than three deaths in one rollout: then the version would be to blame.
PHASES = (
    "commit rollout shadow #2 after",  # the first of each is of version 1
    "commit rollout canary #2 after",
    "commit rollout probation #2 after",
    "commit rollout promoting #3 before",
    "commit rollout rolling-back #1 after",
    "commit scores in rolling-back #2 after",  # half of it is scored again
)
OPERATIONS = (
    "replace write_atomic #3 after",  # what is trusted, of version 1
    "fsync sync_file #5 before",  # a file of version 2
    "rename _appear #2 after",
    "commit rollout preflight #2 before",
    "commit document #14 before",
    "commit scores in probation #30 after",
)


def told(broker, folder, points=()):
    """Tell the story with a death at each of `points`; the trace, and the deaths there were."""
    floors = [0]

    def died():
        floors.append(story.floor(folder / "store", folder / "copy"))
        assert floors == sorted(floors), f"the floor fell: {floors}"

    with Site(broker, folder, engine=NEVER_CONDEMNED) as site:
        site.program = "tests.world.dying"
        site.environ = {TRACE: str(folder / "trace"), AT: ";".join(map(str, points))}
        with Keeper(site, died) as keeper:
            sent = story.tell(site, folder)
            assert story.outcome(site, sent) == END
        site.stop()
        assert (keeper.others, keeper.broken) == ([], [])
        died()
        assert floors[-1] == story.BAD
    return traced(folder / "trace"), keeper.deaths


@pytest.mark.parametrize("points", [PHASES, OPERATIONS], ids=["phase", "operation"])
def test_a_death_in_each(points, broker, tmp_path):
    """[rollout-1.4] [rollout-6.4] Each kill is survived, and the end is that of a story without."""
    trace, deaths = told(broker, tmp_path, points)
    assert deaths == len(points), trace


@pytest.mark.soak
@pytest.mark.timeout(6 * 3600)
def test_a_death_before_and_after_each_durable_operation(broker, tmp_path):
    """`SWEEP_POINTS` of them, spread at random, if it is set."""
    (tmp_path / "reference").mkdir()
    trace, _ = told(broker, tmp_path / "reference")
    points = [
        Point(kind, number, side)
        for kind, count in sorted(trace.items())
        for number in range(1, count + 1, SCORES_EVERY if kind.startswith(SCORES) else 1)
        for side in ("before", "after")
    ]
    seed = random.SystemRandom().randrange(2**32)
    chosen = random.Random(seed).sample(points, POINTS_SOAK or len(points))
    failed, missed = {}, 0
    for n, point in enumerate(chosen):
        folder = tmp_path / f"{n}"
        folder.mkdir()
        try:
            with type(broker)() as fresh:
                _, deaths = told(fresh, folder, [point])
            missed += not deaths  # fewer operations of this kind than in the reference
        except AssertionError as error:
            failed[str(point)] = str(error)[:2000]
    print(
        json.dumps({"seed": seed, "operations": sum(trace.values()), "points": len(points),
                    "tried": len(chosen), "died": len(chosen) - missed, "failed": failed})
    )  # fmt: skip
    assert not failed
