"""The wanted members of a JSON object as a struct type made on the spot, and its rows as columns.

msgspec decodes straight into the struct and skips what is not wanted.  It does not see a member
that stands twice; `Table.surely_single` proves for many documents at once that none does.
"""

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.core.formats.plan import Path

Role = Literal["field", "time", "key"]
Row: TypeAlias = msgspec.Struct

_COLON, _BACKSLASH = ord(":"), b"\\"
_SLOTS: dict[Role, tuple[Any, Any]] = {
    "field": (float | None, math.nan),
    "time": (float | str | None | msgspec.UnsetType, msgspec.UNSET),
    "key": (str | int | None | msgspec.UnsetType, msgspec.UNSET),
}


class Shape:
    """One object of the wanted nesting.  `struct` is its type; `leaves` are (role, path) in order.

    `names` are the member names of the leaves, then of the objects in it, quoted as JSON has them.
    """

    def __init__(self, members: Sequence[tuple[Role, Path]]) -> None:
        """Paths must be distinct and none may lead through another."""
        own = [(role, path) for role, path in members if len(path) == 1]
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
    times    the stamps, UNSET or None where absent; None if the shape has no time
    keys     likewise
    """

    def __init__(self, shape: Shape, rows: Sequence[Row]) -> None:
        self._leaves = shape.leaves
        self._values, self._objects = shape.spread(rows)
        self._object_names = shape.objects
        self._count = len(rows)
        by_role: dict[Role, list[Sequence[Any]]] = {"field": [], "time": [], "key": []}
        for (role, _), values in zip(self._leaves, self._values, strict=True):
            by_role[role].append(values)
        self.fields = _matrix(by_role["field"], self._count)
        self.times = by_role["time"][0] if by_role["time"] else None
        self.keys = by_role["key"][0] if by_role["key"] else None

    def surely_single(self, text: bytes) -> bool:
        """Whether it is proved that no wanted member stands twice in `text`, the rows' documents.

        An object has at least as many colons as distinct members.  So if the members that were
        found (and the text found in them) use up all colons, none is left for a second one.
        Otherwise: a quoted name that occurs as often as it was found occurs nowhere twice.  May
        say no when nothing is wrong, never yes when something is.
        """
        strings = [v for column in (self.times, self.keys) if column for v in column]
        present = self._count * len(self.fields) - int(np.count_nonzero(np.isnan(self.fields)))
        present += len(strings) - strings.count(msgspec.UNSET) + sum(self._objects)
        colons = int(np.count_nonzero(np.frombuffer(text, np.uint8) == _COLON))
        if colons == present:
            return True
        if _BACKSLASH in text:  # a name, or a colon in text, may be spelled differently
            return False
        if colons == present + sum(v.count(":") for v in strings if isinstance(v, str)):
            return True
        return self._names_occur_once(text)

    def _names_occur_once(self, text: bytes) -> bool:
        found: dict[str, int] = {}
        nth_field = iter(self.fields)
        for (role, path), values in zip(self._leaves, self._values, strict=True):
            if role == "field":
                absent = int(np.count_nonzero(np.isnan(next(nth_field)))) - values.count(None)
            else:
                absent = values.count(msgspec.UNSET)
            found[path[-1]] = found.get(path[-1], 0) + self._count - absent
        for name, times in zip(self._object_names, self._objects, strict=True):
            found[name] = found.get(name, 0) + times
        return all(text.count(f'"{name}"'.encode()) == times for name, times in found.items())


def _matrix(columns: Sequence[Sequence[Any]], count: int) -> NDArray[np.float64]:
    size = len(columns) * count
    flat = chain.from_iterable(columns)
    try:
        packed = np.frombuffer(struct.pack(f"{size}d", *flat))
    except struct.error:  # a null among them
        packed = np.fromiter(chain.from_iterable(columns), np.float64, size)
    return packed.reshape(len(columns), count)
