"""Golden samples: inputs for them, made or given, and the file they are kept in.

Axis 0 of every array counts the samples.  The file's bytes depend on the arrays alone, so building
the same package twice gives the same digest.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.adapters.files.durable import weather, write_atomic
from agent.core.errors import RefusedError, UnfitError
from agent.core.manifest import Manifest
from agent.repository.guess import Tensor
from agent.repository.recording import readings
from agent.worker import golden
from agent.worker.refusals import RefusalError

Array = NDArray[Any]
COUNT = 32
ROWS_READ_MAX = 100_000  # of a recording


def made(
    manifest: Manifest, inputs: Sequence[Tensor], *, count: int = COUNT, seed: int = 0
) -> dict[str, Array]:
    """Input tensors for `count` samples, within the ranges and around the means of the manifest."""
    features = manifest.features
    rng = np.random.default_rng(seed)
    shape = (count, _rows(manifest), len(features.names))
    values = rng.normal(size=shape)
    if features.scale is not None:
        values = values * np.array(features.scale.std) + np.array(features.scale.mean)
    if features.ranges is not None:
        low, high = np.array(features.ranges).T
        if features.scale is None:
            values = rng.uniform(low, high, size=shape)
        values = np.clip(values, low, high)
    return tensors(manifest, inputs, values)


def recorded(
    manifest: Manifest, inputs: Sequence[Tensor], path: Path, *, count: int = COUNT
) -> dict[str, Array]:
    """Input tensors out of a recording (CSV with the features' names in its header).

    Samples are spread over the whole of it; rows that lack a feature are left out.

    Raises:
        RefusedError: it is no such recording, or too short for one sample.
    """
    names, length = manifest.features.names, _rows(manifest)
    rows: list[list[float]] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for reading in readings(file, path.name):
                if len(rows) >= ROWS_READ_MAX:
                    break
                row = [reading.get(name) for name in names]
                if all(isinstance(value, (int, float)) for value in row):
                    rows.append([float(value) for value in row if value is not None])
    except OSError as error:
        raise RefusedError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RefusedError(f"{path} is not UTF-8 text: {error.reason}") from error
    if len(rows) < length:
        raise RefusedError(
            f"{path} has {len(rows)} rows with all of {', '.join(names[:8])};"
            f" one sample takes {length}"
        )
    starts = np.unique(np.linspace(0, len(rows) - length, count).astype(int))
    table = np.array(rows)
    return tensors(manifest, inputs, np.stack([table[s : s + length] for s in starts]))


def look(path: Path) -> dict[str, Array]:
    """The arrays of a golden file.  Raises UnfitError: it is none."""
    try:
        return golden.read(path)
    except RefusalError as refusal:
        raise UnfitError(refusal.why) from refusal


def given(inputs: Sequence[Tensor], path: Path) -> dict[str, Array]:
    """Input tensors out of an `.npz`, under `in:<input>` or `<input>`.

    Raises:
        UnfitError: it is no such file, or has not every input in the right shape and type.
    """
    arrays = look(path)
    feed = {}
    for tensor in inputs:
        array = arrays.get(f"in:{tensor.name}", arrays.get(tensor.name))
        if array is None:
            raise UnfitError(f"{path.name} has no array in:{tensor.name}")
        fits = len(array.shape) == len(tensor.shape) and all(
            not isinstance(want, int) or have == want
            for have, want in zip(array.shape[1:], tensor.shape[1:], strict=True)
        )
        if not fits or str(array.dtype) != tensor.dtype:
            raise UnfitError(
                f"{path.name} has in:{tensor.name} as {array.dtype} {array.shape};"
                f" the model takes {tensor.dtype} {tensor.shape}"
            )
        feed[tensor.name] = array
    if len({len(array) for array in feed.values()} - {0}) != 1:
        raise UnfitError(f"{path.name} has not the same number of samples for every input, or none")
    return feed


def tensors(manifest: Manifest, inputs: Sequence[Tensor], values: Array) -> dict[str, Array]:
    """Feature values [samples, rows of a window, features] as input tensors; state is zeros.

    Raises:
        UnfitError: the manifest does not say how an input is fed.
    """
    features, count = manifest.features, len(values)
    if features.scale is not None:
        values = (values - np.array(features.scale.mean)) / np.array(features.scale.std)
    index = {name: i for i, name in enumerate(features.names)}
    feed = {}
    for tensor in inputs:
        spec = (manifest.input or {}).get(tensor.name)
        if tensor.name in manifest.state:
            rest = [n if isinstance(n, int) else 1 for n in tensor.shape[1:]]
            feed[tensor.name] = np.zeros((count, *rest), tensor.dtype)
            continue
        if manifest.layout == "columns" and tensor.name not in index:
            raise UnfitError(f"the model wants the input {tensor.name}, which is no feature")
        if manifest.layout == "columns":
            names: Sequence[str] = [tensor.name]
        else:
            names = (spec.features if spec else None) or features.names
        picked = values[:, :, [index[name] for name in names]]
        if len(tensor.shape) <= 2:
            picked = picked.reshape(count, -1)
        if len(tensor.shape) == 1:
            picked = picked[:, 0]
        feed[tensor.name] = _cast(picked, tensor.dtype or "float32")
    return feed


def write(path: Path, feed: Mapping[str, Array], want: Mapping[str, Array]) -> bool:
    """Keep the samples at `path`; gives whether that changed it."""
    arrays = {f"in:{k}": v for k, v in feed.items()} | {f"out:{k}": v for k, v in want.items()}
    body = io.BytesIO()
    np.savez(body, **arrays)  # type: ignore[arg-type]
    with weather(f"cannot write {path}"):
        if path.is_file() and path.read_bytes() == body.getvalue():
            return False
        write_atomic(path, body.getvalue())
    return True


def _rows(manifest: Manifest) -> int:
    return 1 if manifest.window is None else manifest.window.length


def _cast(values: Array, dtype: str) -> Array:
    if dtype == "bool":
        return values > 0.5
    if np.dtype(dtype).kind in "iu":
        bounds = np.iinfo(dtype)
        values = np.clip(np.rint(values), bounds.min, bounds.max)
    return values.astype(dtype)
