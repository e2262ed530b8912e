"""One model in one onnxruntime session: made on the best provider that works, and run.

The one place that calls onnxruntime, in the child and in process alike.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from agent.worker import admission, gate, providers
from agent.worker.refusals import RefusalError, misfit, of_load

Array = NDArray[Any]
Spec = tuple[str, str, list[int | str | None]]  # name, numpy dtype, shape
FATAL_ONLY = 4  # onnxruntime's severity: what it raises it need not print as well
READ_CONFIG = "ORT_LOAD_CONFIG_FROM_MODEL"  # would let a model set its own session options
VERSION: str = ort.__version__


def compiled_in() -> list[str]:
    """The providers of this build, by onnxruntime's names."""
    return list(ort.get_available_providers())


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
    """

    def __init__(self, folder: Path, brief: Mapping[str, Any]) -> None:
        """Raises RefusalError."""
        os.environ.pop(READ_CONFIG, None)
        ort.set_default_logger_severity(FATAL_ONLY)
        try:
            path = gate.check(folder, brief)
        except OSError as error:
            raise RefusalError("unavailable", f"cannot read {folder}: {error.strerror}") from error
        self._session, self.provider, self.fallback = _first_that_works(path, brief)
        self.wanted: str = next(providers.wishes(brief["providers"], compiled_in()))
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

    def run(self, arrays: Sequence[Array], options: Any = None) -> list[Array]:
        """The outputs for a batch; axis 0 of every array counts its rows.

        Raises whatever onnxruntime raises, and ValueError if `arrays` are too few or too many.
        """
        if self.batch is not None and len(arrays[0]) != self.batch:
            return self._run_in_pieces(self.batch, arrays, options)
        if self._strings:
            arrays = [a.astype(object) if a.dtype.kind == "U" else a for a in arrays]
        feed = dict(zip(self._names, arrays, strict=True))
        outputs: list[Array] = self._session.run(self._wanted_outputs, feed, options)
        if self._strings:
            return [a.astype(np.str_) if a.dtype.kind == "O" else a for a in outputs]
        return outputs

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


def _first_that_works(path: Path, brief: Mapping[str, Any]) -> tuple[Any, str, str]:
    """A session, the short name of what runs it, and why that is not the first wish.

    Raises:
        RefusalError: none works, or not one that the manifest requires.
    """
    built = compiled_in()
    why: list[str] = []
    refusal: RefusalError | None = None
    for wish in providers.wishes(brief["providers"], built):
        if not providers.satisfies(brief["require"], wish):
            continue
        if providers.PROVIDERS[wish].name not in built:
            why.append(f"this build of onnxruntime has no {wish}")
            continue
        try:
            session = _session(path, brief, wish, built)
        except Exception as error:  # noqa: BLE001  onnxruntime's errors share no base but this
            refusal = of_load(error, VERSION)
            why.append(f"{wish} failed: {refusal.why}")
            continue
        created = session.get_providers()
        if created[0] == providers.PROVIDERS[wish].name:
            return session, wish, "; ".join(why)
        why.append(f"{wish} could not be started (its driver or libraries are missing)")
    if refusal is not None and brief["require"] in ("any", providers.CPU):
        raise refusal  # the CPU was tried too: it is the model, not the provider
    raise misfit(
        f"it requires {brief['require']} to run on: {'; '.join(why) or 'none is wished for'}"
    )


def _session(path: Path, brief: Mapping[str, Any], wish: str, built: Sequence[str]) -> Any:
    """A session by path: from bytes it would need 2.5 times the memory (reference figures)."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = brief["threads"]
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = providers.PROVIDERS[wish].mem_pattern
    options.log_severity_level = FATAL_ONLY
    # A spinning pool costs a whole core at 200 runs a second.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    session = ort.InferenceSession(
        str(path), options, providers=providers.asked(wish, built), enable_fallback=0
    )
    session.disable_fallback()  # at run time it would rebuild the session elsewhere, in silence
    return session
