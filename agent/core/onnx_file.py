"""What an ONNX file says of itself, read without any ONNX library and without trusting it.

A bounded walk over the protobuf wire format that picks out the few fields we decide by, wherever
they hide (subgraphs, functions, sparse tensors): which files hold external weights, which versions
are needed, how many nodes there are and of which operator sets.  It allocates nothing in proportion
to the file: a 2 GiB model is walked as a memory map.  It does not say whether the model is valid;
loading it does.  What a device lets pass is in `onnx_gate`; what tensors may claim in
`onnx_tensors`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent.core import onnx_tensors
from agent.core.errors import UnfitError
from agent.core.names import FILE_PATTERN
from agent.core.protobuf import LEN, VARINT, Buffer, Walk

NODES_MAX = 50_000  # 200 000 took onnxruntime 4 s and 500 MiB to load
DEPTH_MAX = 8  # of graphs within graphs
EXTERNAL_FILES_MAX = 255  # a package has no room for more

_FLAT = re.compile(FILE_PATTERN)
_TEXT_BYTES_MAX = 256  # of a domain or an operator's name


@dataclass(frozen=True, slots=True)
class OnnxFacts:
    """What the file says.

    opsets      domain -> version, "" the standard one
    nodes       how many, in all graphs and functions
    external    flat names of the files beside it that hold weights, sorted
    reach       those names -> how many bytes of the file its tensors reach into
    operators   (domain, type) of every node that is no call of a function of the model's own
    """

    ir_version: int
    opsets: Mapping[str, int]
    nodes: int
    external: tuple[str, ...]
    reach: Mapping[str, int] = field(default_factory=dict)
    operators: frozenset[tuple[str, str]] = frozenset()


@dataclass(slots=True)
class _Found:
    walk: Walk = field(default_factory=Walk)
    ir_version: int = 0
    opsets: dict[str, int] = field(default_factory=dict)
    nodes: int = 0
    reach: dict[str, int] = field(default_factory=dict)
    graphs: int = 0
    operators: set[tuple[str, str]] = field(default_factory=set)
    functions: set[tuple[str, str]] = field(default_factory=set)


def inspect(raw: Buffer) -> OnnxFacts:
    """The facts of the model in `raw`.

    Raises:
        UnfitError: it is no ONNX file, its weights lie outside its folder or are not as many as it
            claims, or it is larger in nodes, depth or fields than anything we run.
    """
    found = _Found()
    with memoryview(raw) as whole:
        _model(whole, found)
    if not found.ir_version or not found.opsets or not found.graphs:
        raise UnfitError("the file is no ONNX model: it has no version, no opset or no graph")
    return OnnxFacts(
        found.ir_version,
        dict(found.opsets),
        found.nodes,
        tuple(sorted(found.reach)),
        dict(found.reach),
        frozenset(found.operators - found.functions),
    )


def _model(view: memoryview, found: _Found) -> None:
    for number, kind, value, part in found.walk.fields(view):
        if number == 1 and kind == VARINT:
            found.ir_version = value
        elif kind != LEN:
            continue
        elif number == 7:
            _graph(part, found, 1)
        elif number == 8:
            _opset(part, found)
        elif number == 20:  # training_info: initialization, algorithm
            _children(part, found, {1: _graph, 2: _graph}, 1)
        elif number == 25:
            _function(part, found)


def _function(view: memoryview, found: _Found) -> None:
    name = domain = ""
    for number, kind, _, part in found.walk.fields(view):
        if kind != LEN:
            continue
        if number == 1:
            name = _text(part)
        elif number == 10:
            domain = _text(part)
        elif number == 7:
            _node(part, found, 1)
        elif number == 11:  # attributes with a default
            _attribute(part, found, 1)
    found.functions.add((_canonical(domain), name))


def _graph(view: memoryview, found: _Found, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise UnfitError(f"the model nests graphs deeper than {DEPTH_MAX}")
    found.graphs += 1
    _children(view, found, {1: _node, 5: _tensor, 15: _sparse}, depth)


def _node(view: memoryview, found: _Found, depth: int) -> None:
    found.nodes += 1
    if found.nodes > NODES_MAX:
        raise UnfitError(f"the model has more than {NODES_MAX} nodes")
    operator = domain = ""
    for number, kind, _, part in found.walk.fields(view):
        if kind != LEN:
            continue
        if number == 4:
            operator = _text(part)
        elif number == 5:
            _attribute(part, found, depth)
        elif number == 7:
            domain = _text(part)
    found.operators.add((_canonical(domain), operator))


def _attribute(view: memoryview, found: _Found, depth: int) -> None:
    inner: dict[int, _Visit] = {5: _tensor, 10: _tensor, 22: _sparse, 23: _sparse}
    for number, kind, _, part in found.walk.fields(view, skip_numbers=True):
        if kind == LEN and number in (6, 11):
            _graph(part, found, depth + 1)
        elif kind == LEN and number in inner:
            inner[number](part, found, depth)


def _sparse(view: memoryview, found: _Found, depth: int) -> None:
    onnx_tensors.check_dense(view, found.walk)
    _children(view, found, {1: _tensor, 2: _tensor}, depth)


def _tensor(view: memoryview, found: _Found, depth: int) -> None:
    del depth  # tensors hold no graphs
    outside = onnx_tensors.checked(view, found.walk)
    if outside is None:
        return
    if _FLAT.fullmatch(outside.location) is None:
        raise UnfitError(
            f"the model keeps weights in {outside.location[:80]!r}; a package is flat: export them"
            " to a plain file name beside model.onnx"
        )
    found.reach[outside.location] = max(outside.end, found.reach.get(outside.location, 0))
    if len(found.reach) > EXTERNAL_FILES_MAX:
        raise UnfitError(f"the model keeps weights in more than {EXTERNAL_FILES_MAX} files")


def _opset(view: memoryview, found: _Found) -> None:
    domain, version = "", 0
    for number, kind, value, part in found.walk.fields(view):
        if number == 1 and kind == LEN:
            domain = _text(part)
        elif number == 2 and kind == VARINT:
            version = value
    found.opsets[_canonical(domain)] = version
    if len(found.opsets) > 256:
        raise UnfitError("the model imports more than 256 operator sets")


def _text(part: memoryview) -> str:
    return bytes(part[:_TEXT_BYTES_MAX]).decode("utf-8", "replace")


def _canonical(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


_Visit = Callable[[memoryview, _Found, int], None]


def _children(view: memoryview, found: _Found, visits: Mapping[int, _Visit], depth: int) -> None:
    for number, kind, _, part in found.walk.fields(view):
        if kind == LEN and (visit := visits.get(number)) is not None:
            visit(part, found, depth)
