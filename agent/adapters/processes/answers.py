"""What a worker answers to questions, taken apart with care: it may have gone bad."""

from collections.abc import Mapping, Sequence
from typing import Any

from agent.core.accelerators import Placement, Trial
from agent.core.preflight import Measures
from agent.ports import GoldenResult, TensorSpec, WorkerLostError

_LOADED: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("provider", "wanted", "fallback", "priority"), str),
    **dict.fromkeys(("inputs", "outputs"), list),
    "load_ms": (int, float),
    "golden_runs": int,
    **dict.fromkeys(("nodes", "time"), dict),
    "compiled": str,
}


def is_loaded(answer: Mapping[str, Any]) -> bool:
    """Whether it is the whole answer to `load`."""
    return all(isinstance(answer.get(member), kind) for member, kind in _LOADED.items())


def golden_result(answer: Mapping[str, Any]) -> GoldenResult:
    """The answer to `golden`.  Raises WorkerLostError where it is none."""
    if "refused" in answer:
        why, blame = str(answer.get("why")), str(answer["refused"])
        return GoldenResult(ok=False, samples=0, why=why, blame=blame)
    try:
        return GoldenResult(
            ok=answer["ok"] is True,
            samples=int(answer["samples"]),
            why=str(answer["why"]),
            worst=float(answer["worst"]),
            run_ms=tuple(float(ms) for ms in answer["run_ms"]),
            blame=str(answer["blame"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WorkerLostError("broke the protocol") from error


def measures(answer: Mapping[str, Any], rss_bytes: int, peak_bytes: int) -> Measures:
    """The answer to `measure`, and what was seen from outside.

    Raises WorkerLostError where it is none.
    """
    try:
        sample_ms = tuple(float(ms) for ms in answer["sample_ms"])
        return Measures(sample_ms, int(answer["runs"]), rss_bytes / 2**20, peak_bytes / 2**20)
    except (KeyError, TypeError, ValueError) as error:
        raise WorkerLostError("broke the protocol") from error


def placement(answer: Mapping[str, Any], trials: Sequence[Trial]) -> Placement:
    """Where it runs, of the answer to `load`.  Raises WorkerLostError where it tells no shares."""
    try:
        nodes = {str(name): float(share) for name, share in answer["nodes"].items()}
        time = {str(name): float(share) for name, share in answer["time"].items()}
    except (TypeError, ValueError) as error:
        raise WorkerLostError("broke the protocol") from error
    return Placement(nodes, time, answer["compiled"], trials)


def specs(raw: Sequence[Sequence[Any]]) -> list[TensorSpec]:
    """Tensors, as `load` tells them."""
    return [TensorSpec(name, dtype, tuple(shape)) for name, dtype, shape in raw]
