"""What is reported: the word for the state, the reasons, and what counts as news."""

import pytest

from agent.core.errors import MisfitError, RefusedError, UnavailableError, UnfitError
from agent.core.rollout import Rollout
from agent.runtime.lane import Lane, LaneStoppedError
from tests.world.hours import quiet
from tests.world.plant import Plant, live


@pytest.fixture
def plant(tmp_path):
    plant = Plant(tmp_path)
    plant.publish(1)
    plant.publish(2)
    return plant


def report(plant):
    return plant.reporter.report


def test_a_model_that_scores_as_wanted_is_healthy_and_the_agent_ready(plant):
    async def main(plant):
        await plant.desire(m=1)
        plant.feed(1.0, 2.0)
        await quiet(5)
        model = plant.state()
        assert (model["state"], model["phase"], model["progress"]) == ("Healthy", "steady", 1.0)
        assert model["active"]["provider"] == model["active"]["wanted"] == "cpu"
        assert (model["active"]["version"], model["active"]["release"]) == ("1.0", 1)
        assert (model["counts"]["in"], model["counts"]["scored"], model["next_seq"]) == (2, 2, 2)
        assert model["last_score"].endswith("Z")
        assert model["receipt"]["to"]["release"] == 1
        assert (report(plant).live, report(plant).ready, report(plant).reasons) == (True, True, ())
        assert plant.reports[-1]["models"]["m"]["state"] == "Healthy"
        assert plant.faces.shown[-1] is report(plant)

    live(main, plant)


def test_ready_takes_an_active_version_of_all_that_is_desired(plant):
    """[control-2.5]

    Between the word and its rollout nothing has gone wrong, and nothing scores either.
    """

    async def main(plant):
        await plant.desire(m=1)
        assert report(plant).ready
        plant.wishes.refusals["m"] = "of another line"
        plant.models.rows["m"].driver.now = Rollout()
        plant.wishes._changed()
        await quiet(5)
        assert report(plant).reasons == ("m has no active version: of another line",)
        plant.wishes.refusals.clear()
        plant.wishes._changed()
        await quiet(5)
        assert report(plant).reasons == ("m has no active version: its rollout has not begun",)

    live(main, plant)


def test_before_anything_is_desired_the_agent_is_live_and_not_ready(plant):
    async def main(plant):
        assert (report(plant).live, report(plant).ready) == (True, False)
        assert report(plant).reasons == ("no model is desired yet",)

    live(main, plant)


def test_a_rollout_on_its_way_is_transitioning(plant):
    async def main(plant):
        await plant.desire(m=1)
        await plant.desire(m={"release": 2, "rollout": {"probation": {"windows": 100}}})
        plant.feed(*range(25))
        await quiet(5)
        model = plant.state()
        assert (model["state"], model["phase"]) == ("Transitioning", "probation")
        assert model["progress"] == 0.25
        assert (model["active"]["release"], model["known_good"]["release"]) == (2, 1)

    live(main, plant)


def test_weather_is_told_while_it_lasts(plant):
    async def main(plant):
        await plant.desire(m=1)
        plant.fetcher.fails = [UnavailableError("no route")] * 1000
        await plant.desire(m=2)
        assert "no route" in plant.state()["why"]
        assert report(plant).ready

    live(main, plant)


@pytest.mark.parametrize(
    ("error", "state"),
    [(UnfitError("bad bytes"), "Failed"), (MisfitError("no memory"), "Unschedulable")],
)
def test_with_nothing_running_the_word_says_whether_it_failed_or_does_not_fit(plant, error, state):
    plant.engine.fails = [error]

    async def main(plant):
        await plant.desire(m=1)
        assert plant.state()["state"] == state
        assert str(error) in plant.state()["why"]
        assert any(str(error) in reason for reason in report(plant).reasons)
        assert not report(plant).ready

    live(main, plant)


def test_a_version_refused_beside_a_good_one_leaves_the_agent_ready(plant):
    async def main(plant):
        await plant.desire(m=1)
        plant.engine.fails = [UnfitError("bad bytes")]
        await plant.desire(m=2)
        assert plant.state()["state"] == "Healthy"
        assert "bad bytes" in plant.state()["why"]
        assert len(plant.state()["quarantined"]) == 1
        assert report(plant).ready

    live(main, plant)


def test_a_fallback_is_unhealthy_and_told(plant):
    def dress(session):
        session.wanted, session.fallback = "cuda", "no CUDA here"

    plant.engine.dress = dress

    async def main(plant):
        await plant.desire(m=1)
        assert plant.state()["state"] == "Unhealthy"
        assert plant.state()["active"]["wanted"] == "cuda"
        assert plant.degraded == [("m", "no CUDA here")]

    live(main, plant)


def test_a_worker_that_is_gone_is_unhealthy_and_a_reason(plant):
    async def main(plant):
        await plant.desire(m=1)
        plant.models.rows["m"].scoring.slot.seat.lost = True
        await quiet(5)
        assert plant.state()["state"] == "Unhealthy"
        assert any("its worker is gone" in reason for reason in report(plant).reasons)
        plant.models.rows["m"].scoring.slot.seat.lost = False

    live(main, plant)


def test_a_version_that_cannot_be_restored_is_a_reason(plant):
    async def first(plant):
        await plant.desire(m=1)
        plant.engine.fails = [UnavailableError("no worker can be started")] * 2

    async def second(plant):
        plant.engine.fails = [UnavailableError("no worker can be started")] * 100
        await quiet(10)

    async def third(plant):
        await quiet(30)
        assert plant.state()["state"] == "Unhealthy"
        assert any("is not loaded" in r and "no worker" in r for r in report(plant).reasons)
        plant.engine.fails = []
        await quiet(30)
        assert (plant.state()["state"], report(plant).ready) == ("Healthy", True)

    live(first, plant, second, third)


def test_a_paused_stream_and_a_troubled_one_are_reasons(plant):
    async def main(plant):
        await plant.desire(m=1)
        plant.source.ailing = "the broker refuses us"
        await quiet(5)
        assert report(plant).reasons == ("the stream s gets no readings: the broker refuses us",)
        plant.lane.intakes["s"].paused = True
        await quiet(5)
        assert report(plant).reasons == ("the stream s is paused",)
        plant.lane.intakes["s"].paused = False
        plant.source.ailing = ""

    live(main, plant)


@pytest.mark.parametrize("silent", [True, False])
def test_a_lane_that_does_not_answer_is_not_live(plant, silent):
    async def main(plant):
        await plant.desire(m=1)
        plant.lane.call, called = (
            (lambda f: Lane.call(plant.lane, f)) if silent else _stopped,
            plant.lane.call,
        )
        await quiet(10)
        assert (report(plant).live, report(plant).ready) == (False, False)
        assert report(plant).reasons[0] == "the scoring lane does not answer"
        assert "s" in report(plant).streams
        plant.lane.call = called

    live(main, plant)


def _stopped(_):
    raise LaneStoppedError("the lane has stopped")


def test_counts_are_no_news_but_the_interval_tells_them(plant):
    """[control-2.1]"""

    async def main(plant):
        await plant.desire(m=1)
        plant.feed(1.0)
        before = len(plant.reports)
        await quiet(10)
        plant.feed(2.0)
        await quiet(10)
        assert len(plant.reports) == before
        await quiet(40)
        assert len(plant.reports) == before + 1
        assert plant.reports[-1]["models"]["m"]["counts"]["scored"] == 2

    live(main, plant)


def test_news_is_published_at_once(plant):
    async def main(plant):
        await plant.desire(m=1)
        before = len(plant.reports)
        await plant.desire(m=2, seconds=3)
        phases = [r["models"]["m"]["phase"] for r in plant.reports[before:]]
        assert phases[-1] == "steady"
        assert plant.reports[-1]["models"]["m"]["active"]["release"] == 2

    live(main, plant)


def test_what_could_not_be_published_is_when_the_link_stands_again(plant):
    async def main(plant):
        plant.link.refuse = lambda *_: UnavailableError("down")
        plant.link.ailing = "connection refused"
        await plant.desire(m=1)
        assert plant.reports == plant.reports[:1]
        plant.link.refuse = lambda *_: None
        await quiet(3)
        assert plant.reports[-1]["models"]["m"]["active"]["release"] == 1
        assert plant.reports[-1]["agent"]["broker"] == "connection refused"

    live(main, plant)


def test_a_report_the_broker_will_never_take_is_not_hammered_at_it(plant):
    async def main(plant):
        tries = []

        def refuse(topic, payload):
            tries.append(topic)
            return RefusedError("too large", 413)

        plant.link.refuse = refuse
        await plant.desire(m=1, seconds=30)
        assert len(tries) < 15

    live(main, plant)


def test_readings_that_wait_too_long_for_a_score_are_a_reason(plant):
    """[control-2.4]"""

    async def main(plant):
        plant.publish(1)
        await plant.desire(m=1)
        session = plant.models.rows["m"].scoring.slot.seat.session
        session.quick = False  # it goes on living, and answers nothing
        plant.feed(1.0)
        await quiet(30)
        assert not report(plant).ready
        assert "m: readings have waited" in report(plant).reasons[0]
        session.answer(10)
        for _ in range(4):
            plant.lane._turn()
        await quiet(5)
        assert report(plant).reasons == ()

    live(main, plant)
