"""Trains the four versions of `pump-anomaly` that the demo deploys; they lie in models/, committed.

    v1  a decent start: how far a reading lies from what healthy pumps can do (linear; PCA residual)
    v2  better: a small network trained on wear itself; it tells wear while v1 still sleeps
    v3  bad, and looks good: trained on a test bench that ran at full speed only, with a logarithm
        of speed inside.  It reproduces its own golden outputs; on the plant, whose pumps also run
        slowly, it answers NaN.  Probation takes it out.
    v4  not what was tested: its golden outputs were recorded with other weights.  Preflight
        refuses it.

    python examples/pump/make_models.py [FOLDER]

Training is numpy in float64 and deterministic; `onnx` writes the files, onnxruntime records the
golden outputs.  Neither numpy's training nor `onnx` is needed to run the demo.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from pump import SIGNALS, WORN, Pump
from training import Array, Net, train

HERE = Path(__file__).resolve().parent
OPSET, IR = 17, 8
SEED = 11
GOLDEN_SAMPLES = 16
SPEED = SIGNALS.index("speed_rpm")
HEALTHY = 0.3  # wear below which v1 is to be silent
COMPONENTS = 4
BENCH_RPM = 1330.0  # the test bench never ran slower
RANGES = [[-20, 140], [0, 50], [-1, 5], [-1, 10], [0, 120], [0, 40], [0, 1800], [-20, 160]]
UNITS = ["°C", "mm/s", "bar", "bar", "m³/h", "A", "1/min", "°C"]


@dataclass(frozen=True)
class Recorded:
    """Readings [n, 8] and the wear [n] of the pump that gave them."""

    rows: Array
    wear: Array

    def only(self, mask: Array) -> "Recorded":
        """The readings where `mask` [n] is true."""
        return Recorded(self.rows[mask], self.wear[mask])


@dataclass(frozen=True)
class Scale:
    """z = (row - mean) / std, as the agent does it before the model sees a row."""

    mean: Array
    std: Array

    @classmethod
    def of(cls, rows: Array) -> "Scale":
        """The scale that makes `rows` standard, rounded as the manifest will say it."""
        return cls(rows.mean(axis=0).round(4), rows.std(axis=0).round(4))

    def __call__(self, rows: Array) -> Array:
        """Rows [n, 8] as the model sees them."""
        return (rows - self.mean) / self.std


def record(seed: int, pumps: int = 24, seconds: int = 3000, every: int = 30) -> Recorded:
    """What `pumps` pumps of every age said over `seconds`."""
    rows, wear = [], []
    for i in range(pumps):
        age = 0.05 + 1.0 * i / (pumps - 1)
        pump = Pump(f"p{i}", seed, age, life_s=1e9)
        for _ in range(seconds // every):
            pump.step(every)
            reading = pump.reading()
            rows.append([reading[name] for name in SIGNALS])
            wear.append(pump.wear)
    return Recorded(np.array(rows), np.array(wear))


# ---- the models as ONNX --------------------------------------------------------------------------


def residual_model(z: Array) -> onnx.ModelProto:
    """v1: 1 - 2^(-e/q), e the squared distance from the plane of healthy readings `z`, q the e that
    one healthy reading in a thousand exceeds; so 0.5 is that border.
    """
    _, _, axes = np.linalg.svd(z - z.mean(axis=0), full_matrices=False)
    plane = axes[:COMPONENTS]
    off = np.eye(z.shape[1]) - plane.T @ plane
    border = np.quantile((((z - z.mean(axis=0)) @ off) ** 2).sum(axis=1), 0.999)
    nodes = [
        helper.make_node("Sub", ["x", "centre"], ["d"]),
        helper.make_node("MatMul", ["d", "off"], ["r"]),
        helper.make_node("Mul", ["r", "r"], ["rr"]),
        helper.make_node("ReduceSum", ["rr", "axis"], ["e"], keepdims=1),
        helper.make_node("Mul", ["e", "rate"], ["u"]),
        helper.make_node("Exp", ["u"], ["p"]),
        helper.make_node("Sub", ["one", "p"], ["score"]),
    ]
    constants = {
        "centre": z.mean(axis=0),
        "off": off,
        "axis": np.array([1], np.int64),
        "rate": np.array(-np.log(2.0) / border),
        "one": np.array(1.0),
    }
    return model(nodes, constants)


def net_model(net: Net, *, bench: tuple[float, float] | None = None) -> onnx.ModelProto:
    """v2: the network.  `bench`, for v3: where the standardised speed of the bench begins, and how
    much the logarithm of what lies above it counts; below it there is no logarithm, but NaN.
    """
    nodes, constants, last = [], {}, len(net.weights) - 1
    source = "x"
    for i, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        constants |= {f"w{i}": weight, f"b{i}": bias}
        nodes.append(helper.make_node("Gemm", [source, f"w{i}", f"b{i}"], [f"g{i}"]))
        if i != last:
            nodes.append(helper.make_node("Tanh", [f"g{i}"], [f"t{i}"]))
        source = f"t{i}"
    logit = f"g{last}"
    if bench is not None:
        start, share = bench
        constants |= {"column": np.array([SPEED], np.int64)}
        constants |= {"start": np.array(start), "share": np.array(share)}
        nodes += [
            helper.make_node("Gather", ["x", "column"], ["speed"], axis=1),
            helper.make_node("Sub", ["speed", "start"], ["above"]),
            helper.make_node("Log", ["above"], ["log"]),
            helper.make_node("Mul", ["log", "share"], ["extra"]),
            helper.make_node("Add", [logit, "extra"], ["sum"]),
        ]
        logit = "sum"
    nodes.append(helper.make_node("Sigmoid", [logit], ["score"]))
    return model(nodes, constants)


def model(nodes: list[onnx.NodeProto], constants: dict[str, Array]) -> onnx.ModelProto:
    """A graph from `x` [batch, 8] to `score` [batch, 1]."""
    tensors = []
    for name, value in constants.items():
        dtype = np.int64 if value.dtype == np.int64 else np.float32
        tensors.append(numpy_helper.from_array(np.asarray(value, dtype), name))
    graph = helper.make_graph(
        nodes,
        "pump-anomaly",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", len(SIGNALS)])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch", 1])],
        tensors,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    made.ir_version, made.producer_name = IR, "examples/pump"
    made.producer_version = ""
    onnx.checker.check_model(made, full_check=True)
    return made


# ---- the packages --------------------------------------------------------------------------------

SHADOW = 'shadow = { windows = 100, agreement = 0.6, max = "1m" }\n'
MANIFEST = """\
name = "pump-anomaly"
description = "{description}"
tags = {{ area = "pumps", example = "true" }}

[features]                              # as the pumps' sensors name them
names = [{names}]
units = [{units}]
ranges = {ranges}
missing = "hold"

[features.scale]
mean = {mean}
std = {std}

[output]
score = {{ tensor = "score", threshold = 0.5 }}

[runtime]
providers = ["cpu"]
threads = 1

[golden]
file = "golden.npz"
rtol = 1e-3
atol = 1e-4

[rollout]                               # small, so that a demo can be watched
{shadow}probation = {{ windows = 200, time = "5s", errors = 0, latency_ratio = 5.0 }}
"""


@dataclass(frozen=True)
class Version:
    """One package to be."""

    name: str
    description: str
    made: onnx.ModelProto
    scale: Scale
    samples: Array
    shadow: str = ""
    other: onnx.ModelProto | None = None  # whose golden outputs it gets instead of its own

    def write(self, out: Path) -> None:
        """Model, manifest and golden samples."""
        folder = out / self.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(self.made.SerializeToString(deterministic=True))
        text = MANIFEST.format(
            description=self.description,
            names=", ".join(f'"{name}"' for name in SIGNALS),
            units=", ".join(f'"{unit}"' for unit in UNITS),
            ranges=RANGES,
            mean=[float(v) for v in self.scale.mean],
            std=[float(v) for v in self.scale.std],
            shadow=self.shadow,
        )
        (folder / "model.toml").write_text(text, encoding="utf-8")
        x = self.scale(self.samples).astype(np.float32)
        np.savez(
            folder / "golden.npz", **{"in:x": x, "out:score": answer(self.other or self.made, x)}
        )


def answer(made: onnx.ModelProto, x: Array) -> Array:
    """What onnxruntime says."""
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    (score,) = session.run(["score"], {"x": x})
    return np.asarray(score)


def make(out: Path) -> None:
    """Make all four packages under `out`."""
    seen = record(SEED)
    healthy = seen.only(seen.wear < HEALTHY)
    bench = seen.only(seen.rows[:, SPEED] > BENCH_RPM)
    v1, v2, v3 = (Scale.of(part.rows) for part in (healthy, seen, bench))
    net = {
        name: train(scale(part.rows), (part.wear > WORN).astype(float), SEED + i)
        for i, (name, part, scale) in enumerate(
            [("v2", seen, v2), ("v3", bench, v3), ("v4", seen, v2)]
        )
    }
    start = float(v3(bench.rows)[:, SPEED].min()) - 0.05
    samples, on_bench = _spread(seen.rows), _spread(bench.rows)
    good = net_model(net["v2"])
    for version in (
        Version(
            "v1",
            "Distance from healthy pumps, linear",
            residual_model(v1(healthy.rows)),
            v1,
            samples,
        ),
        Version("v2", "Wear, by a small network", good, v2, samples, SHADOW),
        Version(
            "v3",
            "Wear, as seen on the test bench",
            net_model(net["v3"], bench=(start, 0.2)),
            v3,
            on_bench,
        ),
        Version(
            "v4",
            "Wear, by a network trained anew",
            net_model(net["v4"]),
            v2,
            samples,
            SHADOW,
            other=residual_model(v1(healthy.rows)),
        ),
    ):
        version.write(out)


def _spread(rows: Array) -> Array:
    """Golden samples from all ages."""
    return rows[np.linspace(0, len(rows) - 1, GOLDEN_SAMPLES).astype(int)]


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "models")
