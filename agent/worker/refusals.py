"""Why a model is not loaded, and who is to blame, in a sentence that a person can act on.

onnxruntime's messages are long, carry source paths and change between releases; what is not
recognised here is passed on shortened.
"""

import re
from typing import Literal

from agent.core.accelerators import CPU

Blame = Literal["unfit", "misfit", "damaged", "unavailable"]  # as the errors in agent.core.errors
WHY_CHARS_MAX = 400
DEVICE_LOST = 86  # exit code of a worker whose accelerator is lost


class RefusalError(Exception):
    """This model does not run here.  `blame` says who is at fault: bytes, device or weather."""

    def __init__(self, blame: Blame, why: str) -> None:
        super().__init__(why)
        self.blame: Blame = blame
        self.why = why


def unfit(why: str) -> RefusalError:
    """The bytes are bad, on any device."""
    return RefusalError("unfit", why)


def misfit(why: str) -> RefusalError:
    """They do not fit this device."""
    return RefusalError("misfit", why)


_OPSET = re.compile(
    r"Opset (\d+) is under development.*?domain (\S+) is till opset (\d+)", re.DOTALL
)
_IR = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
_OP = re.compile(r"No Op registered for (\S+) with domain_version of (\d+)")
_DOMAIN = re.compile(r"(\S+):(\S+)\(-?\d+\) is not a registered function/op")
_KERNEL = re.compile(r"Could not find an implementation for (\S+?)\((\d+)\)")
_PARSE = re.compile(r"protobuf parsing failed|No graph was found in the protobuf", re.IGNORECASE)
_MEMORY = re.compile(r"bad_alloc|failed to allocate memory|bfcarena|out of memory", re.IGNORECASE)
_EXTERNAL = re.compile(r"external (?:data|initializer)|model_path must not be empty", re.IGNORECASE)
_NOISE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : |\S*/onnxruntime_src/\S+ ?")
_LOADING = re.compile(r"^Load model from .*? failed:\s*")


# A lost device, by what drivers and onnxruntime say: after it, every call on that device fails.
_DEVICE = re.compile(
    r"CUDA (?:failure|error)|CUDNN failure|CUBLAS failure|cudaError|illegal memory access"
    r"|unspecified launch failure|device-side assert|no CUDA-capable device"
    r"|887A00(?:05|06|07|20)|DXGI_ERROR_DEVICE|device (?:was |has been )?(?:removed|lost|reset)"
    r"|DEVICE_LOST|CL_OUT_OF_RESOURCES|CL_DEVICE_NOT_AVAILABLE",
    re.IGNORECASE,
)
_DEVICE_CLASSES = ("DeviceReset", "EPFail")
_TYPE = re.compile(r"Unexpected input data type\. Actual: \((.+?)\) ?, expected: \((.+?)\)")
_GOT = re.compile(r"(?:Got invalid dimensions|Invalid rank) for input: (\S+)(.*)", re.DOTALL)
_MISSING = re.compile(r"Required inputs \(\[(.*?)\]\) are missing")
_NAME = re.compile(r"Invalid (?:input|output) name: ?(\S+)", re.IGNORECASE)


def is_device(error: BaseException, provider: str) -> bool:
    """Whether `error`, raised by a run, says that what runs it is lost, and not that the run is
    wrong.  Memory that an accelerator has no more is such a loss: a fresh process gets it back.
    """
    if provider == CPU:
        return False
    return (
        type(error).__name__ in _DEVICE_CLASSES
        or _DEVICE.search(str(error)) is not None
        or is_memory(error)
    )


def is_memory(error: BaseException) -> bool:
    """Whether `error` says that there was no more memory to be had."""
    return isinstance(error, MemoryError) or _MEMORY.search(str(error)) is not None


def shortened(error: BaseException) -> str:
    """What onnxruntime said, without source paths, on one line."""
    text = " ".join(_LOADING.sub("", _NOISE.sub("", str(error))).split()) or type(error).__name__
    return text if len(text) <= WHY_CHARS_MAX else text[: WHY_CHARS_MAX - 1] + "…"


def of_load(error: BaseException, runtime: str) -> RefusalError:
    """What `error`, raised while a session was made by onnxruntime `runtime`, means."""
    text = str(error)
    if found := _OPSET.search(text):
        opset, domain, most = found.groups()
        return misfit(
            f"opset {opset} of {domain} needs a newer onnxruntime than {runtime} (at most {most});"
            f" export the model for opset {most} or lower"
        )
    if found := _IR.search(text):
        ir, most = found.groups()
        return misfit(
            f"IR version {ir} needs a newer onnxruntime than {runtime} (at most {most});"
            f" set model.ir_version = {most} when exporting"
        )
    if found := _OP.search(text):
        op, version = found.groups()
        return unfit(f"node type {op} does not exist at opset {version}; export it with ONNX's own")
    if found := _DOMAIN.search(text):
        domain, op = found.groups()
        return unfit(
            f"node type {op} is from {domain}, a library of custom operators; none is loaded"
        )
    if found := _KERNEL.search(text):
        op, version = found.groups()
        return misfit(
            f"onnxruntime {runtime} has no kernel for {op}({version}) with these types here"
        )
    if is_memory(error):
        return misfit(f"it needs more memory than a worker may use here ({shortened(error)})")
    if type(error).__name__ == "ModelLoadCanceled" or "MODEL_LOAD_CANCELED" in text:
        return RefusalError("unavailable", "its load was called off")
    if type(error).__name__ == "NoSuchFile":
        return RefusalError("unavailable", f"a file went away: {shortened(error)}")
    if _DEVICE.search(text):
        return misfit(f"its device is lost or does not start ({shortened(error)})")
    if _PARSE.search(text):
        return unfit("model.onnx does not parse: it is truncated, or no ONNX model")
    if _EXTERNAL.search(text):
        return unfit(f"its external weights cannot be read: {shortened(error)}")
    return unfit(f"onnxruntime {runtime} does not load it: {shortened(error)}")


def of_run(error: BaseException) -> RefusalError:
    """What `error`, raised by a run, means: whose inputs and outputs do not agree, or what went
    wrong meanwhile.
    """
    text = str(error)
    if is_memory(error):
        return misfit(f"out of memory: {shortened(error)}")
    if "terminate flag" in text:
        return RefusalError("unavailable", "the run was ended because it took too long")
    if found := _TYPE.search(text):
        return unfit(f"an input was given as {found[1]}, and the model takes {found[2]}")
    if found := _GOT.search(text):
        return unfit(f"input {found[1]} was given in another shape{_after(found[2])}")
    if found := _MISSING.search(text):
        return unfit(f"the input {found[1]} was not given")
    if found := _NAME.search(text):
        return unfit(f"the model has no tensor {found[1]}")
    return unfit(shortened(error))


def _after(words: str) -> str:
    return f": {shorter}" if (shorter := " ".join(words.split()).strip(" :.")) else ""
