"""A second real provider, OpenVINO on the processor: chosen, proven, swapped to and from."""

import threading

import pytest

from tests.world import openvino, zoo
from tests.world.site import Site
from tests.world.waiting import eventually


def reading(n):
    return {"ts": 1_700_000_000 + n, **{f"f{i}": ((n * 7 + i * 3) % 20) / 10 - 1 for i in range(8)}}


@pytest.fixture
def site(broker, tmp_path):
    python = openvino.python()
    with Site(broker, tmp_path, accelerators={"compiled": "all"}) as site:
        site.python = python
        yield site.start()


class Load:
    """Readings without a pause, until told to stop."""

    def __init__(self, site):
        self.site, self.sent, self._stop = site, 0, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._stop.is_set():
            self.site.readings(reading(n) for n in range(self.sent, self.sent + 20))
            self.sent += 20
            self._stop.wait(0.05)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def test_a_second_provider_is_chosen_proven_and_swapped_to_and_from_with_nothing_lost(
    site, tmp_path
):
    """[accelerators-2.1] [accelerators-3.1] [accelerators-4.1]"""
    cpu = zoo.mlp(tmp_path / "cpu", name="m", golden={"rtol": 1e-3, "atol": 1e-4})
    wishes = {"providers": ["openvino", "cpu"], "require": "accelerated"}
    other = zoo.mlp(tmp_path / "ov", name="m", bias=1.0, runtime=wishes)
    back = zoo.mlp(tmp_path / "back", name="m", bias=2.0)
    auto = zoo.mlp(tmp_path / "auto", name="m", bias=3.0, runtime={"providers": ["auto"]})
    ran = []
    site.deploy(cpu)
    with Load(site) as load:
        for package in (other, back, auto):
            release = site.deploy(package)
            active = eventually(
                lambda release=release: (
                    (a := site.model("m").get("active") or {}).get("release") == release and a
                ),
                10,
            )
            ran.append((active["provider"], active["wanted"]))
            seen = len(site.book("m").rows)
            site.scored("m", seen + 40)
    books = site.scored("m", load.sent)
    assert books.check() == load.sent
    assert ran[:2] == [("openvino", "openvino"), ("cpu", "cpu")]
    placed = active["placement"]
    trials = {trial["provider"]: trial for trial in placed["trials"]}
    assert set(trials) == {"cpu", "openvino"}
    assert all(not trial["why"] and trial["sample_ms"] > 0 for trial in trials.values()), trials
    fastest = min(trials.values(), key=lambda trial: trial["sample_ms"])
    assert trials[ran[2][0]]["sample_ms"] <= fastest["sample_ms"] * 1.01
    assert sum(placed["nodes"].values()) == pytest.approx(1)
    print(f"{load.sent} readings, 0 lost; {ran}; {trials}")
