"""Short names of execution providers, and how each is asked for.

The one table: what authors write in `runtime.providers` on the left, what onnxruntime calls it on
the right.  That a provider is compiled in says nothing (a GPU wheel without its driver makes a CPU
session and raises nothing); only what the made session lists is true.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Provider:
    """How onnxruntime knows it, with which options, and what it puts up with.

    `beside` are providers that take the nodes it leaves, before the CPU does.  `mem_pattern` must
    be off for DirectML.
    """

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    mem_pattern: bool = True


# Two sessions live side by side during a swap: arenas grow by what is asked for, not by doubling,
# and convolutions are not searched for exhaustively at the first run of each shape.
_CUDA = {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"}

PROVIDERS: Mapping[str, Provider] = {
    "tensorrt": Provider("TensorrtExecutionProvider", beside=("cuda",)),
    "cuda": Provider("CUDAExecutionProvider", _CUDA),
    "directml": Provider("DmlExecutionProvider", mem_pattern=False),
    "openvino": Provider("OpenVINOExecutionProvider"),
    "coreml": Provider("CoreMLExecutionProvider"),
    "qnn": Provider("QNNExecutionProvider"),
    "migraphx": Provider("MIGraphXExecutionProvider"),
    "xnnpack": Provider("XnnpackExecutionProvider"),
    CPU: Provider("CPUExecutionProvider"),
}
_SHORT = {provider.name: short for short, provider in PROVIDERS.items()}


def short(name: str) -> str:
    """Our name for onnxruntime's; its own where we have none."""
    return _SHORT.get(name, name)


def known(compiled_in: Sequence[str]) -> list[str]:
    """Those of the table that this build of onnxruntime has, best first."""
    return [short for short, provider in PROVIDERS.items() if provider.name in compiled_in]


def wishes(wanted: Sequence[str], compiled_in: Sequence[str]) -> Iterator[str]:
    """What to try, in order: `auto` stands for all that is compiled in; the CPU is always last."""
    seen = set()
    for wish in (*wanted, CPU):
        for one in known(compiled_in) if wish == "auto" else (wish,):
            if one not in seen:
                seen.add(one)
                yield one


def asked(wish: str, compiled_in: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """The `providers` argument of a session for this wish."""
    provider = PROVIDERS[wish]
    chain = [provider, *(PROVIDERS[other] for other in provider.beside)]
    if wish != CPU:
        chain.append(PROVIDERS[CPU])
    return [(each.name, dict(each.options)) for each in chain if each.name in compiled_in]


def satisfies(require: str, provider: str) -> bool:
    """Whether running on `provider` is what the manifest requires."""
    if require == "any":
        return True
    return provider != CPU if require == "accelerated" else provider == require
