"""What a recurrent model carries from call to call, per sensor; and batches it can be run in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.core.arrays import Array, grown, pack, unpack
from agent.core.errors import RefusedError, UnfitError
from agent.core.grouping import Groups
from agent.core.tensors import TensorSpecLike


@dataclass(slots=True)
class _State:
    """One state: its input and output, along which axis sensors lie, and its values by key."""

    output: str
    axis: int
    values: Array  # [keys, …]: the tensor's shape without the batch


class States:
    """The states of one model, zero for a sensor that was not seen yet."""

    def __init__(
        self,
        state: Mapping[str, str],
        inputs: Sequence[TensorSpecLike],
        outputs: Sequence[TensorSpecLike],
    ) -> None:
        """`state` is the manifest's: input name -> name of the output it is carried from.

        Raises:
            UnfitError: a tensor is not there, or input and output are not of one type and shape.
        """
        ins, outs = {s.name: s for s in inputs}, {s.name: s for s in outputs}
        batch = {s.shape[0] for s in inputs if s.name not in state and s.shape}
        self._changed = np.zeros(0, np.bool)  # by key: since last asked
        self._states: dict[str, _State] = {}
        for name, output in state.items():
            if name not in ins or output not in outs:
                raise UnfitError(f"[state] {name} = {output}: the model lacks one of these tensors")
            spec, carried = ins[name], outs[output]
            axis = _batch_axis(spec, batch)
            inner = spec.shape[:axis] + spec.shape[axis + 1 :]
            if spec.dtype != carried.dtype or not _may_be(carried.shape, spec.shape, axis):
                raise UnfitError(f"[state] {name} and {output} are not of one type and shape")
            shape = tuple(dim for dim in inner if isinstance(dim, int))
            if len(shape) != len(inner):
                raise UnfitError(f"[state] {name}: only its batch dimension may be of any size")
            try:
                values = np.zeros((0, *shape), np.dtype(spec.dtype))
            except TypeError as error:
                raise UnfitError(f"[state] {name} is of {spec.dtype}, no number") from error
            self._states[name] = _State(output, axis, values)

    def gather(self, keys: NDArray[np.int32]) -> dict[str, Array]:
        """The states of `keys` by input name, batched as the model takes them."""
        self._grow(keys)
        return {
            name: np.ascontiguousarray(np.moveaxis(state.values[keys], 0, state.axis))
            for name, state in self._states.items()
        }

    def scatter(self, keys: NDArray[np.int32], outputs: Mapping[str, Array]) -> None:
        """Remember what the model gave for `keys`, each at most once; rows beyond them are padding.

        Raises:
            UnfitError: an output is not of the shape it was said to be; nothing is remembered.
        """
        self._grow(keys)
        rows: dict[str, Array] = {}
        for name, state in self._states.items():
            given = outputs[state.output]
            if given.ndim != state.values.ndim:
                raise UnfitError(f"the output {state.output} has the shape {given.shape}")
            rows[name] = np.moveaxis(given, state.axis, 0)[: len(keys)]
            if rows[name].shape != (len(keys), *state.values.shape[1:]):
                raise UnfitError(f"the output {state.output} has the shape {given.shape}")
        for name, values in rows.items():
            self._states[name].values[keys] = values
        self._changed[keys] = True

    def like(self, other: "States") -> bool:
        """Whether both are states of the same names, types and shapes."""
        return self._about() == other._about()  # noqa: SLF001  # same class

    def copy(self) -> "States":
        """The same states, apart from now on."""
        other = object.__new__(States)
        other._states = {  # same class
            name: _State(state.output, state.axis, state.values.copy())
            for name, state in self._states.items()
        }
        other._changed = self._changed.copy()
        return other

    def blank(self) -> "States":
        """States like these, of sensors that were not seen yet."""
        other = self.copy()
        for state in other._states.values():  # noqa: SLF001  # same class
            state.values = state.values[:0]
        other._changed = np.zeros(0, np.bool)  # noqa: SLF001  # same class
        return other

    def renumbered(self, numbers: NDArray[np.int32]) -> "States":
        """The same states, where sensor n has the number `numbers`[n] by now; without those that
        have none (-1).
        """
        other = self.blank()
        here = numbers >= 0
        other._grow(numbers[here])  # noqa: SLF001  # same class
        for name, state in self._states.items():
            known = here[: len(state.values)]
            values = other._states[name].values  # noqa: SLF001  # same class
            values[numbers[: len(known)][known]] = state.values[: len(known)][known]
        return other

    def follow(self, other: "States", keys: NDArray[np.int32]) -> None:
        """Take the states of `keys` from `other`, which must be like these."""
        self._grow(keys)
        other._grow(keys)  # noqa: SLF001  # same class
        for name, state in self._states.items():
            state.values[keys] = other._states[name].values[keys]  # noqa: SLF001
        self._changed[keys] = True

    def forget_broken(self) -> None:
        """A sensor with a state that is no finite number begins anew, from zero."""
        for state in self._states.values():
            if state.values.dtype.kind == "f":
                inner = tuple(range(1, state.values.ndim))
                broken = np.flatnonzero(~np.isfinite(state.values).all(axis=inner))
                state.values[broken] = 0
                self._changed[broken] = True

    def snapshot(self) -> bytes:
        """Every state, for a restart; keys by number."""
        return pack({name: state.values for name, state in self._states.items()}, self._about())

    def changes(self) -> bytes:
        """What has changed since last asked, for `apply`; empty if nothing has."""
        keys = np.flatnonzero(self._changed).astype(np.int32)
        if not len(keys):
            return b""
        self._changed[keys] = False
        arrays = {f"={name}": state.values[keys] for name, state in self._states.items()}
        return pack({"keys": keys, **arrays}, self._about())

    def apply(self, raw: bytes) -> None:
        """Take up what `changes` gave.

        Raises:
            RefusedError: it is of other states, or cannot be read.
        """
        arrays = unpack(raw, self._about())
        try:
            keys = arrays["keys"].astype(np.int32)
            self._grow(keys)
            for name, state in self._states.items():
                state.values[keys] = arrays[f"={name}"]
        except (KeyError, ValueError, IndexError) as error:
            raise RefusedError(f"the model's state cannot be read: {error}") from error

    def restore(self, raw: bytes) -> None:
        """Take up what `snapshot` gave.

        Raises:
            RefusedError: it is of other states, or cannot be read.
        """
        arrays = unpack(raw, self._about())
        if arrays.keys() != self._states.keys():
            raise RefusedError("the model's state cannot be read: a part is missing")
        for name, state in self._states.items():
            if arrays[name].shape[1:] != state.values.shape[1:]:
                raise RefusedError(f"the model's state cannot be read: {name} has another shape")
        for name, state in self._states.items():
            state.values = arrays[name].astype(state.values.dtype)
            self._changed = np.zeros(len(state.values), np.bool)

    def _about(self) -> str:
        parts = (f"{n} {s.values.dtype} {s.values.shape[1:]}" for n, s in self._states.items())
        return f"states {', '.join(sorted(parts))}"

    def _grow(self, keys: NDArray[np.int32]) -> None:
        if len(keys):
            rows = int(keys.max()) + 1
            for state in self._states.values():
                state.values = grown(state.values, rows)
            self._changed = grown(self._changed, rows)


def waves(keys: NDArray[np.int32]) -> list[NDArray[np.intp]]:
    """All row numbers, in waves: no key twice in one, each in order of arrival."""
    if not len(keys):
        return []
    groups = Groups(keys)
    ranks = np.empty(len(keys), np.intp)
    ranks[groups.order] = groups.ranks()
    return np.split(np.argsort(ranks, kind="stable"), np.cumsum(np.bincount(ranks))[:-1])


def _batch_axis(spec: TensorSpecLike, batch: set[int | str | None]) -> int:
    """Along which axis sensors lie: the only one of any size, or the one sized as the data's."""
    loose = [i for i, dim in enumerate(spec.shape) if not isinstance(dim, int)]
    if len(loose) == 1:
        return loose[0]
    named = [i for i, dim in enumerate(spec.shape) if dim is not None and dim in batch]
    if not named:
        raise UnfitError(f"[state] {spec.name} has no dimension that is surely its batch")
    return named[0]


def _may_be(
    carried: tuple[int | str | None, ...], shape: tuple[int | str | None, ...], axis: int
) -> bool:
    return len(carried) == len(shape) and all(
        i == axis or not isinstance(mine, int) or mine == theirs
        for i, (mine, theirs) in enumerate(zip(carried, shape, strict=True))
    )
