"""A second real provider, OpenVINO on the processor: chosen, proven, swapped to and from."""

import pytest

from tests.world import openvino, zoo
from tests.world.load import Load
from tests.world.site import Site
from tests.world.waiting import eventually


@pytest.fixture
def site(broker, tmp_path):
    python = openvino.python()
    with Site(broker, tmp_path, accelerators={"compiled": "all"}) as site:
        site.python = python
        yield site.start()


def serving(site, release):
    def there():
        active = site.model("m").get("active") or {}
        return active if active.get("release") == release and active.get("provider") else None

    return eventually(there, 30)


@pytest.mark.soak
def test_a_second_provider_is_chosen_proven_and_swapped_to_and_from_with_nothing_lost(
    site, tmp_path
):
    """[accelerators-2.1] [accelerators-2.2] [accelerators-3.1] [accelerators-4.1]"""
    named = {"providers": ["openvino", "cpu"], "require": "accelerated"}
    tolerant = {"rtol": 1e-3, "atol": 1e-4}
    auto = {"providers": ["auto"]}
    packages = [
        zoo.mlp(tmp_path / "named", name="m", bias=1.0, runtime=named, golden=tolerant),
        zoo.mlp(tmp_path / "back", name="m", bias=2.0),
        zoo.mlp(tmp_path / "small", name="m", bias=3.0, runtime=auto, golden=tolerant),
        zoo.pooled(tmp_path / "wide", name="m", runtime=auto, golden=tolerant),
    ]
    site.deploy(zoo.mlp(tmp_path / "first", name="m"))
    ran = []
    with Load(site, 0.05) as load:
        for package in packages:
            ran.append(serving(site, site.deploy(package)))
            site.scored("m", len(site.book("m").rows) + 40)
    assert site.scored("m", load.sent).check() == load.sent
    assert [(a["provider"], a["wanted"]) for a in ran] == [
        ("openvino", "openvino"),
        ("cpu", "cpu"),
        ("cpu", "cpu"),
        ("openvino", "openvino"),
    ]
    assert ran[0]["placement"]["nodes"] == ran[0]["placement"]["time"] == {"openvino": 1.0}
    for one in ran[2:]:
        trials = {trial["provider"]: trial for trial in one["placement"]["trials"]}
        assert set(trials) == {"cpu", "openvino"}
        assert min(trials.values(), key=lambda t: t["sample_ms"])["provider"] == one["provider"]
    print(f"{load.sent} readings, 0 lost; small: {ran[2]['placement']['trials']}")
    print(f"wide: {ran[3]['placement']}")
    tried = site.log().count("provider.tried")
    assert tried == 4
    assert ran[3]["placement"]["compiled"] == "kept"  # by the trial of it
    site.stop()
    site.start(ready=True)
    again = serving(site, ran[3]["release"])
    assert (again["provider"], again["placement"]["compiled"]) == ("openvino", "kept")
    assert site.log().count("provider.tried") == tried  # the choice was remembered
    assert [t["provider"] for t in again["placement"]["trials"]] == ["openvino", "cpu"]
    loads = [line for line in site.log().splitlines() if "worker.loaded" in line]
    print("\n".join(line[:180] for line in loads))
