"""The driver: every phase passes, fails, is cut off and resumed; the journal always comes first."""

import asyncio
from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from agent.core.errors import DamagedError, MisfitError, UnavailableError, UnfitError
from agent.core.rollout import ABANDONABLE, Blame, Condemned, Desired, Phase, Rollout, loaded
from agent.runtime.driver import RETRY_S_MAX, Driver
from tests.unit.test_rollout import HAPPY_PATH, HOME, LIVE, V1, V2, V3
from tests.world.hours import HandClock, passing, quiet
from tests.world.memory import MemoryJournal, Power

WORKING = [phase for phase in Phase if phase is not Phase.STEADY]
BLAMES = {
    UnfitError: Blame.VERDICT,
    MisfitError: Blame.MISFIT,
    DamagedError: Blame.WEATHER,
}


class Site:
    """A driver and its world.  `script` says what the work of a phase does, time after time:
    an exception is raised, "hang" never ends, and past its end the work passes.
    """

    def __init__(self, home=HOME, **script):
        self.journal = MemoryJournal()
        self.journal.rollouts["bearing"] = home
        self.script = {Phase(name.replace("_", "-")): list(acts) for name, acts in script.items()}
        self.seen = []
        self.cancelled = []
        self.tidied = []
        self.told = []
        self.refused = []
        self.clock = HandClock()

    def driver(self):
        self.now = Driver(
            "bearing",
            {phase: self.work(phase) for phase in WORKING},
            self.journal,
            tidy=self.tidy,
            refused=self.refused.append,
            changed=lambda: self.told.append((self.now.now.phase, self.now.weather)),
            random=Random(1),
        )
        return self.now

    def work(self, phase):
        async def run(ref):
            assert self.journal.load("bearing").phase is phase, "begun before it was journalled"
            assert self.now.now == self.journal.load("bearing")
            self.seen.append((phase, ref))
            acts = self.script.get(phase)
            act = acts.pop(0) if acts else None
            if isinstance(act, BaseException):
                raise act
            if act == "hang":
                try:
                    await asyncio.Event().wait()
                finally:
                    self.cancelled.append((phase, ref))

        return run

    async def tidy(self, rollout):
        assert rollout == self.journal.load("bearing"), "tidied before it was journalled"
        self.tidied.append(rollout)

    async def live(self, *events, seconds=1e-6):
        """Start, tell it `events` one after the other, and stop it in order."""
        driver = self.driver()
        await driver.load()
        task = asyncio.create_task(driver.run())
        await quiet(seconds)
        for event in events:
            await driver.submit(event)
            await quiet(seconds)
        task.cancel()
        (end,) = await asyncio.gather(task, return_exceptions=True)
        return end

    def run(self, *events, seconds=1e-6):
        return passing(self.live(*events, seconds=seconds), self.clock)

    @property
    def end(self):
        return replace(self.journal.load("bearing"), clean=False)

    @property
    def phases(self):
        return [phase for phase, _ in self.seen]


def test_a_good_version_is_promoted():
    site = Site()
    site.run(Desired(V2))
    assert site.phases == HAPPY_PATH
    assert site.end == Rollout(active=V2, known_good=V2, previous=V1)
    assert site.refused == []
    assert {phase for phase, _ in site.told} == {*HAPPY_PATH, Phase.STEADY}


@pytest.mark.parametrize("kind", list(BLAMES))
@pytest.mark.parametrize("phase", HAPPY_PATH)
def test_a_failure_in_any_phase_ends_with_the_known_good_and_the_right_blame(phase, kind):
    site = Site(**{phase.value: [kind("it is broken")]})
    site.run(Desired(V2))
    assert (site.end.phase, site.end.active, site.end.blame) == (Phase.STEADY, V1, BLAMES[kind])
    assert (V2.digest in site.end.quarantined) == (kind is UnfitError)
    assert "it is broken" in site.end.reason
    back = phase in {
        Phase.CANARY,
        Phase.PROMOTING,
        Phase.PROBATION,
    }  # rolled back, which is told otherwise
    assert site.refused == ([] if back else [site.end.reason])
    assert str(phase) in site.end.reason


@pytest.mark.parametrize("phase", HAPPY_PATH)
def test_weather_in_any_phase_is_waited_out_told_and_blamed_on_nobody(phase):
    storms = [UnavailableError(f"storm {n}") for n in range(12)]
    site = Site(**{phase.value: storms})
    before = site.clock.monotonic()
    site.run(Desired(V2), seconds=3600)
    assert Counter(site.phases)[phase] == 13
    assert site.end == Rollout(active=V2, known_good=V2, previous=V1)
    assert [weather for _, weather in site.told if weather] == [str(e) for e in storms]
    assert site.now.weather == ""
    assert site.clock.monotonic() - before < 7200 + 1


def test_the_wait_between_tries_grows_and_is_bounded():
    site = Site(fetching=[UnavailableError("no network")] * 10_000)
    site.run(Desired(V2), seconds=86_400)
    tries = len(site.phases)
    assert 86_400 / RETRY_S_MAX < tries < 4 * 86_400 / RETRY_S_MAX
    assert site.end.phase is Phase.FETCHING


@pytest.mark.parametrize("phase", HAPPY_PATH)
def test_a_power_cut_in_any_phase_resumes_there_and_changes_no_outcome(phase):
    site = Site(**{phase.value: ["hang"]})
    site.run(Desired(V2))
    assert site.end.phase is phase
    site.journal.rollouts["bearing"] = site.end  # no goodbye was written
    seen = len(site.seen)
    site.run()
    assert site.phases[seen] is phase
    assert site.end == Rollout(active=V2, known_good=V2, previous=V1)


@pytest.mark.parametrize("phase", [Phase.ROLLING_BACK, Phase.RETIRING])
def test_going_back_and_going_away_are_tried_until_they_are_done(phase):
    event = Desired(None) if phase is Phase.RETIRING else Condemned(V1, "by command")
    site = Site(**{phase.value.replace("-", "_"): [UnfitError("no"), MisfitError("no"), "hang"]})
    site.run(event)
    assert site.end.phase is phase
    site.run()
    assert site.end.phase is Phase.STEADY
    assert site.end.active in (None, HOME.previous)


@pytest.mark.parametrize("phase", sorted(LIVE))
def test_a_candidate_during_which_the_agent_keeps_dying_is_given_up(phase):
    site = Site(**{phase.value: ["hang"] * 10})
    site.run(Desired(V2))
    for _ in range(4):
        site.journal.rollouts["bearing"] = site.end  # no goodbye was written
        site.run()
    assert (site.end.phase, site.end.active) == (Phase.STEADY, V1)
    assert V2.digest in site.end.quarantined


def test_stopping_in_order_is_no_death():
    site = Site(preflight=["hang"] * 10)
    site.run(Desired(V2))
    for _ in range(8):
        site.run()
        assert site.journal.load("bearing").clean
    assert site.end.phase is Phase.PREFLIGHT
    assert site.end.quarantined == ()


@pytest.mark.parametrize("phase", [*sorted(ABANDONABLE), Phase.CANARY])
def test_a_newer_wish_cancels_the_work_in_hand(phase):
    site = Site(**{phase.value: ["hang"]})
    site.run(Desired(V2), Desired(V3))
    assert site.cancelled == [(phase, V2)]
    assert site.end == Rollout(active=V3, known_good=V3, previous=V1)
    assert all(V2 not in loaded(state) for state in site.tidied[-5:])


@pytest.mark.parametrize("phase", [Phase.PROMOTING, Phase.PROBATION])
def test_past_the_point_of_no_return_a_newer_wish_waits(phase):
    site = Site(**{phase.value: ["hang"]})
    site.run(Desired(V2), Desired(V3))
    assert site.cancelled == [(phase, V2)]  # at the end, by the stop
    assert (site.end.phase, site.end.candidate, site.end.waiting) == (phase, V2, Desired(V3))
    site.run()
    assert site.end == Rollout(active=V3, known_good=V3, previous=V2)


def test_wishing_again_for_the_same_disturbs_nothing():
    site = Site(shadow=["hang"])
    site.run(Desired(V2), Desired(V2), Desired(V2))
    assert Counter(site.phases)[Phase.SHADOW] == 1
    assert len(site.cancelled) == 1


def test_a_wish_that_waits_for_the_weather_is_left_for_another_and_its_weather_forgotten():
    site = Site(fetching=[UnavailableError("no network")] * 2)
    site.run(Desired(V2), Desired(V3), seconds=0.01)
    assert site.seen[-1][1] == V3
    assert site.now.weather == ""


def saves_of_a_rollout():
    site = Site()
    site.run(Desired(V2))
    return site.journal.saves


@pytest.mark.parametrize("nth", range(1, saves_of_a_rollout() + 1))
def test_a_journal_that_fails_at_any_save_is_waited_for_and_nothing_runs_ahead_of_it(nth):
    site = Site()
    site.journal.fails = {n: UnavailableError("the disk is full") for n in (nth, nth + 1)}
    end = site.run(Desired(V2), seconds=600)
    assert isinstance(end, asyncio.CancelledError)
    assert site.phases == HAPPY_PATH
    assert site.end == Rollout(active=V2, known_good=V2, previous=V1)


def test_while_the_journal_fails_the_report_says_why():
    site = Site()
    site.journal.fails = {2: UnavailableError("the disk is full")}
    site.run(Desired(V2), seconds=600)
    assert "the disk is full" in {weather for _, weather in site.told}
    assert site.now.weather == ""


@pytest.mark.parametrize("nth", range(1, saves_of_a_rollout() + 1))
def test_a_power_cut_at_any_save_leaves_a_state_that_goes_on(nth):
    site = Site()
    site.journal.fails = {n: Power() for n in range(nth, nth + 9)}
    end = site.run(Desired(V2))
    assert isinstance(end, BaseExceptionGroup)
    assert end.split(Power)[1] is None
    site.journal.fails.clear()
    site.run(Desired(V2))
    assert site.end == Rollout(active=V2, known_good=V2, previous=V1)


def test_what_cannot_be_tidied_now_does_not_stop_a_rollout():
    site = Site()

    async def tidy(rollout):
        raise UnavailableError("cannot clear the store")

    site.tidy = tidy
    site.run(Desired(V2))
    assert site.end.active == V2


def test_each_step_is_tidied_after():
    site = Site()
    site.run(Desired(V2))
    assert [state.phase for state in site.tidied] == [Phase.STEADY, *HAPPY_PATH, Phase.STEADY]
