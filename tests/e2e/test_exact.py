"""What the agent publishes is what ONNX Runtime computes, bit for bit.

Five models on one stream, readings of several sensors interleaved, through MQTT; beside them ONNX
Runtime itself, in this process, on the same float32 inputs.  A batch of another size may sum in
another order, so where a model sums, the reference runs the very batches that the agent ran: each
message is one.
"""

import json
import time

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper

from tests.world import zoo
from tests.world.broker import Broker
from tests.world.pack import constant, model, tensor, write
from tests.world.site import Books, Site, arrived
from tests.world.waiting import eventually

SENSORS = ["p1", "p2", "p3", "p4", "p5"]
READINGS = 6000
BURST, BURSTS_A_SECOND = 250, 5  # each burst is many batches of a stateful model
LENGTH = 16  # of the cnn's windows
FIELDS = ["f0", "f1", "f2", "f3", "temp", "vib"]


class Messages(Books):
    """Books that remember which rows came together."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def take(self, document):
        self.batches.append((document["seq"], document["seq"] + len(document["key"])))
        super().take(document)

    def scores(self):
        """[n] or [n, k], by seq."""
        return np.array([self.rows[seq][2] for seq in range(len(self.rows))], np.float32)

    def keys(self):
        return [self.rows[seq][0] for seq in range(len(self.rows))]


def smoother(folder, **members):
    """x, level [n, 1] -> y = x - level; level_out = level + y / 10: each sensor's own slow mean."""
    nodes = [
        helper.make_node("Sub", ["x", "level"], ["y"]),
        helper.make_node("Mul", ["y", "tenth"], ["step"]),
        helper.make_node("Add", ["level", "step"], ["level_out"]),
    ]
    column = ["n", 1]
    made = model(
        nodes,
        [tensor("x", "f4", column), tensor("level", "f4", column)],
        [tensor("y", "f4", column), tensor("level_out", "f4", column)],
        [constant("tenth", 0.1)],
    )
    document = zoo.manifest(1, state={"level": "level_out"}, **members)
    return write(folder, made, document, {"x": zoo.rows(1), "level": zoo.rows(1, seed=1)})


@pytest.fixture(scope="module")
def readings():
    """Sensors as numbers [n], values float32 [n, FIELDS]."""
    rng = np.random.default_rng(7)
    sensors = rng.integers(0, len(SENSORS), READINGS)
    return sensors, rng.normal(size=(READINGS, len(FIELDS))).astype(np.float32)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    return {
        "stateful": smoother(folder / "stateful", name="stateful"),
        "inputs": zoo.two_inputs(folder / "inputs", name="inputs"),
        "cnn": zoo.cnn(folder / "cnn", length=LENGTH, name="cnn"),
        "columns": zoo.columns(folder / "columns", name="columns"),
        "classes": zoo.classifier(folder / "classes", name="classes"),
    }


@pytest.fixture(scope="module")
def scored(packages, readings, tmp_path_factory):
    """Books by model; the stateful one was swapped for its second version in mid-stream."""
    folder = tmp_path_factory.mktemp("site")
    sensors, values = readings
    with Broker() as broker, Site(broker, folder) as site:
        site.start()
        for name, package in packages.items():
            site.books[name] = Messages()
            site.desire(name, site.add(package))
        for name in packages:
            site.committed(name, site.wanted[name]["release"])
        second = smoother(folder / "second", name="stateful", description="the second version")
        release = site.add(second)
        for n in range(READINGS):
            if n == READINGS // 5:
                site.desire("stateful", release)
            if n == READINGS * 4 // 5:  # on a slow machine the stream waits for the swap
                eventually(lambda: _active(site, "stateful") == release, 60)
            fields = dict(zip(FIELDS, map(float, values[n]), strict=True))
            body = json.dumps({"ts": 1_700_000_000 + n, **fields}).encode()
            last = site.publish(f"plant/{SENSORS[sensors[n]]}", body, wait=False)
            if n % BURST == BURST - 1:
                arrived(last, 30)
                time.sleep(1 / BURSTS_A_SECOND)
        windows = int((np.bincount(sensors) // LENGTH).sum())
        for name in packages:
            site.scored(name, windows if name == "cnn" else READINGS)
        site.committed("stateful", release)
        for name in packages:
            assert site.book(name).check() == (windows if name == "cnn" else READINGS)
        yield site.books


def _active(site, name):
    return site.model(name)["active"]["release"]


def session(package):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(package / "model.onnx", options, ["CPUExecutionProvider"])


def by_batch(package, books, feed):
    """Every output over all rows, run in the batches that the agent ran."""
    runs = session(package)
    parts = [
        runs.run(None, {name: rows[a:b] for name, rows in feed.items()})
        for a, b in sorted(books.batches)
    ]
    names = [output.name for output in runs.get_outputs()]
    return dict(zip(names, map(np.concatenate, zip(*parts, strict=True)), strict=True))


def assert_same_bits(got, want):
    assert got.shape == want.shape
    assert got.dtype == want.dtype == np.float32
    differ = np.flatnonzero(got.view(np.uint32) != want.view(np.uint32))
    assert not len(differ), f"{len(differ)} differ, first {got[differ[:3]]} for {want[differ[:3]]}"


def test_a_stateful_model_carries_each_sensors_state_through_batches_and_a_swap(
    scored, packages, readings
):
    """[streams-2.2]"""
    sensors, values = readings
    books = scored["stateful"]
    assert len({row[3] for row in books.rows.values()}) == 2, "the swap fell outside the stream"
    assert max(b - a for a, b in books.batches) > 1, "no batch held several sensors"
    assert books.keys() == [SENSORS[n] for n in sensors]
    runs, level, want = session(packages["stateful"]), {}, []
    for sensor, x in zip(sensors.tolist(), values[:, :1], strict=True):
        feed = {"x": x[None], "level": level.get(sensor, np.zeros((1, 1), np.float32))}
        y, level[sensor] = runs.run(["y", "level_out"], feed)
        want.append(y[0, 0])
    assert_same_bits(books.scores(), np.array(want, np.float32))


def test_each_input_of_a_model_gets_its_own_features(scored, packages, readings):
    """[streams-2.1]"""
    _, values = readings
    feed = {"a": values[:, :2].copy(), "b": values[:, 2:3].copy()}
    want = by_batch(packages["inputs"], scored["inputs"], feed)["y"][:, 0]
    assert_same_bits(scored["inputs"].scores(), want)


def test_one_scalar_tensor_per_feature_gives_the_same_bits(scored, packages, readings):
    """[streams-2.1]"""
    _, values = readings
    feed = {"temp": values[:, 4:5].copy(), "vib": values[:, 5:6].copy()}
    want = by_batch(packages["columns"], scored["columns"], feed)["y"][:, 0]
    assert_same_bits(scored["columns"].scores(), want)


def test_windows_reach_a_cnn_whole_and_in_order(scored, packages, readings):
    """[streams-2.1]"""
    sensors, values = readings
    open_windows, windows, keys, times = {}, [], [], []
    for n, sensor in enumerate(sensors.tolist()):
        window = open_windows.setdefault(sensor, [])
        window.append(values[n, :2])
        if len(window) == LENGTH:
            windows.append(np.array(open_windows.pop(sensor)))
            keys.append(SENSORS[sensor])
            times.append(1_700_000_000.0 + n)
    books = scored["cnn"]
    assert books.keys() == keys
    assert [books.rows[seq][1] for seq in range(len(keys))] == times
    want = by_batch(packages["cnn"], books, {"x": np.array(windows)})["y"][:, 0]
    assert_same_bits(books.scores(), want)


def test_a_classifier_gives_its_score_and_its_label(scored, packages, readings):
    """[streams-2.1]"""
    _, values = readings
    books = scored["classes"]
    want = by_batch(packages["classes"], books, {"x": values[:, :4].copy()})
    assert_same_bits(books.scores(), want["probabilities"][:, 1].copy())
    names = np.array(["ok", "worn", "broken"])[want["label"]]
    assert [books.labels[seq] for seq in range(READINGS)] == names.tolist()
    assert set(names) == {"ok", "worn", "broken"}
