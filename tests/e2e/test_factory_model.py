"""A model that came with the device scores from its first second, whatever the network is like."""

import json

import pytest

from tests.world import zoo
from tests.world.dying import AT, TRACE
from tests.world.keeper import Keeper
from tests.world.main_job import reading
from tests.world.site import Site
from tests.world.waiting import eventually


def test_a_factory_model_scores_though_no_repository_has_it(broker, tmp_path):
    models = [{"name": "m", "stream": "s", "path": str(zoo.mlp(tmp_path / "m", name="m"))}]
    with Site(broker, tmp_path, models=models) as site:
        site.start()
        eventually(lambda: site.model("m").get("active"), 30)
        site.readings(reading(n) for n in range(50))
        assert site.scored("m", 50).check() == 50


def test_a_factory_model_that_is_not_there_is_named_and_keeps_nothing_from_running(
    broker, tmp_path
):
    models = [{"name": "gone", "stream": "s", "path": str(tmp_path / "nope")}]
    with Site(broker, tmp_path, models=models) as site:
        site.start()
        state = eventually(site.state, 20)
        assert any("gone" in reason and "nope" in reason for reason in state["reasons"])
        site.deploy(zoo.mlp(tmp_path / "v1", name="m"))


@pytest.mark.parametrize("phase", ["fetching", "promoting"])
def test_a_factory_model_whose_first_rollout_is_cut_off_is_waited_for(broker, tmp_path, phase):
    """[control-1.7] The readings were there before the agent was."""
    log = tmp_path / "log"
    log.write_text("".join(json.dumps({"p": "p1", **reading(n)}) + "\n" for n in range(50)))
    stream = {"name": "s", "source": "file", "path": str(log), "key": "p", "time": "ts"}
    models = [{"name": "m", "stream": "s", "path": str(zoo.mlp(tmp_path / "m", name="m"))}]
    with Site(broker, tmp_path, streams=[stream], models=models) as site:
        site.program = "tests.world.dying"
        death = f"commit rollout in {phase} of 0 #1 after"
        site.environ = {TRACE: str(tmp_path / "trace"), AT: death}
        with Keeper(site) as keeper:
            assert site.scored("m", 50).check() == 50
        assert (keeper.deaths, keeper.others) == (1, [])
        whole = {"in": 50, "scored": 50, "rejected": {}, "expired": 0, "pending": 0}
        eventually(lambda: site.model("m").get("counts") == whole, 10, str(site.model("m")))
