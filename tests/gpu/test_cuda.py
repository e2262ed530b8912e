"""CUDA and TensorRT under the whole agent: swaps, memory, caches, and a worker killed in mid-run.

    make gpu

Needs `edge-model-agent[cuda]` (and TensorRT for its part) and a driver.  Prints its figures.
"""

import functools
import os
import shutil
import signal
import statistics
import subprocess
import time

import psutil
import pytest

from agent.worker import bench
from tests.world import zoo
from tests.world.load import Load
from tests.world.site import Site
from tests.world.waiting import eventually

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1200)]

SWAPS = int(os.environ.get("GPU_SWAPS", "100"))
MEMORY_SLACK_MB = 64.0  # the driver's own context is given back late


@functools.cache
def why_not(provider):
    return bench.probe(provider)


def need(provider):
    if why := why_not(provider):
        pytest.skip(f"NO GPU SHOWN: {provider} does not start here: {why}")


def used_mb():
    """Device memory in use, by all processes."""
    if shutil.which("nvidia-smi") is None:
        pytest.skip("NO GPU SHOWN: nvidia-smi is missing, and memory cannot be read")
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return float(subprocess.check_output(query, text=True).splitlines()[0])


@pytest.fixture
def site(broker, tmp_path):
    with Site(broker, tmp_path) as site:
        site.environ |= {
            name: value for name, value in os.environ.items() if name.startswith(("CUDA", "LD_"))
        }
        yield site.start()


def package(tmp_path, number, provider):
    wishes = {"providers": [provider], "require": provider}
    tolerant = {"rtol": 1e-2, "atol": 1e-2}  # TF32 and fused kernels
    return zoo.mlp(
        tmp_path / f"v{number}", bias=float(number), name="m", runtime=wishes, golden=tolerant
    )


def active(site):
    return site.model("m").get("active") or {}


def test_cuda_versions_are_swapped_under_load_with_nothing_lost_and_memory_comes_back(
    site, tmp_path
):
    need("cuda")
    site.deploy(package(tmp_path, 0, "cuda"))
    after_first = used_mb()
    took = []
    with Load(site, 0.02) as load:
        for number in range(1, SWAPS + 1):
            began = time.monotonic()
            site.deploy(package(tmp_path, number, "cuda"), seconds=120)
            took.append(time.monotonic() - began)
            shutil.rmtree(tmp_path / f"v{number}")
    assert site.scored("m", load.sent, seconds=60).check() == load.sent
    assert active(site)["provider"] == "cuda"
    assert active(site)["placement"]["nodes"].get("cuda", 0) > 0
    grown = eventually(
        lambda: (g := used_mb() - after_first) < MEMORY_SLACK_MB and (g or 0.1), 60, "memory"
    )
    each_s = statistics.median(took)
    print(
        f"{SWAPS} swaps under load, {load.sent} readings, 0 lost; a deploy {each_s:.1f} s (median)"
    )
    print(f"device memory {after_first:.0f} MB after the first, {grown:+.0f} MB at the end")


def test_a_worker_killed_in_mid_run_is_healed_on_the_gpu(site, tmp_path):
    need("cuda")
    site.deploy(package(tmp_path, 0, "cuda"))
    with Load(site, 0.02) as load:
        eventually(lambda: load.sent > 200, 30)
        agent = psutil.Process(site.process.pid)
        began = time.monotonic()
        for worker in agent.children():
            os.kill(worker.pid, signal.SIGKILL)
        eventually(lambda: site.model("m").get("worker_deaths"), 10)
        site.ready()
        healed_s = time.monotonic() - began
    assert site.scored("m", load.sent, seconds=60).check() == load.sent
    assert active(site)["provider"] == "cuda"
    print(f"killed in mid-run: ready {healed_s:.1f} s later on cuda; {load.sent} readings, 0 lost")


def test_an_engine_of_tensorrt_is_built_once(site, tmp_path):
    need("tensorrt")
    site.deploy(package(tmp_path, 0, "tensorrt"), seconds=900)
    first = active(site)
    assert first["placement"]["compiled"] == "built"
    assert list(site.folder.rglob("*.engine"))
    built_ms = load_ms(site)
    site.stop()
    site.start(ready=True)
    assert active(site)["provider"] == "tensorrt"
    assert active(site)["placement"]["compiled"] == "kept"
    print(f"TensorRT: built in {built_ms:.0f} ms, again from its cache in {load_ms(site):.0f} ms")


def load_ms(site):
    """Of the last worker that loaded, by the log."""
    line = [line for line in site.log().splitlines() if "worker.loaded" in line][-1]
    return float(line.split('"load_ms":')[1].split(",")[0])


def test_auto_takes_the_gpu_where_it_is_faster_and_tells_the_figures(site, tmp_path):
    need("cuda")
    wishes = {"providers": ["auto"]}
    folder = zoo.cnn(tmp_path / "auto", name="m", runtime=wishes)
    site.desire("m", site.add(folder))
    model = eventually(lambda: active(site).get("placement") and active(site), 300)
    assert {trial["provider"] for trial in model["placement"]["trials"]} >= {"cuda", "cpu"}
    print(f"auto: {model['provider']}; {model['placement']['trials']}")
