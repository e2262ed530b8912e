"""Models that pass preflight and turn bad later: each is caught by the bar meant for it, taken back
in time, and what it said is said again by the known good.

pytest tests/faults/test_turning_bad.py -m "soak or not soak" -s     all, about eight minutes
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.world import turning
from tests.world.broker import Broker
from tests.world.rollout_story import rollbacks
from tests.world.site import Books, Site
from tests.world.stream import BASE, SENSORS, Stream, accounted, reading
from tests.world.waiting import eventually

BACK_S_MAX = 30.0  # from turning bad to the known good answering
GAP_S_MAX = 3.0  # between two scores, where a run hangs
SEEN_S_MAX = 90.0  # for the whole story
MORE = 200  # readings that the known good goes on with
ENDLESS = 10**6  # windows that no trial here sees


@dataclass(frozen=True)
class Kind:
    """One way to turn bad: how it is made, after how many calls, and how it is told.

    `wanted` is a word of the reason that only the bar meant for it gives.
    """

    make: Callable[..., Path]
    wanted: str
    rate: float = 400.0  # readings per second, over four sensors
    calls: int = 150  # of one sensor
    calls_served: int = 500  # the same, where it turns once it has passed its probation
    bars: dict[str, Any] = field(default_factory=dict)
    members: dict[str, Any] = field(default_factory=dict)

    @property
    def is_told_by_value(self) -> bool:
        """Whether a wrong score shows when it turned."""
        return self.make in (turning.nan_after, turning.drifting_after)

    @property
    def wanted_in_shadow(self) -> str:
        """There a run that does not end may be the machine's doing, but not three times."""
        return "3 times" if self.make is turning.hang_after else self.wanted


COMPARED = {"windows": 40, "agreement": 0.98, "max": 60.0}
TIMED = {"latency_ratio": 5.0}
KINDS = {
    "nan": Kind(turning.nan_after, "bad scores"),
    "crash": Kind(turning.crash_after, "3 times"),
    "hang": Kind(turning.hang_after, "a run did not end"),
    "leak": Kind(turning.leaking_after, "its memory grew", members={"step_mb": 1.0}),
    "drift": Kind(
        turning.drifting_after,
        "windows agree",
        bars={"shadow": COMPARED},
        calls=400,
        calls_served=1600,
    ),
    "slow": Kind(
        turning.slow_after,
        "latency is",
        rate=100.0,
        bars={"probation": TIMED},
        members={"turns": 100},
    ),
}


class Arrivals(Books):
    """Books that also say when each row came."""

    def __init__(self) -> None:
        super().__init__()
        self.at: dict[int, float] = {}

    def take(self, document: dict[str, Any]) -> None:
        now = time.monotonic()
        for seq in range(document["seq"], document["seq"] + len(document["score"])):
            self.at.setdefault(seq, now)
        super().take(document)

    def of(self, release: int) -> list[int]:
        """The numbers of what `release` said by itself, not to correct another."""
        return [
            seq
            for seq, row in sorted(dict(self.rows).items())
            if row[3] == release and seq not in self.superseding
        ]


@dataclass
class Story:
    """A site with a known good under a stream, and the version that turns bad."""

    site: Site
    stream: Stream
    first: int
    bad: int = 0
    since: int = 0  # the first number that may have to be taken back

    @property
    def books(self) -> Arrivals:
        return self.site.book("m")


@contextmanager
def story(broker: Broker, folder: Path, rate: float) -> Iterator[Story]:
    """The known good has scored a while."""
    with Site(broker, folder) as site:
        site.books["m"] = Arrivals()
        site.start()
        first = site.deploy(turning.counting(folder / "v1", name="m"))
        with Stream(int(broker.url.rsplit(":", 1)[1]), rate) as stream:
            site.scored("m", 300)
            yield Story(site, stream, first)


def kinds(*quick: str, but: str = "") -> list[Any]:
    """All `but` one; what is not `quick` is left for a long run."""
    return [
        pytest.param(kind, id=name, marks=[] if name in quick else [pytest.mark.soak])
        for name, kind in KINDS.items()
        if name != but
    ]


@pytest.mark.parametrize("kind", kinds("nan", "hang"))
def test_what_turns_bad_on_probation_is_caught_taken_back_and_scored_again(
    broker: Broker, tmp_path: Path, kind: Kind
) -> None:
    """[rollout-5.7] [rollout-6.1] [rollout-6.3]"""
    bars = {**kind.bars, "probation": {"windows": ENDLESS, **kind.bars.get("probation", {})}}
    with story(broker, tmp_path, kind.rate) as told:
        site = told.site
        made = kind.make(tmp_path / "v2", calls=kind.calls, name="m", **kind.members)
        told.bad = site.add(made)
        site.desire("m", told.bad, rollout=bars)
        model = site.settled("m", SEEN_S_MAX)
        assert "failed probation" in model["why"] or kind.make is turning.crash_after
        taken_back(told, kind, kind.calls, model)


@pytest.mark.parametrize("kind", kinds("crash"))
def test_what_turns_bad_while_it_serves_is_caught_taken_back_and_scored_again(
    broker: Broker, tmp_path: Path, kind: Kind
) -> None:
    """[rollout-7.1] [rollout-7.2] [rollout-7.3] What it had said on probation stands."""
    shadow = kind.bars.get("shadow")
    bars = {
        **({"shadow": {**shadow, "score_distance": 0.1}} if shadow else {}),
        "probation": {"windows": 300, **kind.bars.get("probation", {})},
    }
    with story(broker, tmp_path, kind.rate) as told:
        site = told.site
        made = kind.make(tmp_path / "v2", calls=kind.calls_served, name="m", **kind.members)
        told.bad = site.deploy(made, rollout=bars)
        rows = len(told.books.rows)
        model = site.settled("m", SEEN_S_MAX)
        assert "failed while serving" in model["why"] or kind.make is turning.crash_after
        eventually(lambda: told.books.superseding, 20)
        told.since = min(told.books.superseding.values())
        assert told.since <= rows
        taken_back(told, kind, kind.calls_served, model)


@pytest.mark.parametrize("kind", kinds(but="slow"))
def test_what_turns_bad_in_shadow_never_answers(broker: Broker, tmp_path: Path, kind: Kind) -> None:
    """[rollout-5.7] How fast it would be is asked once it answers."""
    bars = {"shadow": {"windows": ENDLESS, "agreement": 0.98, "max": SEEN_S_MAX}}
    with story(broker, tmp_path, kind.rate) as told:
        site = told.site
        made = kind.make(tmp_path / "v2", calls=kind.calls, name="m", **kind.members)
        told.bad = site.add(made)
        site.desire("m", told.bad, rollout=bars)
        model = site.settled("m", SEEN_S_MAX)
        sent = told.stream.stop()
        site.scored("m", sent)
    assert kind.wanted_in_shadow in model["why"]
    assert model["quarantined"]
    assert accounted(told.books, sent) == {"lost": 0, "repeated": 0, "disordered": 0}
    assert {row[3] for row in told.books.rows.values()} == {told.first}


def taken_back(told: Story, kind: Kind, calls: int, model: dict[str, Any]) -> None:
    """All that must be so once the bad version is gone."""
    site, books = told.site, told.books
    assert kind.wanted in model["why"]
    assert model["active"]["release"] == told.first == model["known_good"]["release"]
    assert model["quarantined"]
    so_far = told.stream.sent
    eventually(lambda: told.stream.sent >= so_far + MORE, 30)
    sent = told.stream.stop()
    eventually(lambda: len(books.corrected()) == sent, 60, "every reading once")
    receipts = eventually(lambda: rollbacks(site), 20, "a receipt of it")
    said = [seq for seq in books.of(told.bad) if seq >= told.since]
    assert receipts[-1]["rescored"] == {"rows": len(said), "refused": 0, "missing": 0}
    eventually(lambda: len(books.superseding) >= len(said), 20)
    assert sorted(books.superseding.values()) == said
    books.check()
    now = books.corrected()
    assert sorted(map(number, now.values())) == list(range(sent))
    for seq, row in now.items():  # what the known good says of each reading, exactly
        assert row[2] == pytest.approx(truth(row), abs=1e-6)
        assert row[3] == told.first or seq < told.since
    assert books.rows[max(books.of(told.first))][3] == told.first
    whole = {"in": sent, "scored": sent, "rejected": {}, "expired": 0, "pending": 0}
    eventually(lambda: site.model("m")["counts"] == whole, 5)
    back_s, gap_s = figures(told, kind, calls)
    print(f"\nback after {back_s:.1f} s, longest gap {gap_s:.1f} s; {len(said)} rows scored again")
    assert back_s <= BACK_S_MAX
    if kind.make is turning.hang_after:
        assert gap_s <= GAP_S_MAX


def truth(row: tuple[str, float, float, int]) -> float:
    """What the known good says: the first feature."""
    return float(json.loads(reading(number(row)))["f0"])


def figures(told: Story, kind: Kind, calls: int) -> tuple[float, float]:
    """Seconds from turning bad to the known good's answer, and the longest gap between scores."""
    books = told.books
    first = min(number(books.rows[seq]) for seq in books.of(told.bad))
    if kind.is_told_by_value:
        wrong = [row for seq in books.of(told.bad) if is_wrong(row := books.rows[seq])]
        turned = min(map(number, wrong))
    else:  # of each sensor one call a reading
        turned = first + SENSORS * calls
    assert turned < told.stream.sent
    after = max(books.of(told.bad))
    back = min(books.at[seq] for seq in books.of(told.first) if seq > after)
    gaps = (b - a for a, b in pairwise(sorted(books.at.values())))
    return back - told.stream.due(turned), max(gaps)


def number(row: tuple[str, float, float, int]) -> int:
    """Of the reading that a row is of."""
    return round(row[1]) - BASE


def is_wrong(row: tuple[str, float, float, int]) -> bool:
    """Whether the known good would say something else."""
    return row[2] is None or not math.isclose(row[2], truth(row), abs_tol=1e-6)
