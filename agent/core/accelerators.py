"""Execution providers: the one table of what onnxruntime can run a model on, and what each needs.

To add one is to add a row.  Left is what authors write in `runtime.providers`, in the order in
which `auto` looks at them.  Only data: `agent.worker.providers` asks onnxruntime by it, and a
worker reads this file as it is.

In the values of options stand `$threads` (`runtime.threads`), `$cache` (a folder of this version,
this runtime and this device) and `$memory` (bytes that an accelerator's arena may take).  An option
whose `$memory` or `$cache` there is not is left out.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

CPU = "cpu"
AUTO = "auto"
EXTENSION_DOMAINS = ("ai.onnx.contrib", "com.microsoft.extensions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One row.

    name       what onnxruntime calls it
    install    the extra of edge-model-agent, or the wheel, that brings it
    needs      what else has to be on the device, for a person
    options    passed to onnxruntime; `engine.options` goes over them
    cached     the same, where compiled code may be kept
    beside     providers that take the nodes it leaves, before the CPU does
    mem_pattern   off for DirectML, which refuses it
    one_run    no two runs at once on one session (the worker has one thread that runs)
    on_host    computes on the processor: what it takes is processor time
    registered comes as a library that is registered (Windows ML, plugins), not compiled in
    """

    name: str
    install: str
    needs: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    cached: Mapping[str, str] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    mem_pattern: bool = True
    one_run: bool = False
    on_host: bool = False
    registered: bool = False


PROVIDERS: Mapping[str, Provider] = {
    "tensorrt": Provider(
        name="TensorrtExecutionProvider",
        install="edge-model-agent[cuda] and TensorRT",
        needs="an NVIDIA GPU, its driver, CUDA 13, cuDNN 9 and TensorRT",
        options={"trt_max_workspace_size": "$memory"},
        # An engine fits one model, runtime, TensorRT and GPU: the folder is named by all four.
        cached={
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": "$cache",
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": "$cache",
        },
        beside=("cuda",),
    ),
    "tensorrt-rtx": Provider(
        name="NvTensorRTRTXExecutionProvider",
        install="Windows ML's catalogue, or accelerators.plugins",
        needs="an NVIDIA RTX GPU (30 series or newer) and its driver",
        cached={"nv_runtime_cache_path": "$cache"},
        registered=True,
    ),
    "cuda": Provider(
        name="CUDAExecutionProvider",
        install="edge-model-agent[cuda]",
        needs="an NVIDIA GPU, its driver, CUDA 13 and cuDNN 9",
        # Two versions live side by side during a swap: the arena grows by what is asked for, not by
        # doubling, and convolutions are not searched for exhaustively at the first run of a shape.
        options={
            "arena_extend_strategy": "kSameAsRequested",
            "cudnn_conv_algo_search": "HEURISTIC",
            "gpu_mem_limit": "$memory",
        },
    ),
    "directml": Provider(
        name="DmlExecutionProvider",
        install="edge-model-agent[directml]",
        needs="Windows 10 1903 or newer and a GPU with DirectX 12",
        mem_pattern=False,
        one_run=True,
    ),
    "openvino": Provider(
        name="OpenVINOExecutionProvider",
        install="edge-model-agent[openvino]",
        needs="an Intel processor, GPU or NPU",
        options={
            "device_type": "CPU",
            "load_config": '{"CPU": {"INFERENCE_NUM_THREADS": "$threads",'
            ' "PERFORMANCE_HINT": "LATENCY"}}',
        },
        cached={
            "load_config": '{"CPU": {"INFERENCE_NUM_THREADS": "$threads",'
            ' "PERFORMANCE_HINT": "LATENCY", "CACHE_DIR": "$cache"}}',
        },
        on_host=True,
    ),
    "coreml": Provider(
        name="CoreMLExecutionProvider",
        install="edge-model-agent[cpu], on macOS",
        needs="macOS 12 or newer",
        options={"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"},
        cached={"ModelCacheDirectory": "$cache"},
    ),
    "qnn": Provider(
        name="QNNExecutionProvider",
        install="the onnxruntime-qnn wheel",
        needs="a Qualcomm processor with an NPU and its driver",
        options={"backend_type": "htp"},
    ),
    "migraphx": Provider(
        name="MIGraphXExecutionProvider",
        install="the onnxruntime-migraphx wheel",
        needs="an AMD GPU and ROCm",
        cached={"migraphx_model_cache_dir": "$cache"},
    ),
    "vitisai": Provider(
        name="VitisAIExecutionProvider",
        install="Windows ML's catalogue, or accelerators.plugins",
        needs="an AMD processor with an NPU and its driver",
        cached={"cache_dir": "$cache"},
        registered=True,
    ),
    "xnnpack": Provider(
        name="XnnpackExecutionProvider",
        install="an onnxruntime built with it",
        needs="an ARM or x86 processor",
        options={"intra_op_num_threads": "$threads"},
        on_host=True,
    ),
    CPU: Provider(
        name="CPUExecutionProvider",
        install="edge-model-agent[cpu]",
        on_host=True,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outfit:
    """What this device's configuration, and never a package, adds to onnxruntime.

    options    over those of the table, by our name of the provider
    libraries  of custom operators, paths
    plugins    libraries of providers, by our name of the provider
    memory_bytes   that an accelerator's arena may take; 0: as much as it likes
    compiled   for whom compiled code is kept: off, accelerators or all
    """

    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    libraries: Sequence[str] = ()
    plugins: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int = 0
    compiled: str = "off"

    def document(self) -> dict[str, Any]:
        """As it crosses to a worker."""
        return {**asdict(self), "libraries": list(self.libraries)}


@dataclass(frozen=True, slots=True)
class Trial:
    """What one provider made of a version: whether it reproduced the golden outputs, and how fast.

    `why` where it did not; `sample_ms` is the median of one row.
    """

    provider: str
    why: str = ""
    sample_ms: float = 0.0
    load_ms: float = 0.0
    rss_mb: float = 0.0

    def document(self) -> dict[str, Any]:
        """As told in reports, and kept."""
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a live session really runs: shares by our names, each adding up to 1.

    Empty where nobody could tell.  `compiled` is `built` or `kept` where compiled code was.
    """

    nodes: Mapping[str, float] = field(default_factory=dict)
    time: Mapping[str, float] = field(default_factory=dict)
    compiled: str = ""
    trials: Sequence[Trial] = ()

    def document(self) -> dict[str, Any]:
        """As `placement` of a version in the reported document."""
        return {
            "nodes": {name: round(share, 4) for name, share in self.nodes.items()},
            "time": {name: round(share, 4) for name, share in self.time.items()},
            "compiled": self.compiled,
            "trials": [trial.document() for trial in self.trials],
        }


def ranked(trials: Sequence[Trial]) -> list[str]:
    """Those that reproduced the golden outputs, the fastest first; within a hundredth the CPU wins,
    having the least to go wrong, and after it whoever the table names first.
    """
    good = [trial for trial in trials if not trial.why]
    order = [CPU, *PROVIDERS]
    best = min((trial.sample_ms for trial in good), default=0.0)

    def rank(trial: Trial) -> tuple[float, int]:
        near = trial.sample_ms <= best * 1.01
        return (best if near else trial.sample_ms, order.index(trial.provider))

    return [trial.provider for trial in sorted(good, key=rank)]


def key_of(*parts: object) -> str:
    """A short name for everything that compiled code or a measurement depends on."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
