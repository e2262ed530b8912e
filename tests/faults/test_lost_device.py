"""The accelerator goes away under a running agent: healed as promised, and told while it is so."""

import json
import time

import pytest

from tests.world import pretend, zoo
from tests.world.site import Site
from tests.world.waiting import eventually

CUDA = {"providers": ["cuda", "cpu"]}


def reading(n):
    return {"ts": 1_700_000_000 + n, **{f"f{i}": ((n * 7 + i * 3) % 20) / 10 - 1 for i in range(8)}}


@pytest.fixture
def control(tmp_path):
    return tmp_path / "cuda"


@pytest.fixture
def site(broker, tmp_path, control):
    engine = {"golden_s": 0.3, "load_s_max": 4.0}
    with Site(broker, tmp_path, engine=engine, accelerators={"climb": "1s"}) as site:
        site.environ |= pretend.environ(control)
        yield site.start()


def active(site):
    return site.model("m").get("active") or {}


def on(site, provider, seconds=20):
    def there():
        one = active(site)
        return one if one.get("provider") == provider else None

    return eventually(there, seconds, f"on {provider}: {site.model('m')}")


def passed(control):
    lines = (control / "passed.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def long(fault):
    return pytest.param(fault, marks=pytest.mark.soak)


@pytest.mark.parametrize("fault", ["lost", long("removed"), long("memory"), long("wrong")])
def test_a_lost_device_costs_no_reading_and_the_agent_says_what_it_runs_on(
    site, tmp_path, control, fault
):
    """[accelerators-3.3] [accelerators-5.1] [accelerators-5.2]"""
    release = site.deploy(zoo.mlp(tmp_path / "v1", name="m", runtime=CUDA))
    placed = on(site, "cuda")["placement"]
    assert placed["nodes"] == {"cuda": 1.0}
    site.readings(reading(n) for n in range(50))
    site.scored("m", 50)
    (control / fault).touch()
    began = time.monotonic()
    site.readings(reading(n) for n in range(50, 100))
    eventually(lambda: (site.state() or {}).get("ready") is False, 10, "not ready any more")
    untrue_s = time.monotonic() - began
    fallen = on(site, "cpu")
    healed_s = time.monotonic() - began
    assert (fallen["wanted"], fallen["release"]) == ("cuda", release)
    model = site.model("m")
    assert model["state"] == "Unhealthy"
    assert "runs on cpu and not on cuda: cuda is left out: " in model["why"]
    assert not model["quarantined"]
    told = eventually(lambda: [e for e in site.events if e["type"] == "degraded"], 5)
    assert "fell from cuda to cpu" in told[-1]["why"]
    site.ready()
    site.readings(reading(n) for n in range(100, 150))
    assert site.scored("m", 150).check() == 150
    (control / fault).unlink()
    on(site, "cuda")  # it climbs back by itself
    eventually(lambda: [e for e in site.events if e["type"] == "recovered"], 5)
    eventually(lambda: site.model("m")["state"] == "Healthy")
    site.readings(reading(n) for n in range(150, 200))
    assert site.scored("m", 200).check() == 200
    print(f"{fault}: not ready {untrue_s:.1f} s after it, on the CPU after {healed_s:.1f} s")
    print("200 readings, 0 lost")


@pytest.mark.parametrize("fault", [long("hang"), "crash", long("absent")])
def test_what_goes_wrong_while_loading_on_a_provider_is_not_the_version_s_fault(
    site, tmp_path, control, fault
):
    """[accelerators-1.4] [accelerators-5.3]"""
    pretend.environ(control)
    (control / fault).touch()
    release = site.deploy(zoo.mlp(tmp_path / "v1", name="m", runtime=CUDA))
    assert active(site)["release"] == release
    assert (active(site)["provider"], active(site)["wanted"]) == ("cpu", "cuda")
    words = {
        "hang": "did not load within 4 s",
        "crash": "was killed by SIGABRT",
        "absent": "could not be started (its driver or libraries are missing",
    }
    assert words[fault] in site.model("m")["why"]
    assert not site.model("m")["quarantined"]


def test_with_require_it_is_unschedulable_and_the_old_version_keeps_running(
    site, tmp_path, control
):
    """[accelerators-1.3]"""
    pretend.environ(control)
    (control / "absent").touch()
    first = site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
    wants = {"providers": ["cuda"], "require": "cuda"}
    site.desire("m", site.add(zoo.mlp(tmp_path / "v2", bias=1.0, name="m", runtime=wants)))
    model = site.settled("m")
    assert model["state"] == "Unschedulable"
    assert "requires cuda to run on: cuda could not be started" in model["why"]
    assert not model["quarantined"]
    site.readings(reading(n) for n in range(50))
    books = site.scored("m", 50)
    assert books.check() == 50
    assert {row[3] for row in books.rows.values()} == {first}


PASSED = {
    "directml": ("DmlExecutionProvider", False, {}),
    "cuda": (
        "CUDAExecutionProvider",
        True,
        {
            "arena_extend_strategy": "kSameAsRequested",
            "cudnn_conv_algo_search": "HEURISTIC",
            "gpu_mem_limit": str(256 * 2**20),
        },
    ),
    "tensorrt": (
        "TensorrtExecutionProvider",
        True,
        {
            "trt_engine_cache_enable": "1",
            "trt_timing_cache_enable": "1",
            "trt_max_workspace_size": str(256 * 2**20),
        },
    ),
}


def test_the_constraints_of_the_table_are_what_is_really_passed(broker, tmp_path, control):
    """[accelerators-1.2] [accelerators-6.1]"""
    with Site(broker, tmp_path, accelerators={"memory_mb": 256}) as site:
        site.environ |= pretend.environ(control)
        site.start()
        for bias, provider in enumerate(PASSED):
            wishes = {"providers": [provider]}
            site.deploy(zoo.mlp(tmp_path / provider, name="m", bias=bias, runtime=wishes))
            on(site, provider)
    for provider, (name, pattern, options) in PASSED.items():
        (told, *_) = [line for line in passed(control) if line["providers"][0][0] == name]
        assert told["enable_mem_pattern"] is pattern
        assert "ORT_SEQUENTIAL" in told["execution_mode"]
        assert (told["intra_op_num_threads"], told["inter_op_num_threads"]) == (1, 1)
        assert told["session.intra_op.allow_spinning"] == "0"
        assert told["session.inter_op.allow_spinning"] == "0"
        assert told["providers"][0][1].items() >= options.items(), provider
    assert [each[0] for each in told["providers"]][1:] == [
        "CUDAExecutionProvider",
        "CPUExecutionProvider",
    ]
    path = told["providers"][0][1]["trt_engine_cache_path"]
    assert f"{site.folder}/store/compiled/" in path
    assert path.endswith("/tensorrt")
