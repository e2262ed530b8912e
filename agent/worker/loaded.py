"""One model in one onnxruntime session: made on the best provider that works, and run.

It and `making` are the only places that call onnxruntime, in the child and in process alike.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from agent.core.accelerators import CPU
from agent.worker import admission, gate, making, proof, providers
from agent.worker.refusals import RefusalError

Array = NDArray[Any]
Spec = tuple[str, str, list[int | str | None]]  # name, numpy dtype, shape
READ_CONFIG = "ORT_LOAD_CONFIG_FROM_MODEL"  # would let a model set its own session options
PEAK_BYTES_MIN, PEAK_RATIO = 1 << 20, 8  # inputs this much larger than usual are a peak
SHRINK = "memory.enable_memory_arena_shrinkage"


def run_options() -> Any:
    """Options for `Loaded.run`; its `terminate` ends a run at the next node."""
    return ort.RunOptions()


class Loaded:
    """A model that runs.  Not thread-safe: one run at a time.

    inputs, outputs   what `run` takes and gives, in order: the graph's inputs, and those of its
                      outputs that the manifest names
    provider, wanted  what runs it; the first wish
    fallback          why that is not the same; empty if it is
    batch             the batch size that the graph insists on, or None
    nodes, time       shares of its nodes and, once proven, of its time, by who runs them
    compiled          `built` or `kept` where compiled code is kept
    """

    def __init__(
        self, folder: Path, brief: Mapping[str, Any], tell: making.Told = lambda _: None
    ) -> None:
        """`tell` is told whom is being tried.  Raises RefusalError."""
        os.environ.pop(READ_CONFIG, None)
        ort.set_default_logger_severity(making.FATAL_ONLY)
        try:
            path = gate.check(folder, brief)
        except OSError as error:
            raise RefusalError("unavailable", f"cannot read {folder}: {error.strerror}") from error
        made = making.first_that_works(path, brief, tell)
        self._session, self.provider, self.fallback = made.session, made.provider, made.fallback
        self.nodes, self.compiled, self._profile = made.nodes, made.compiled, made.profile
        self.time: dict[str, float] = {CPU: 1.0} if made.provider == CPU else {}
        self.wanted: str = next(providers.wishes(brief["providers"], making.compiled_in()))
        graph = self._session.get_inputs()
        admission.check_inputs(brief, graph)
        admission.check_outputs(brief, self._session.get_outputs())
        self.batch = admission.fixed_batch(graph)
        self.inputs = [_spec(node) for node in graph]
        by_name = {node.name: node for node in self._session.get_outputs()}
        self.outputs = [_spec(by_name[name]) for name in brief["outputs"]]
        self._names = [name for name, _, _ in self.inputs]
        self._strings = any(dtype == "str" for _, dtype, _ in (*self.inputs, *self.outputs))
        self._wanted_outputs = [name for name, _, _ in self.outputs]
        self._usual_bytes = 0.0
        self._shrink = run_options()
        self._shrink.add_run_config_entry(SHRINK, "cpu:0")

    def prove(self, arrays: Sequence[Array]) -> None:
        """Run `arrays` twice, to see in the second where the time goes.

        Raises whatever onnxruntime raises.
        """
        if not self._profile:
            return
        try:
            self.run(arrays)
            self.run(arrays)
        finally:
            self._profile = False
            self.time = proof.ended(self._session)

    def run(self, arrays: Sequence[Array], options: Any = None) -> list[Array]:
        """The outputs for a batch; axis 0 of every array counts its rows.

        Raises whatever onnxruntime raises, and ValueError if `arrays` are too few or too many.
        """
        if self.batch is not None and len(arrays[0]) != self.batch:
            return self._run_in_pieces(self.batch, arrays, options)
        if self._strings:
            arrays = [a.astype(object) if a.dtype.kind == "U" else a for a in arrays]
        if options is None and self._is_peak(arrays):
            options = self._shrink
        feed = dict(zip(self._names, arrays, strict=True))
        outputs: list[Array] = self._session.run(self._wanted_outputs, feed, options)
        if self._strings:
            return [a.astype(np.str_) if a.dtype.kind == "O" else a for a in outputs]
        return outputs

    def _is_peak(self, arrays: Sequence[Array]) -> bool:
        """Whether the arena should give back after this run what it will hardly need again."""
        size = sum(array.nbytes for array in arrays)
        peak = size >= PEAK_BYTES_MIN and size > PEAK_RATIO * self._usual_bytes
        self._usual_bytes += (size - self._usual_bytes) / 16
        return peak

    def _run_in_pieces(self, size: int, arrays: Sequence[Array], options: Any) -> list[Array]:
        """Batches of exactly `size`: the last is filled up with its last row, and cut again."""
        rows = len(arrays[0])
        pieces: list[list[Array]] = []
        for start in range(0, max(rows, 1), size):
            cut = [array[start : start + size] for array in arrays]
            have = len(cut[0])
            outputs = self.run([_filled(array, size) for array in cut], options)
            for (name, _, _), output in zip(self.outputs, outputs, strict=True):
                if output.shape[:1] != (size,):
                    msg = f"output {name} has shape {output.shape} for a batch of {size} rows"
                    raise ValueError(msg)
            pieces.append([output[:have] for output in outputs])
        return [np.concatenate(parts) for parts in zip(*pieces, strict=True)]


def _filled(array: Array, size: int) -> Array:
    if len(array) == size:
        return np.ascontiguousarray(array)
    if len(array) == 0:
        return np.zeros((size, *array.shape[1:]), array.dtype)
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])


def _spec(node: Any) -> Spec:
    shape = [n if isinstance(n, (int, str)) else None for n in node.shape]
    return node.name, admission.numpy_name(node.type) or node.type, shape
