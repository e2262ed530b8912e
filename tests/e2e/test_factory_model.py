"""A model that came with the device scores from its first second, whatever the network is like."""

from tests.world import zoo
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
