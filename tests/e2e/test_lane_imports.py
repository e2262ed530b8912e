"""The lane imports nothing: what it needs is there before the first reading comes."""

from tests.world import zoo
from tests.world.importing import PATH
from tests.world.site import Site


def test_nothing_is_imported_on_the_lane_whatever_is_asked_of_it(broker, tmp_path):
    """[rollout-4.3]"""
    imported = tmp_path / "imported"
    with Site(broker, tmp_path) as site:
        site.program, site.environ = "tests.world.importing", {PATH: str(imported)}
        site.start()
        site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
        site.readings([{"ts": 1_700_000_000 + n, **features(n)} for n in range(200)])
        site.scored("m", 200)
        site.deploy(zoo.mlp(tmp_path / "v2", bias=0.01, name="m"))
        site.readings([{"ts": 1_700_000_200 + n, **features(n)} for n in range(200)])
        site.readings(["no reading", {"ts": 1_700_000_400}])
        site.scored("m", 400)
        site.state()
        assert site.command("diagnostics", {"model": "m"})
        assert site.command("rollback", {"model": "m"})
        site.stop()
    assert imported.read_text() == ""


def features(n):
    return {f"f{i}": (n + i) % 7 for i in range(8)}
