"""The wanted members of a JSON object as a struct type made on the spot, and its rows as columns.

msgspec decodes straight into the struct and skips what is not wanted.
"""

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.core.arrays import total
from agent.core.blocks import Column
from agent.core.formats.json_numbers import Numbers
from agent.core.formats.plan import Path

Role = Literal["field", "time", "key"]
Row: TypeAlias = msgspec.Struct
_SLOTS: dict[Role, tuple[Any, Any]] = {
    "field": (float | None, math.nan),
    "time": (float | str | None | msgspec.UnsetType, msgspec.UNSET),
    "key": (str | int | None | msgspec.UnsetType, msgspec.UNSET),
}
_MANY = 64  # rows, for which the way by MessagePack is the shorter one


class Shape:
    """One object of the wanted nesting.

    struct   its type
    leaves   (role, path) of every wanted value, its own first
    objects  the names of the objects it leads through, each before those in it
    """

    def __init__(self, members: Sequence[tuple[Role, Path]]) -> None:
        """Paths must be distinct and none may lead through another."""
        own = [(role, path) for role, path in members if len(path) == 1]
        own.sort(key=lambda member: list(_SLOTS).index(member[0]))  # fields first
        deeper: dict[str, list[tuple[Role, Path]]] = {}
        for role, path in members:
            if len(path) > 1:
                deeper.setdefault(path[0], []).append((role, path[1:]))
        self._inner = {name: Shape(inside) for name, inside in deeper.items()}
        self._own = len(own)
        self.leaves: list[tuple[Role, Path]] = own + [
            (role, (name, *path))
            for name, shape in self._inner.items()
            for role, path in shape.leaves
        ]
        self.objects: list[str] = [
            n for name, shape in self._inner.items() for n in (name, *shape.objects)
        ]
        names = [path[0] for _, path in own] + list(self._inner)
        slots = [(f"m{i}", *_SLOTS[role]) for i, (role, _) in enumerate(own)]
        slots += [
            (f"m{self._own + i}", shape.struct | None | msgspec.UnsetType, msgspec.UNSET)
            for i, shape in enumerate(self._inner.values())
        ]
        rename = {f"m{i}": name for i, name in enumerate(names)}
        self.struct: type[Row] = msgspec.defstruct("Row", slots, rename=rename, gc=False)
        self._empty = self.struct()
        roles = [role for role, _ in self.leaves]
        is_plain = bool(own) and not self._inner and "key" not in roles
        self._numbers = Numbers(self.struct, len(own)) if is_plain else None

    def numbers(self, rows: Sequence[Row]) -> NDArray[np.float64] | None:
        """float64 [number of leaves, n] of many rows of nothing but numbers; None of any other."""
        if self._numbers is None or len(rows) < _MANY:
            return None
        return self._numbers.columns(rows)

    def spread(self, rows: Sequence[Row]) -> tuple[list[Sequence[Any]], list[int]]:
        """The values of each leaf, and how often each object was there.  Rows: at least one."""
        table: list[Sequence[Any]] = list(zip(*map(msgspec.structs.astuple, rows), strict=True))
        values, present = table[: self._own], []
        for shape, children in zip(self._inner.values(), table[self._own :], strict=True):
            present.append(len(children) - children.count(msgspec.UNSET))
            whole = [c if isinstance(c, shape.struct) else shape._empty for c in children]  # noqa: SLF001  # same class
            inside, objects = shape.spread(whole)
            values += inside
            present += objects
        return values, present


class Table:
    """Rows of one shape as columns.

    fields   float64 [number of field leaves, n]; NaN where a member was absent or null
    times    float64 [n] where all are numbers; else the stamps, UNSET or None where absent; None if
             the shape has no time
    keys     the keys, UNSET or None where absent; None if the shape has none
    members  how many were wanted, over all rows and the objects that were there
    """

    def __init__(self, shape: Shape, rows: Sequence[Row]) -> None:
        """Rows: at least one."""
        self._leaves = shape.leaves
        self._object_names = shape.objects
        self._count = len(rows)
        self._objects: list[int] = []
        self._values: Sequence[Any]  # of each leaf
        numbers = shape.numbers(rows)
        if numbers is not None:
            self._values = list(numbers)
        else:
            self._values, self._objects = shape.spread(rows)
        by_role: dict[Role, list[Any]] = {"field": [], "time": [], "key": []}
        for (role, _), values in zip(self._leaves, self._values, strict=True):
            by_role[role].append(values)
        fields = by_role["field"]
        self.fields = _matrix(fields, self._count) if numbers is None else numbers[: len(fields)]
        self.times: Sequence[Any] | Column | None = by_role["time"][0] if by_role["time"] else None
        self.keys = by_role["key"][0] if by_role["key"] else None
        self.members = self._count * len(self._leaves) + sum(self._objects)

    @property
    def is_whole(self) -> bool:
        """Whether surely nothing that was wanted is absent or null; one look, not one a member."""
        if math.isnan(total(self.fields)):
            return False
        return not any(msgspec.UNSET in column for column in self._told())

    def found(self) -> dict[str, int]:
        """How often a wanted member of each name was found (null or not), over all rows."""
        found: dict[str, int] = {}
        absent = iter(np.count_nonzero(np.isnan(self.fields), axis=1).tolist())
        for (role, path), values in zip(self._leaves, self._values, strict=True):
            lacking = next(absent) if role == "field" else 0
            if isinstance(values, np.ndarray):
                pass  # no null among them, and no time left out
            elif role == "field":
                lacking -= values.count(None) if lacking else 0
            else:
                lacking = values.count(msgspec.UNSET)
            found[path[-1]] = found.get(path[-1], 0) + self._count - lacking
        for name, times in zip(self._object_names, self._objects, strict=True):
            found[name] = found.get(name, 0) + times
        return found

    def colons_in_text(self) -> int:
        """How many colons stand in the times and keys that were found."""
        strings = chain.from_iterable(self._told())
        return sum(v.count(":") for v in strings if isinstance(v, str))

    def _told(self) -> list[Sequence[Any]]:
        """The times and keys of which not all are numbers, or there."""
        columns = [self.times, self.keys]
        return [c for c in columns if c is not None and not isinstance(c, np.ndarray)]


def _matrix(columns: Sequence[Sequence[Any]], count: int) -> NDArray[np.float64]:
    size = len(columns) * count
    flat = chain.from_iterable(columns)
    try:
        packed = np.frombuffer(struct.pack(f"{size}d", *flat))
    except struct.error:  # a null among them
        packed = np.fromiter(chain.from_iterable(columns), np.float64, size)
    return packed.reshape(len(columns), count)
