"""A first `model.toml` out of what a model says of its inputs and outputs, with comments to go on.

It is a guess for an author to read: names, units and ranges are not in an ONNX file.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from agent.core.errors import RefusedError, UnfitError
from agent.core.manifest import parse
from agent.worker.admission import numpy_name
from agent.worker.making import FATAL_ONLY

FEATURES_SHOWN_MAX = 64  # beyond it one name per line would bury the rest
WINDOW_ROWS = 64  # where the model takes any number
_STATE_OF = ("{}_out", "{}_n", "{}_next", "new_{}", "next_{}", "out_{}", "{}.out")

_HEAD = """\
# What this model is, needs and promises.  `edge-agent model build` checks it against the model.
# Guessed from {source}; look at everything below before you publish it.

name = {name}
description = ""
# tags = {{ area = "pumps" }}

[features]  # what the model wants of a reading, in input order: names of your stream's fields
names = {features}
# units = ["°C", …]                    # one per name
# ranges = [[-20, 120], …]             # outside: rejected and counted, not scored
missing = "hold"                       # hold | nan | reject | a number; one, or one per name
# scale = {{ mean = [61.2, …], std = [7.9, …] }}   # if the model was trained on (x - mean) / std
"""
_TAIL = """
[runtime]
providers = ["cpu"]                    # in order of wish: tensorrt, cuda, directml, openvino, cpu
require = "any"                        # any | accelerated | a provider
threads = 1
# latency_ms_p99 = 20                  # what you promise

[golden]  # `edge-agent model build` records it; a device must reproduce it
file = "golden.npz"
rtol = 1e-3
atol = 1e-4

# [rollout]  # what a new version must show on a device; a deployment may override each
# shadow = { windows = 200, agreement = 0.98, max = "10m" }
# canary = { share = 0.1, windows = 200 }
# probation = { windows = 1000, time = "5m", errors = 0, latency_ratio = 1.5 }
"""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output: numpy's name for its dtype (None: no tensor of one), and its shape."""

    name: str
    dtype: str | None
    shape: tuple[int | str | None, ...]

    @property
    def is_float(self) -> bool:
        """Whether it could be a score."""
        return self.dtype in ("float16", "float32", "float64")

    def size(self, axis: int) -> int | None:
        """The fixed size of an axis; None if it takes any."""
        size = self.shape[axis]
        return size if isinstance(size, int) else None


def tensors_of(model: Path) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and outputs of the model.

    Raises:
        UnfitError: it does not load here.
    """
    options = ort.SessionOptions()
    options.log_severity_level = FATAL_ONLY
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base but this
        why = str(error).splitlines()[0][:300]
        raise UnfitError(f"{model} does not load: {why}") from error
    inputs, outputs = (
        [Tensor(node.name, numpy_name(node.type), tuple(node.shape)) for node in nodes]
        for nodes in (session.get_inputs(), session.get_outputs())
    )
    return inputs, outputs


def manifest_text(name: str, source: str, inputs: list[Tensor], outputs: list[Tensor]) -> str:
    """The commented manifest, one that can be parsed.

    Raises:
        RefusedError: no manifest can feed such inputs, or take such outputs; the text says why.
    """
    state = _state(inputs, outputs)
    fed = [tensor for tensor in inputs if tensor.name not in state]
    for tensor in fed:
        if tensor.dtype is None or tensor.dtype == "str" or not 1 <= len(tensor.shape) <= 3:
            raise RefusedError(
                f"input {tensor.name} cannot be made of sensor readings; it must be a tensor of"
                " numbers of the shape [batch, feature] or [batch, window, feature]"
            )
    if not fed:
        raise RefusedError("the model has no input that readings could feed")
    features, parts = _features(fed)
    text = _HEAD.format(
        source=source, name=json.dumps(name), features=_listed(features, indent=len(features) > 8)
    )
    text += "".join(parts)
    if state:
        rows = "\n".join(f"{_key(k)} = {json.dumps(v)}" for k, v in state.items())
        text += f"\n[state]  # carried from call to call, per sensor\n{rows}\n"
    text += _output(outputs, set(state.values())) + _TAIL
    parse(text.encode())
    return text


def _state(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> dict[str, str]:
    """Inputs that an output of like name, type and shape looks to feed at the next call."""
    there = {tensor.name: tensor for tensor in outputs}
    found = {}
    for tensor in inputs:
        for pattern in _STATE_OF:
            twin = there.get(pattern.format(tensor.name))
            if twin and twin.dtype == tensor.dtype and len(twin.shape) == len(tensor.shape):
                found[tensor.name] = twin.name
                break
    return found


def _features(fed: Sequence[Tensor]) -> tuple[list[str], list[str]]:
    """Names of the features, and the sections that say how they become tensors."""
    if len(fed) > 1 and all(len(t.shape) == 1 or t.shape[1:] == (1,) for t in fed):
        types = "".join(
            f"{_key(t.name)} = {{ dtype = {json.dumps(t.dtype)} }}\n"
            for t in fed
            if t.dtype != "float32"
        )
        section = '\n[input]\nlayout = "columns"  # one scalar tensor per feature, by its name\n'
        return [t.name for t in fed], [section, types]
    sections = []
    windows = {t.size(1) for t in fed if len(t.shape) == 3}
    if len({len(t.shape) == 3 for t in fed}) > 1 or len(windows) > 1:
        raise RefusedError(
            "the inputs want windows of different lengths; give them one in the model"
        )
    if windows:
        rows = windows.pop()
        why = "" if rows else "  # the model takes any number"
        sections.append(
            "\n[window]  # readings of one sensor that are scored together\n"
            'kind = "tumbling"                      # tumbling | sliding | session | count\n'
            f'size = "{rows or WINDOW_ROWS}"{why}\n'
            '# step = "16"                          # of a sliding window\n'
        )
    features: list[str] = []
    inputs = ["\n[input]  # how features become tensors\n"]
    for tensor in fed:
        width = 1 if len(tensor.shape) == 1 else tensor.size(len(tensor.shape) - 1) or 1
        own = [f"f{len(features) + i}" for i in range(width)]
        features += own
        inputs.append(
            f"{_key(tensor.name)} = {{ features = {_listed(own)},"
            f" dtype = {json.dumps(tensor.dtype)} }}\n"
        )
    if len(fed) > 1 or fed[0].dtype != "float32":
        sections += inputs
    return features, sections


def _output(outputs: Sequence[Tensor], state: set[str]) -> str:
    scores = [t for t in outputs if t.is_float and t.name not in state]
    if not scores:
        raise RefusedError(
            "the model has no output that is a tensor of floats, which could be the score;"
            " export a classifier with zipmap=False"
        )
    score = scores[0]
    columns = score.size(1) if len(score.shape) > 1 else 1
    column = f", column = {columns - 1}" if columns and columns > 1 else ""
    text = (
        "\n[output]\n"
        f"score = {{ tensor = {json.dumps(score.name)}{column} }}"
        "  # threshold = 0.8 makes an alarm of it\n"
    )
    label = next((t for t in outputs if t.dtype in ("int64", "int32", "str")), None)
    if label is not None and label.name not in state:
        text += (
            f"label = {{ tensor = {json.dumps(label.name)} }}"
            '  # names = ["ok", "worn"] gives the classes names\n'
        )
    return text


def _listed(names: Sequence[str], *, indent: bool = False) -> str:
    if not indent or len(names) > FEATURES_SHOWN_MAX:
        return json.dumps(list(names), ensure_ascii=False)
    rows = [
        ", ".join(json.dumps(n, ensure_ascii=False) for n in names[i : i + 8])
        for i in range(0, len(names), 8)
    ]
    return "[\n    " + ",\n    ".join(rows) + ",\n]"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)
