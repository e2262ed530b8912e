"""What the loaded graph has to be like: its inputs and outputs against the manifest's.

The wanted tensors come as the plain values of `agent.core.brief`; nothing here reads a manifest.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from agent.worker.refusals import unfit

_NUMPY = {
    "float": "float32",
    "double": "float64",
    "string": "str",
    **{name: name for name in ("float16", "int8", "int16", "int32", "int64")},
    **{name: name for name in ("uint8", "uint16", "uint32", "uint64", "bool")},
}


def numpy_name(kind: str) -> str | None:
    """What numpy calls an element type such as `tensor(float)`; None if it has no word for it."""
    inner = kind.removeprefix("tensor(").removesuffix(")")
    return _NUMPY.get(inner) if kind.startswith("tensor(") else None


def listed(names: Sequence[str]) -> str:
    """Names for a sentence; not all of a thousand."""
    shown = ", ".join(names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown or "none"


def check_inputs(brief: Mapping[str, Any], graph: Sequence[Any]) -> None:
    """That the manifest feeds the graph's inputs, all of them, with the right types and shapes.

    Raises:
        RefusalError: it does not.
    """
    has = [node.name for node in graph]
    wanted: dict[str, Any] = dict(brief["inputs"])
    state: Mapping[str, str] = brief["state"]
    if anonymous := wanted.pop("", None):  # the default: the one input that is no state
        rest = [name for name in has if name not in state]
        if len(rest) != 1:
            raise unfit(
                f"the model has the inputs {listed(rest)}, and the manifest does not say how the"
                f" features become tensors; add an [input] table"
            )
        wanted[rest[0]] = anonymous
    fed = [*wanted, *state]
    if unknown := [name for name in fed if name not in has]:
        raise unfit(
            f"the manifest feeds {listed(unknown)}, which the model lacks; it has {listed(has)}"
        )
    if hungry := [name for name in has if name not in fed]:
        raise unfit(
            f"the model wants the input {listed(hungry)} that the manifest does not feed;"
            f" it has {listed(has)}"
        )
    for node in graph:
        dtype = numpy_name(node.type)
        if dtype is None:
            raise unfit(f"input {node.name} is {node.type}, which readings cannot be made into")
        if node.name in wanted:
            _check_input(node, dtype, wanted[node.name])


def _check_input(node: Any, dtype: str, wanted: Mapping[str, Any]) -> None:
    if wanted["dtype"] is not None and wanted["dtype"] != dtype:
        raise unfit(f"input {node.name} takes {dtype}, the manifest makes {wanted['dtype']}")
    if not node.shape:  # unknown rank
        return
    fits = any(
        len(shape) == len(node.shape)
        and all(
            want is None or not isinstance(have, int) or have == want
            for have, want in zip(node.shape, shape, strict=True)
        )
        for shape in wanted["shapes"]
    )
    if not fits:
        raise unfit(
            f"input {node.name} takes {shape_words(node.shape)},"
            f" the manifest makes {shape_words(wanted['shapes'][0])}"
        )


def shape_words(shape: Sequence[Any]) -> str:
    """A shape for a sentence: `[batch, 64, 2]`."""
    first = "batch" if shape and not isinstance(shape[0], int) else None
    words = [str(n) if isinstance(n, int) else "any" for n in shape]
    return f"[{', '.join([first, *words[1:]] if first else words)}]"


def check_outputs(brief: Mapping[str, Any], graph: Sequence[Any]) -> None:
    """That the outputs the manifest names exist and are tensors.

    Raises:
        RefusalError: one is not.
    """
    has = {node.name: node for node in graph}
    for name in brief["outputs"]:
        node = has.get(name)
        if node is None:
            raise unfit(f"the manifest names the output {name}; the model has {listed([*has])}")
        if not node.type.startswith("tensor("):
            raise unfit(
                f"output {name} is {node.type} and no tensor;"
                f" export the classifier with zipmap=False"
            )
        if numpy_name(node.type) is None:
            raise unfit(
                f"output {name} is {node.type}, which cannot become scores; cast it to float"
            )


def fixed_batch(graph: Sequence[Any]) -> int | None:
    """The batch size that the graph insists on; None if it takes any.

    Raises:
        RefusalError: its inputs insist on different ones.
    """
    sizes = {n.shape[0] for n in graph if n.shape and isinstance(n.shape[0], int)}
    if len(sizes) > 1:
        raise unfit(f"its inputs fix different batch sizes ({listed(sorted(map(str, sizes)))})")
    size = sizes.pop() if sizes else None
    if size is not None and size < 1:
        raise unfit(f"its inputs fix a batch size of {size}")
    return size
