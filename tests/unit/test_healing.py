"""Lost workers come back; a version that keeps losing them is condemned."""

from random import Random

import pytest

from agent.core.errors import MisfitError, UnavailableError, UnfitError
from agent.runtime.healing import HEIR_S_MAX, TRIES_MAX, Healer
from tests.world.memory import MemoryOutbox
from tests.world.river import River
from tests.world.still import SamePlace, still_lane


class Impatient(Random):
    """Never waits."""

    def uniform(self, a, b):
        return 0.0


class Site:
    def __init__(self, river):
        self.river = river
        self.clock = river.clock
        self.box = MemoryOutbox()
        self.lane = still_lane(self.clock, self.box, "s")
        self.lane.intakes["s"].scorings["m"] = river.scoring
        self.pool = SamePlace()
        self.condemned, self.changes = [], []
        self.healer = Healer(
            self.lane,
            self.pool,
            self.clock,
            deaths_max=3,
            deaths_s=300.0,
            condemned=lambda *told: self.condemned.append(told),
            changed=lambda: self.changes.append(1),
            random=Impatient(),
        )
        self.healer._stopping.wait = lambda _: False
        river.scoring.lost = self.healer.lost
        self.seat = river.seat(1)
        river.swap(self.seat)

    def die(self):
        self.seat.session.die("signal 11")
        self.river.turn()

    def close(self):
        self.lane.close()
        self.box.close()


@pytest.fixture
def site():
    with River() as river:
        site = Site(river)
        yield site
        site.close()


def test_a_lost_worker_is_brought_back_and_goes_on(site):
    site.river.push(2)
    site.river.turn()
    site.die()
    assert (site.seat.lost, site.seat.session.revived) == (False, 1)
    assert site.condemned == []
    assert len(site.changes) == 2
    site.river.finish()
    assert site.river.scores == [1, 2]


@pytest.mark.parametrize("error", [UnavailableError, UnfitError, MisfitError])
def test_a_revival_that_fails_is_tried_again(site, error):
    site.seat.session.revivals = [error("no memory")] * 3
    site.die()
    assert (site.seat.lost, site.seat.session.revived) == (False, 1)


def test_a_worker_that_cannot_be_brought_back_condemns_its_version(site):
    site.seat.session.revivals = [UnavailableError("no memory")] * TRIES_MAX
    site.die()
    assert site.seat.session.revived == 1
    (told,) = site.condemned
    assert told == ("m", site.seat.ref, "its worker cannot be brought back: no memory")


def test_where_nothing_takes_over_reviving_goes_on(site):
    site.seat.session.revivals = [UnavailableError("no memory")] * (TRIES_MAX + 50)
    site.die()
    assert not site.seat.lost
    assert len(site.condemned) == 1


def test_a_version_whose_session_was_given_back_is_not_revived(site):
    site.pool.later = True
    site.die()
    site.seat.closed = True
    site.pool.go()
    assert site.seat.session.revived == 0
    assert site.condemned == []


def test_too_many_deaths_in_a_while_condemn(site):
    for _ in range(2):
        site.die()
        site.clock.forward(100)
    assert site.condemned == []
    site.die()
    assert site.condemned == [("m", site.seat.ref, "signal 11, 3 times")]


def test_nothing_starts_beside_the_version_that_takes_over_from_one_that_hung(site):
    """[rollout-7.3]"""
    waits = []
    site.healer._stopping.wait = waits.append
    site.healer._gives_way = lambda name, ref: (name, ref) == ("m", site.seat.ref)
    site.die()
    site.seat.evidence.hangs = 1
    site.die()
    assert waits == [0.0, HEIR_S_MAX]


def test_the_same_deaths_over_a_long_time_do_not(site):
    for _ in range(10):
        site.die()
        site.clock.forward(150.1)
    assert site.condemned == []


def test_once_condemned_it_takes_as_many_deaths_again(site):
    for _ in range(5):
        site.die()
    assert len(site.condemned) == 1
    site.die()
    assert len(site.condemned) == 2


def test_each_version_dies_for_itself(site):
    site.die()
    site.die()
    site.seat = site.river.seat(2)
    site.river.swap(site.seat)
    site.die()
    assert site.condemned == []


def test_after_the_stop_nothing_is_revived(site):
    site.healer.stop()
    site.die()
    assert (site.seat.lost, site.condemned) == (True, [])
