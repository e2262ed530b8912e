"""What cannot work on this device is refused before its weights are fetched."""

import hashlib

import pytest

from tests.world import zoo
from tests.world.main_job import reading
from tests.world.site import Site
from tests.world.waiting import eventually

SPEEDY = {"names": [*(f"f{i}" for i in range(7)), "speed"]}
CASES = (
    ({"runtime": {"memory_mb": 900_000}}, "it needs 900000 MB of memory; this device has"),
    ({"runtime": {"require": "cuda", "providers": ["cuda"]}}, "it requires cuda and this device"),
    ({"features": SPEEDY}, "feature speed is on no reading of the stream s; it has: f0, f1, f2"),
)


@pytest.fixture
def site(broker, tmp_path):
    with Site(broker, tmp_path) as site:
        yield site.start()


def test_what_cannot_work_here_is_unschedulable_and_its_weights_never_come(site, tmp_path):
    """[rollout-8.1] [rollout-8.2]"""
    first = site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
    site.readings(reading(n) for n in range(100))
    site.scored("m", 100)
    for number, (members, why) in enumerate(CASES, 2):
        folder = zoo.mlp(tmp_path / f"v{number}", bias=float(number), name="m", **members)
        release = site.add(folder)
        _blob(tmp_path, folder / "model.onnx").unlink()  # who asks for it waits for the weather
        site.desire("m", release)
        model = eventually(lambda why=why: why in (m := site.model("m"))["why"] and m, 20, why)
        assert model["state"] == "Unschedulable"
        assert model["active"]["release"] == first
        assert model["quarantined"] == []
    site.readings(reading(n) for n in range(100, 200))
    assert site.scored("m", 200).check() == 200


def _blob(root, file):
    """Where the repository under `root` has the bytes of `file`."""
    name = hashlib.sha256(file.read_bytes()).hexdigest()
    return next(path for path in root.rglob(name) if path.parent.parent.name == "blobs")
