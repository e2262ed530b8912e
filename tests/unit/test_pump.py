"""The pump example: its physics makes sense, and its packages are what the script makes."""

import importlib.util
import itertools
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import config
from agent.core import manifest

HERE = Path(__file__).resolve().parents[2] / "examples" / "pump"
SIZE_MAX = 50_000


def _module(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


pump = _module("pump")
VERSIONS = ("v1", "v2", "v3", "v4")


def run(wear, seconds=1200, seed=3, every=10):
    """Readings of one pump whose wear stands still."""
    made = pump.Pump("p", seed, wear, life_s=1e12)
    for _ in range(seconds // every):
        made.step(every)
        yield made.reading()


def mean(wear, signal):
    return statistics.mean(reading[signal] for reading in run(wear))


# ---- the physics ---------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_readings():
    def first(seed):
        endless = pump.readings(pump.plant(3, seed), start=0.0, dt=0.05, pace=20.0)
        return [reading for _, reading in itertools.islice(endless, 60)]

    assert first(7) == first(7)
    assert first(7) != first(8)


@settings(max_examples=25)
@given(st.integers(0, 99), st.floats(0.05, 1.1), st.floats(0.05, 500.0))
def test_no_age_and_no_step_leaves_the_ranges_of_the_manifest(seed, wear, step):
    ranges = manifest.parse((HERE / "models" / "v1" / "model.toml").read_bytes()).features.ranges
    made = pump.Pump("p", seed, wear, life_s=5000.0)
    for _ in range(10):
        made.step(step)
        reading = made.reading()
        for name, (low, high) in zip(pump.SIGNALS, ranges, strict=True):
            assert low < reading[name] < high, (name, reading[name])


@pytest.mark.parametrize("signal", ["vib_rms", "bearing_temp", "current"])
def test_a_worn_pump_shakes_more_runs_hotter_and_draws_no_less(signal):
    assert mean(0.05, signal) <= mean(0.5, signal) <= mean(1.0, signal)
    if signal != "current":
        assert mean(1.0, signal) > 1.3 * mean(0.05, signal)


def test_a_worn_pump_moves_less_water():
    assert mean(0.9, "flow") < 0.95 * mean(0.05, "flow")
    assert mean(0.9, "pressure_out") < 0.97 * mean(0.05, "pressure_out")


def test_flow_follows_speed_and_head_its_square():
    readings = list(run(0.05, seconds=6000))
    slow = [r for r in readings if r["speed_rpm"] < 1100]
    fast = [r for r in readings if r["speed_rpm"] > 1400]
    assert slow and fast

    def ratio(of):
        return statistics.mean(map(of, fast)) / statistics.mean(map(of, slow))

    speed = ratio(lambda r: r["speed_rpm"])
    assert ratio(lambda r: r["flow"]) > speed  # the static head takes its share at low speed
    assert ratio(lambda r: r["current"]) > speed**2
    assert 1.0 < ratio(lambda r: r["pressure_out"]) < speed**2 * 1.2


def test_an_empty_supply_tank_makes_the_pump_cavitate_and_shake():
    def shaken(level):
        made = pump.Pump("p", 1, life_s=1e12)
        readings = []
        for _ in range(300):
            made._level = level
            made.step(1.0)
            readings.append(made.reading()["vib_rms"])
        return statistics.mean(readings)

    assert shaken(0.4) > 1.5 * shaken(1.0)


def test_a_pump_goes_from_healthy_over_worn_to_fault_and_is_overhauled():
    made = pump.Pump("p", 5, life_s=4000.0)
    stages = []
    while not made.overhauls:
        made.step(10.0)
        stages.append(made.stage)
        assert len(stages) < 2000
    assert [stage for stage, _ in itertools.groupby(stages)] == [
        "healthy",
        "worn",
        "fault",
        "healthy",
    ]


def test_a_plant_has_one_pump_that_is_half_worn():
    stages = [made.stage for made in pump.plant(3, 7)]
    assert stages == ["healthy", "healthy", "worn"]
    assert [made.name for made in pump.plant(3, 7)] == ["p1", "p2", "p3"]


def test_event_time_goes_on_by_the_rate_whatever_the_pace():
    endless = pump.readings(pump.plant(2, 7), start=100.0, dt=0.5, pace=60.0)
    times = [reading["ts"] for _, reading in itertools.islice(endless, 6)]
    assert times == [100.0, 100.0, 100.5, 100.5, 101.0, 101.0]


# ---- the packages --------------------------------------------------------------------------------


def scores(folder, wear):
    """What the version in `folder` says of pumps of that age."""
    features = manifest.parse((folder / "model.toml").read_bytes()).features
    rows = np.array(
        [[r[n] for n in features.names] for s in (51, 52, 53) for r in run(wear, seed=s)]
    )
    scaled = (rows - np.array(features.scale.mean)) / np.array(features.scale.std)
    return _score(folder, scaled.astype(np.float32))


def _score(folder, x):
    session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return session.run(["score"], {"x": x})[0][:, 0]


def alarms(version, wear):
    return float(np.mean(scores(HERE / "models" / version, wear) >= 0.5))


@pytest.mark.parametrize("version", VERSIONS)
def test_each_committed_package_is_small_and_says_what_it_is(version):
    folder = HERE / "models" / version
    made = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(made, full_check=True)
    assert (made.ir_version, made.opset_import[0].version) == (8, 17)
    assert sum(path.stat().st_size for path in folder.iterdir()) < SIZE_MAX
    told = manifest.parse((folder / "model.toml").read_bytes())
    assert told.name == "pump-anomaly"
    assert told.features.names == pump.SIGNALS
    assert told.output.score.threshold == 0.5
    assert told.rollout.probation.windows == 200


def test_v2_tells_wear_while_v1_still_sleeps_and_neither_cries_wolf():
    assert alarms("v1", 0.1) == alarms("v2", 0.1) == 0.0
    assert alarms("v1", 0.45) < 0.1
    assert alarms("v2", 0.45) > 0.9
    assert alarms("v1", 0.8) == alarms("v2", 0.8) == 1.0


def test_v3_reproduces_its_golden_outputs_and_says_nan_on_the_plant():
    folder = HERE / "models" / "v3"
    golden = np.load(folder / "golden.npz")
    assert np.isfinite(golden["out:score"]).all()
    np.testing.assert_allclose(
        _score(folder, golden["in:x"]), golden["out:score"][:, 0], rtol=1e-3, atol=1e-4
    )
    assert np.isnan(scores(folder, 0.1)).mean() > 0.2


def test_v4_does_not_reproduce_its_golden_outputs():
    folder = HERE / "models" / "v4"
    golden = np.load(folder / "golden.npz")
    assert np.abs(_score(folder, golden["in:x"]) - golden["out:score"][:, 0]).max() > 0.1


def test_the_script_makes_the_packages_that_are_committed(tmp_path):
    command = [sys.executable, HERE / "make_models.py", tmp_path]
    subprocess.run(command, check=True, cwd=HERE, env={"PYTHONPATH": "", "PATH": ""})
    for version in VERSIONS:
        ours, theirs = tmp_path / version, HERE / "models" / version
        ours_told, theirs_told = (
            manifest.parse((folder / "model.toml").read_bytes()) for folder in (ours, theirs)
        )
        assert ours_told == theirs_told
        new, old = np.load(ours / "golden.npz"), np.load(theirs / "golden.npz")
        assert sorted(new) == sorted(old) == ["in:x", "out:score"]
        for name in old:
            np.testing.assert_allclose(new[name], old[name], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(
            _score(ours, old["in:x"]), _score(theirs, old["in:x"]), rtol=1e-3, atol=1e-3
        )


# ---- the configuration ---------------------------------------------------------------------------


def test_the_examples_configuration_is_taken():
    told = config.load(HERE / "agent.toml", {})
    assert told.mqtt.url == "embedded"
    assert told.stream[0].topic == "plant/line1/pump/+/telemetry"
    assert told.stream[0].key == "{3}"
