"""The real onnxruntime, with CUDA, DirectML and TensorRT on top: they compute on the processor,
behave as theirs do, and fail as theirs do, when a file in the control folder says so.
"""

import contextlib
import importlib
import json
import os
import sys
import time
from pathlib import Path

_here = str(Path(__file__).resolve().parent.parent)
_me = sys.modules.pop("onnxruntime")
_path, sys.path[:] = list(sys.path), [p for p in sys.path if p != _here]
importlib.invalidate_caches()
_real = importlib.import_module("onnxruntime")
sys.path[:] = _path
sys.modules["onnxruntime"] = _me

_CONTROL = Path(os.environ.get("CUDA_PRETENDED", "/nonexistent"))
_PRETENDED = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "DmlExecutionProvider")
_SAYS = {
    "lost": "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=edge",
    "removed": "Exception(1) tid(1) 887A0005 The GPU device instance has been suspended.",
    "memory": "BFCArena::AllocateRawInternal Available memory of 0 is smaller than requested",
}
_OPTIONS = ("intra_op_num_threads", "inter_op_num_threads", "enable_mem_pattern")
_ENTRIES = ("session.intra_op.allow_spinning", "session.inter_op.allow_spinning")


def __getattr__(name):
    return getattr(_real, name)


def _is(fault):
    return (_CONTROL / fault).exists()


def get_available_providers():
    return [*_PRETENDED, "CPUExecutionProvider"]


class _Part:
    def __init__(self, name, count):
        self.ep_name, self._nodes = name, [None] * count

    def get_nodes(self):
        return self._nodes


class InferenceSession:
    """On the first of `providers` that is pretended, as far as anybody can see."""

    def __init__(self, path, options=None, providers=None, **more):
        names = [p if isinstance(p, str) else p[0] for p in providers or []]
        self._on = names[0] if names and names[0] in _PRETENDED else ""
        _note(options, providers)
        if self._on:
            if _is("hang"):
                time.sleep(3600)
            if _is("crash"):
                os.abort()
            if _is("absent"):  # as the real one does: not a word
                self._on = ""
        self._session = _real.InferenceSession(
            path, options, providers=["CPUExecutionProvider"], **more
        )

    def __getattr__(self, name):
        return getattr(self._session, name)

    def get_providers(self):
        return [*([self._on] if self._on else []), "CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self):
        return [] if _is("older") else [_Part(self._on or "CPUExecutionProvider", 3)]

    def run(self, names, feed, options=None):
        if self._on:
            for fault, says in _SAYS.items():
                if _is(fault):
                    raise _real.capi.onnxruntime_pybind11_state.Fail(says)
        outputs = self._session.run(names, feed, options)
        if self._on and _is("wrong"):
            return [output + 1 for output in outputs]
        return outputs


def _note(options, providers):
    if not _CONTROL.is_dir():
        return
    told = {name: getattr(options, name) for name in _OPTIONS}
    told["execution_mode"] = str(options.execution_mode)
    told |= {name: options.get_session_config_entry(name) for name in _ENTRIES}
    told["providers"] = [[name, dict(more)] for name, more in providers]
    with contextlib.suppress(OSError), (_CONTROL / "passed.jsonl").open("a") as file:
        file.write(json.dumps(told) + "\n")  # a jail without an accelerator lets nobody write
