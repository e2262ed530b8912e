"""What a worker is told of a version: the manifest boiled down to plain values.

A worker imports nothing of the agent, so what it needs crosses as JSON, and what it refuses comes
back as a blame and a sentence.  Both engines use the same brief.

    model      file name of the model in its folder
    inputs     tensor -> {dtype or None, shapes it may have}; "" is the one input that is no state
    state      input -> output that feeds it at the next call
    outputs    the outputs that are fetched: score, label, state
    providers, require, threads    from `[runtime]`
    golden     {file, rtol, atol}, or None
    name, digest   what its files must add up to, all of them; digest None: they are an author's
    domains    operator sets that pass beside those of `agent.core.onnx_gate`
    outfit     what the device's configuration gives onnxruntime (`agent.core.accelerators.Outfit`)
    avoid      provider -> why it is not tried this time
"""

from collections.abc import Collection
from typing import Any

from agent.core.accelerators import Outfit
from agent.core.errors import DamagedError, MisfitError, UnavailableError, UnfitError
from agent.core.manifest import Manifest
from agent.core.names import ModelRef

MODEL_FILE = "model.onnx"
Brief = dict[str, Any]


def brief(
    manifest: Manifest,
    *,
    golden: bool = True,
    sealed: ModelRef | None = None,
    domains: Collection[str] = (),
    outfit: Outfit | None = None,
) -> Brief:
    """The brief of `manifest`; without `golden` the samples need not be there (`model build`).

    `sealed` is the version that the files must be, byte by byte.
    """
    named = [manifest.output.score.tensor]
    if manifest.output.label is not None:
        named.append(manifest.output.label.tensor)
    samples = {
        "file": manifest.golden.file,
        "rtol": manifest.golden.rtol,
        "atol": manifest.golden.atol,
    }
    return {
        "model": MODEL_FILE,
        "inputs": _inputs(manifest),
        "state": dict(manifest.state),
        "outputs": list(dict.fromkeys([*named, *manifest.state.values()])),
        "providers": list(manifest.runtime.providers),
        "require": manifest.runtime.require,
        "threads": manifest.runtime.threads,
        "golden": samples if golden else None,
        "name": manifest.name if sealed is None else sealed.name,
        "digest": None if sealed is None else sealed.digest,
        "domains": sorted(domains),
        "outfit": (outfit or Outfit()).document(),
        "avoid": {},
    }


def _inputs(manifest: Manifest) -> dict[str, Any]:
    names = manifest.features.names
    if manifest.layout == "columns":
        types = {name: spec.dtype for name, spec in (manifest.input or {}).items()}
        column = [[None, 1], [None]]
        return {name: {"dtype": types.get(name), "shapes": column} for name in names}
    window = manifest.window.length if manifest.window is not None else None
    if manifest.input is None:
        return {"": {"dtype": None, "shapes": _shapes(window, len(names))}}
    return {
        tensor: {"dtype": spec.dtype, "shapes": _shapes(window, len(spec.features or names))}
        for tensor, spec in manifest.input.items()
    }


def _shapes(window: int | None, features: int) -> list[list[int | None]]:
    """What a tensor of features may look like, the usual first; None is any size."""
    if window is None and features == 1:
        return [[None, 1], [None]]
    if window is None:
        return [[None, features]]
    return [[None, window, features], [None, window * features]]


def blamed(ref: ModelRef | str, blame: str, why: str) -> Exception:
    """The error that a worker's refusal stands for; `ref` is named in its sentence."""
    kinds: dict[str, type[Exception]] = {
        "unfit": UnfitError,
        "misfit": MisfitError,
        "damaged": DamagedError,
    }
    return kinds.get(blame, UnavailableError)(f"{ref}: {why}")
