"""What an ONNX file says of itself, read without any ONNX library and without trusting it.

A bounded walk over the protobuf wire format that picks out the few fields we decide by, wherever
they hide (subgraphs, functions, sparse tensors): which files hold external weights, which versions
are needed, how many nodes there are.  It allocates nothing in proportion to the file: a 2 GiB model
is walked as a memory map.  It does not say whether the model is valid; loading it does.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from agent.core.errors import UnfitError
from agent.core.names import FILE_PATTERN

NODES_MAX = 50_000  # 200 000 took onnxruntime 4 s and 500 MiB to load
DEPTH_MAX = 8  # of graphs within graphs
FIELDS_MAX = 5_000_000  # about three seconds of walking
EXTERNAL_FILES_MAX = 255  # a package has no room for more

_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_FLAT = re.compile(FILE_PATTERN)
# Attributes of tree ensembles hold millions of numbers, one field each: skipped at C speed.
_FLOATS = re.compile(rb"(?:\x3d[\s\S]{4})+")  # AttributeProto.floats = 7, fixed32
_INTS = re.compile(rb"(?:\x40[\x80-\xff]{0,9}[\x00-\x7f])+")  # AttributeProto.ints = 8, varint

Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class OnnxFacts:
    """What the file says: `opsets` is domain -> version, "" the standard one; `external` are the
    flat names of the files beside it that hold weights, sorted.
    """

    ir_version: int
    opsets: Mapping[str, int]
    nodes: int
    external: tuple[str, ...]


@dataclass(slots=True)
class _Found:
    ir_version: int = 0
    opsets: dict[str, int] = field(default_factory=dict)
    nodes: int = 0
    external: set[str] = field(default_factory=set)
    fields: int = 0
    graphs: int = 0


def inspect(raw: Buffer) -> OnnxFacts:
    """The facts of the model in `raw`.

    Raises:
        UnfitError: it is no ONNX file, its weights lie outside its folder, or it is larger in
            nodes, depth or fields than anything we run.
    """
    found = _Found()
    with memoryview(raw) as whole:
        _model(whole, found)
    if not found.ir_version or not found.opsets or not found.graphs:
        raise UnfitError("the file is no ONNX model: it has no version, no opset or no graph")
    return OnnxFacts(
        found.ir_version, dict(found.opsets), found.nodes, tuple(sorted(found.external))
    )


def _model(view: memoryview, found: _Found) -> None:
    for number, kind, value, part in _fields(view, found):
        if number == 1 and kind == _VARINT:
            found.ir_version = value
        elif kind != _LEN:
            continue
        elif number == 7:
            _graph(part, found, 1)
        elif number == 8:
            _opset(part, found)
        elif number == 20:  # training_info: initialization, algorithm
            _children(part, found, {1: _graph, 2: _graph}, 1)
        elif number == 25:  # functions
            _children(part, found, {7: _node}, 1)


def _graph(view: memoryview, found: _Found, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise UnfitError(f"the model nests graphs deeper than {DEPTH_MAX}")
    found.graphs += 1
    _children(view, found, {1: _node, 5: _tensor, 15: _sparse}, depth)


def _node(view: memoryview, found: _Found, depth: int) -> None:
    found.nodes += 1
    if found.nodes > NODES_MAX:
        raise UnfitError(f"the model has more than {NODES_MAX} nodes")
    _children(view, found, {5: _attribute}, depth)


def _attribute(view: memoryview, found: _Found, depth: int) -> None:
    inner: dict[int, _Visit] = {5: _tensor, 10: _tensor, 22: _sparse, 23: _sparse}
    for number, kind, _, part in _fields(view, found, skip_numbers=True):
        if kind == _LEN and number in (6, 11):
            _graph(part, found, depth + 1)
        elif kind == _LEN and number in inner:
            inner[number](part, found, depth)


def _sparse(view: memoryview, found: _Found, depth: int) -> None:
    _children(view, found, {1: _tensor, 2: _tensor}, depth)


def _tensor(view: memoryview, found: _Found, depth: int) -> None:
    del depth  # tensors hold no graphs
    location, is_external = None, False
    for number, kind, value, part in _fields(view, found):
        if number == 14 and kind == _VARINT:
            is_external = value == 1
        elif number == 13 and kind == _LEN:
            entry = {n: bytes(p[:512]) for n, k, _, p in _fields(part, found) if k == _LEN}
            if entry.get(1) == b"location":
                location = entry.get(2, b"")
                _external(location, found)
    if is_external and location is None:
        raise UnfitError("the model keeps weights in another file and does not say in which")


def _external(location: bytes, found: _Found) -> None:
    name = location.decode("utf-8", "replace")
    if _FLAT.fullmatch(name) is None:
        raise UnfitError(
            f"the model keeps weights in {name[:80]!r}; a package is flat: export them to a plain"
            " file name beside model.onnx"
        )
    found.external.add(name)
    if len(found.external) > EXTERNAL_FILES_MAX:
        raise UnfitError(f"the model keeps weights in more than {EXTERNAL_FILES_MAX} files")


def _opset(view: memoryview, found: _Found) -> None:
    domain, version = "", 0
    for number, kind, value, part in _fields(view, found):
        if number == 1 and kind == _LEN:
            domain = bytes(part[:256]).decode("utf-8", "replace")
        elif number == 2 and kind == _VARINT:
            version = value
    found.opsets["" if domain == "ai.onnx" else domain] = version
    if len(found.opsets) > 256:
        raise UnfitError("the model imports more than 256 operator sets")


_Visit = Callable[[memoryview, _Found, int], None]


def _children(view: memoryview, found: _Found, visits: Mapping[int, _Visit], depth: int) -> None:
    for number, kind, _, part in _fields(view, found):
        if kind == _LEN and (visit := visits.get(number)) is not None:
            visit(part, found, depth)


def _fields(
    view: memoryview, found: _Found, *, skip_numbers: bool = False
) -> Iterator[tuple[int, int, int, memoryview]]:
    """Number, wire type, integer (varints only) and bytes (length-delimited only) of each field."""
    at, end, nothing = 0, len(view), view[:0]
    while at < end:
        if skip_numbers and view[at] in (0x3D, 0x40):
            run = (_FLOATS if view[at] == 0x3D else _INTS).match(view, at)
            if run is not None:
                at = run.end()
                continue
        found.fields += 1
        if found.fields > FIELDS_MAX:
            raise UnfitError(f"the model has more than {FIELDS_MAX} fields")
        tag, at = _varint(view, at, end)
        number, kind = tag >> 3, tag & 7
        value, part = 0, nothing
        if kind == _VARINT:
            value, at = _varint(view, at, end)
        elif kind == _LEN:
            length, at = _varint(view, at, end)
            part, at = view[at : at + length], at + length
        elif kind in (_I64, _I32):
            at += 8 if kind == _I64 else 4
        else:
            raise UnfitError("the file is no ONNX model: a field has an unknown wire type")
        if at > end or number == 0:
            raise UnfitError("the file is no ONNX model, or it is cut short")
        yield number, kind, value, part


def _varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise UnfitError("the file is no ONNX model, or it is cut short")
