"""kill -9 before and after each durable operation of a story of three rollouts: it ends the same.

The operations are counted by `tests.world.dying`; the story and what it must end in are those of
`tests.world.rollout_story`.  `make soak` shares all points out to stories, in an order that is that
of `SWEEP_SEED`; it tells `SWEEP_STORIES` of these (all), from number `SWEEP_FROM` on (0): a long
sweep may be done in parts.
"""

import json
import os
import random
import re
from collections import Counter

import pytest

from tests.world import rollout_story as story
from tests.world.broker import Broker
from tests.world.dying import AT, SCORES, TRACE, Point, traced
from tests.world.keeper import Keeper
from tests.world.site import Site

END = {
    "active": story.SECOND,
    "known_good": story.SECOND,
    "phase": "steady",
    "quarantined": 1,
    "receipts": {(story.BAD, story.SECOND)},
}
NEVER_CONDEMNED = {"deaths_s": 0.001}
STORIES = int(os.environ.get("SWEEP_STORIES", "0"))  # 0: all
STORIES_FROM = int(os.environ.get("SWEEP_FROM", "0"))
SCORES_EVERY = 10  # commits of nothing but scores are all alike
DEATHS_MAX = 3  # of one rollout: then the version would be to blame

PHASES = (
    "commit rollout in shadow of 2 #1 after",
    "commit rollout in canary of 2 #1 after",
    "commit rollout in probation of 2 #1 after",
    "commit rollout in promoting of 3 #1 before",
    "commit rollout in rolling-back of 3 #1 after",
    "commit scores in rolling-back of 3 #2 after",  # some of it is scored again
)
OPERATIONS = (
    "replace write_atomic in fetching of 1 #1 after",
    "commit rollout in steady of 1 #1 before",
    "fsync sync_file in verifying of 2 #1 before",
    "rename _appear in verifying of 2 #1 after",
    "commit scores in probation of 3 #3 after",
    "commit document in rolling-back of 3 #1 after",  # the receipt, as it is at the swap
    "commit rollout in steady of 3 #1 after",  # and before it was complete
)


def told(broker, folder, points=()):
    """Tell the story with a death at each of `points`; the trace, and the deaths there were."""
    found = []

    def died():
        found.append(story.remains(folder / "store", folder / "copy"))
        floors = [one.floor for one in found]
        assert floors == sorted(floors), f"the floor fell: {floors}"

    with Site(broker, folder, engine=NEVER_CONDEMNED) as site:
        site.program = "tests.world.dying"
        site.environ = {TRACE: str(folder / "trace"), AT: ";".join(map(str, points))}
        with Keeper(site, died) as keeper:
            sent = story.tell(site, folder)
            assert story.outcome(site, sent) == END
        assert (keeper.others, keeper.broken) == ([], [])
        site.kill()
        died()
        assert found[-1].floor == story.BAD
        silent = [one.silent_from for one in found if one.silent_from is not None]
        said = [seq for seq, row in site.book("m").rows.items() if row[3] == story.BAD]
        assert max(said) < min(silent), "nobody hears a condemned version, whatever dies"
    return traced(folder / "trace"), keeper.deaths


@pytest.mark.parametrize("points", [PHASES, OPERATIONS], ids=["phase", "operation"])
def test_a_death_in_each(points, broker, tmp_path):
    """[rollout-1.4] [rollout-6.4] Each kill is survived, and the end is that of a story without."""
    trace, deaths = told(broker, tmp_path, points)
    sure = [point for point in points if not point.startswith(SCORES)]  # of those some may be few
    assert len(sure) <= deaths <= len(points), trace


def stories(points):
    """`points` shared out, so that no death moves the numbers of another's operations: in each
    story one of a phase, and no more than are forgiven of a rollout.
    """
    rest = list(points)
    while rest:
        phases, rollouts, some = set(), Counter(), []
        for point in rest:
            when = point.kind.partition(" in ")[2]
            release = re.sub(r".* of ", "", when)
            if when not in phases and rollouts[release] < DEATHS_MAX:
                phases.add(when)
                rollouts[release] += 1
                some.append(point)
        yield some
        rest = [point for point in rest if point not in some]


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_a_death_before_and_after_each_durable_operation(tmp_path):
    """Several to a story; what turns red is told again, each by itself."""
    (tmp_path / "reference").mkdir()
    with Broker() as broker:
        trace, _ = told(broker, tmp_path / "reference")
    points = [
        Point(kind, number, side)
        for kind, count in sorted(trace.items())
        for number in range(1, count + 1, SCORES_EVERY if kind.startswith(SCORES) else 1)
        for side in ("before", "after")
    ]
    seed = int(os.environ.get("SWEEP_SEED") or random.SystemRandom().randrange(2**32))
    random.Random(seed).shuffle(points)
    chosen = list(stories(points))[STORIES_FROM:][: STORIES or None]
    failed, deaths = {}, 0
    for laps, some in enumerate(chosen, STORIES_FROM):
        found, died = _tell(tmp_path / f"{laps}", some)
        if found and len(some) > 1:
            alone = [
                (point, _tell(tmp_path / f"{laps}-{n}", [point])) for n, point in enumerate(some)
            ]
            failed |= {str(point): why for point, (why, _) in alone if why}
        if found and not any(str(point) in failed for point in some):
            failed["; ".join(map(str, some))] = found
        deaths += died
        print(f"{laps}: {died} of {len(some)}", *map(str, failed), sep="; ", flush=True)
    print(
        json.dumps({"seed": seed, "from": STORIES_FROM, "operations": sum(trace.values()),
                    "points": len(points), "stories": len(chosen), "tried": sum(map(len, chosen)),
                    "died": deaths, "failed": failed})
    )  # fmt: skip
    assert not failed


def _tell(folder, points):
    """What turned red, empty if nothing did; and the deaths there were."""
    folder.mkdir()
    try:
        with Broker() as broker:
            _, deaths = told(broker, folder, points)
    except AssertionError as error:
        return str(error)[:2000], 0
    return "", deaths
