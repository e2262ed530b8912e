"""What a room does with what a candidate was measured to take, and with files that changed."""

from agent.core.errors import DamagedError
from agent.core.preflight import Measures
from agent.ports import GoldenResult
from tests.world.plant import Plant, live

SLOW = "[runtime]\nlatency_ms_p99 = 5"


def test_a_candidate_slower_than_it_promised_does_not_fit_and_is_not_quarantined(tmp_path):
    """[jail-3.1]"""

    async def main(plant):
        plant.publish(1)
        await plant.desire(m=1)
        plant.engine.dress = lambda session: setattr(session, "measures", Measures((9.0,), 3))
        plant.publish(2, more=SLOW)
        await plant.desire(m=2)
        state = plant.state("m")
        assert (state["state"], state["quarantined"]) == ("Unschedulable", [])
        assert "a run takes 9 ms here" in state["why"]
        assert "promises 5" in state["why"]
        assert state["active"]["release"] == 1
        assert plant.engine.open() == [1]

    live(main, Plant(tmp_path))


def test_samples_that_need_too_much_memory_do_not_fit_and_are_not_quarantined(tmp_path):
    """[jail-3.3]"""

    async def main(plant):
        plant.publish(1)
        await plant.desire(m=1)
        poor = GoldenResult(ok=False, samples=1, why="too much memory", blame="misfit")
        plant.engine.dress = lambda session: setattr(session, "golden_result", poor)
        plant.publish(2)
        await plant.desire(m=2)
        state = plant.state("m")
        assert (state["state"], state["quarantined"]) == ("Unschedulable", [])
        assert "too much memory" in state["why"]

    live(main, Plant(tmp_path))


def test_files_that_changed_since_they_were_verified_are_let_go(tmp_path):
    """[jail-1.1]"""

    async def main(plant):
        plant.publish(1)
        await plant.desire(m=1)
        package = plant.publish(2)
        plant.engine.fails.append(DamagedError("m:2: it is not what was signed"))
        await plant.desire(m=2)
        assert plant.store.path_of(package.ref) is None
        state = plant.state("m")
        assert state["quarantined"] == []
        assert "is not what was signed" in state["why"]
        assert state["active"]["release"] == 1

    live(main, Plant(tmp_path))
