"""What compiled code and measurements depend on, besides the model: driver, devices, processor.

Read before the jail closes.  What cannot be read is left out: it is then the same each time.
"""

import contextlib
import platform
from pathlib import Path

import onnxruntime as ort

_NVIDIA = Path("/proc/driver/nvidia")
_CPUINFO = Path("/proc/cpuinfo")


def devices() -> dict[str, str]:
    """Name -> what it is, as it would change with another driver, device or processor."""
    seen = {"system": f"{platform.system()} {platform.machine()}"}
    with contextlib.suppress(OSError):
        seen["nvidia"] = (_NVIDIA / "version").read_text(encoding="ascii").splitlines()[0]
    with contextlib.suppress(OSError):
        gpus = sorted((_NVIDIA / "gpus").glob("*/information"))
        for index, gpu in enumerate(gpus):
            lines = gpu.read_text(encoding="ascii", errors="replace").splitlines()
            seen[f"gpu{index}"] = "; ".join(" ".join(line.split()) for line in lines[:2])
    with contextlib.suppress(OSError):
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
        for name in ("model name", "flags", "Features", "CPU part"):
            if line := next((line for line in lines if line.startswith(name)), ""):
                seen[name] = line.partition(":")[2].strip()
    if "flags" not in seen:
        seen["processor"] = platform.processor()
    if platform.system() == "Windows":
        seen["system"] += f" {platform.version()}"
    with contextlib.suppress(Exception):  # older ones have no such call
        for index, device in enumerate(ort.get_ep_devices()):
            text = f"{device.ep_name} {device.ep_metadata} {device.device.metadata}"
            seen[f"device{index}"] = text
    return seen
