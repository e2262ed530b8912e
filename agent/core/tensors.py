"""Features into the tensors a model takes.  What cannot be joined is said before it ever runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from agent.core.arrays import Array
from agent.core.errors import UnfitError
from agent.core.manifest import Manifest

Dim = int | str | None
_FLOAT32_EXACT = frozenset({"float32", "float16", "int8", "uint8", "int16", "uint16", "bool"})


class TensorSpecLike(Protocol):
    """`ports.TensorSpec`, seen from below: in a shape a name or None means any size."""

    @property
    def name(self) -> str:
        """What the model calls it."""
        ...

    @property
    def dtype(self) -> str:
        """The numpy name of its element type."""
        ...

    @property
    def shape(self) -> tuple[Dim, ...]:
        """The batch first, except for states."""
        ...


@dataclass(frozen=True, slots=True)
class _Join:
    """How one input tensor is made; `features` None means all, in order."""

    name: str
    dtype: np.dtype[Any]
    features: Sequence[int] | None
    tail: tuple[int, ...]  # the shape behind the batch
    swap: bool  # [feature, window] instead of [window, feature]


class Assembler:
    """Makes the inputs of one model, in its order.

    dtype  the narrowest float that holds every input exactly: what windows may be kept in
    """

    def __init__(self, manifest: Manifest, inputs: Sequence[TensorSpecLike]) -> None:
        """Raises UnfitError: manifest and inputs cannot be joined; the text says which and why."""
        names = manifest.features.names
        length = None if manifest.window is None else manifest.window.length
        data = [spec for spec in inputs if spec.name not in manifest.state]
        self._states = frozenset(manifest.state)
        if unknown := self._states - {spec.name for spec in inputs}:
            raise UnfitError(f"[state] speaks of {_listed(unknown)}; the model has no such input")
        wanted = _wanted(manifest, data)
        self._order = [spec.name for spec in inputs]
        self._joins = {
            spec.name: _join(spec, [names.index(f) for f in wanted[spec.name]], length, len(names))
            for spec in data
        }
        _check_dtypes(manifest, data)
        _check_rows(data)
        exact = all(spec.dtype in _FLOAT32_EXACT for spec in data)
        self.dtype: type[np.floating] = np.float32 if exact else np.float64

    def assemble(self, values: Array, states: Mapping[str, Array] | None) -> list[Array]:
        """The inputs for `values`, [n, features] or [n, window, features], C-contiguous.

        As many rows as there are: who runs a model of fixed rows cuts and fills up.
        """
        arrays = []
        for name in self._order:
            if name in self._states:
                assert states is not None, f"no state was given for {name}"
                arrays.append(states[name])
                continue
            join = self._joins[name]
            part = values if join.features is None else values[..., join.features]
            if join.swap:
                part = part.swapaxes(1, 2)
            part = np.ascontiguousarray(cast(part, join.dtype))
            arrays.append(part.reshape(len(part), *join.tail))
        return arrays


def cast(values: NDArray[np.floating], dtype: np.dtype[Any]) -> Array:
    """`values` as `dtype`: integers by rounding, cut to their range, 0 for NaN; so are bools."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return values.astype(dtype, copy=False)
    whole = np.nan_to_num(np.rint(values.astype(np.float64)), nan=0.0)
    if dtype.kind == "b":
        return whole.astype(np.bool)
    limits = np.iinfo(dtype)
    # a float cannot say 2**63 - 1: go down to the next it can
    top = float(limits.max)
    top = np.nextafter(top, 0.0) if top > limits.max else top
    clipped: Array = np.clip(whole, float(limits.min), top).astype(dtype)
    return clipped


def _wanted(manifest: Manifest, data: Sequence[TensorSpecLike]) -> dict[str, Sequence[str]]:
    """Which features each input is made of."""
    names, inputs = manifest.features.names, [spec.name for spec in data]
    if manifest.layout == "columns":
        if set(inputs) != set(names):
            raise UnfitError(
                f"layout 'columns' wants one input per feature: the model has {_listed(inputs)}, "
                f"features.names are {_listed(names)}"
            )
        return {name: [name] for name in inputs}
    if manifest.input is not None:
        if set(inputs) != set(manifest.input):
            raise UnfitError(
                f"[input] speaks of {_listed(manifest.input)}; the model's inputs are "
                f"{_listed(inputs)}"
            )
        return {name: manifest.input[name].features or names for name in inputs}
    if len(inputs) != 1:
        hint = ", or set layout = 'columns'" if set(inputs) == set(names) else ""
        raise UnfitError(
            f"the model has {len(inputs)} inputs ({_listed(inputs)}): say in [input] what each is "
            f"made of{hint}"
        )
    return {inputs[0]: names}


def _join(spec: TensorSpecLike, features: list[int], length: int | None, count: int) -> _Join:
    try:
        dtype = np.dtype(spec.dtype)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "fiub":
        raise UnfitError(f"input {spec.name} is of {spec.dtype}; features are numbers")
    wide = len(features)
    tails: list[tuple[tuple[int, ...], bool]]
    if length is None:
        tails = [((wide,), False), ((1, wide), False), ((wide, 1), False)]
        tails += [((), False)] if wide == 1 else []
        made_of = f"[batch, {wide} features]"
    else:
        tails = [((length, wide), False), ((wide, length), True), ((length * wide,), False)]
        tails += [((1, length, wide), False), ((1, wide, length), True)]
        tails += [((length, wide, 1), False), ((wide, length, 1), True)]
        tails += [((length,), False)] if wide == 1 else []
        made_of = f"[batch, {length} readings, {wide} features]"
    for tail, swap in tails:
        if _fits(spec.shape, tail):
            every = features == list(range(count))
            return _Join(spec.name, dtype, None if every else features, tail, swap)
    raise UnfitError(f"input {spec.name} has the shape {_told(spec.shape)}; there is {made_of}")


def _fits(shape: tuple[Dim, ...], tail: tuple[int, ...]) -> bool:
    return len(shape) == len(tail) + 1 and all(
        not isinstance(dim, int) or dim == size for dim, size in zip(shape[1:], tail, strict=True)
    )


def _check_dtypes(manifest: Manifest, data: Sequence[TensorSpecLike]) -> None:
    for spec in data:
        said = (manifest.input or {}).get(spec.name)
        if said is not None and "dtype" in said.model_fields_set and said.dtype != spec.dtype:
            raise UnfitError(
                f"[input] says {spec.name} is of {said.dtype}; the model wants {spec.dtype}"
            )


def _check_rows(data: Sequence[TensorSpecLike]) -> None:
    if len({dim for spec in data if isinstance(dim := spec.shape[0], int)}) > 1:
        raise UnfitError("the model's inputs want different numbers of rows at a time")


def _listed(names: object) -> str:
    assert isinstance(names, frozenset | set | list | tuple | dict)
    return ", ".join(sorted(map(str, names))) or "none"


def _told(shape: tuple[Dim, ...]) -> str:
    return f"[{', '.join('any' if dim is None else str(dim) for dim in shape)}]"
