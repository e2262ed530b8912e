"""What a version demands of a device, held against the device before a byte of it is fetched.

The demands come from the signed metadata (`Package.custom`), so nobody but its signers can have
made them up.  Members that are not known are passed over: a newer repository may say more.  What
has to be tried to be known (operators, kernels, a provider that is compiled in and cannot start)
is preflight's to find out.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.core.errors import MisfitError
from agent.core.fields import first_complaint
from agent.core.opsets import Target, Version, beyond, reach_of, version_of
from agent.core.packages import Package

_AGREES = re.compile(r"^\s*(>=|<=|==|!=|>|<)?\s*(\d[\w.+-]*)\s*$")
_SAME = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64", "armv7l": "armv7", "x86": "i686"}
_EXTRAS = ("cuda", "directml", "openvino")  # providers that are one extra of ours away
_ACCELERATED_BY = {"tensorrt": "cuda"}

_Text = Annotated[str, Field(max_length=128)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What there is to demand things of.

    hardware   what this device is called by: its architecture, and any name given to it
    memory_mb  the most that models could ever be given here; None where nobody can tell
    """

    agent: str
    onnxruntime: str
    providers: Sequence[str]
    hardware: Sequence[str]
    memory_mb: float | None = None


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class _Runtime(_Part):
    ort: _Text = ""
    opset: int | None = None
    opsets: Annotated[dict[_Text, int], Field(max_length=256)] = {}
    ir_version: int | None = None
    providers: Annotated[list[_Text], Field(max_length=64)] = []
    require: _Text = "any"
    memory_mb: float | None = None


class Demands(_Part):
    """`Package.custom`, as far as it demands anything."""

    min_agent: _Text = ""
    hw: Annotated[list[_Text], Field(max_length=64)] = []
    runtime: _Runtime = _Runtime()


def check(package: Package, device: Device) -> None:
    """That `device` can have `package` at all.

    Raises:
        MisfitError: it cannot; every reason, in one text.
    """
    if reasons := unmet(package.custom, device):
        raise MisfitError(f"{package.ref} does not fit this device: {'; '.join(reasons)}")


def unmet(custom: Mapping[str, Any], device: Device) -> list[str]:
    """Each demand that `device` does not meet, in a sentence that says what would help."""
    try:
        wants = Demands.model_validate(dict(custom))
    except ValidationError as error:
        why = f"its signed requirements cannot be read ({first_complaint(error)})"
        return [f"{why}; publish it again, or update the agent"]
    runtime = wants.runtime
    opsets = runtime.opsets or ({} if runtime.opset is None else {"": runtime.opset})
    return [
        *_agent(wants.min_agent, device.agent),
        *_hardware(wants.hw, device.hardware),
        *_runtime(runtime.ort, device.onnxruntime),
        *beyond(
            opsets,
            runtime.ir_version,
            reach_of(device.onnxruntime),
            f"needs {{needs}}; this device has {device.onnxruntime}",
        ),
        *(
            f"{why}{_install(runtime.require, runtime.providers)}"
            for why in lacking(
                runtime.require, runtime.providers, device.providers, "this device's onnxruntime"
            )
        ),
        *_memory(runtime.memory_mb, device.memory_mb),
    ]


def against(
    opsets: Mapping[str, int],
    ir_version: int,
    providers: Sequence[str],
    require: str,
    target: Target,
) -> list[str]:
    """Why a package does not run on `target`, in sentences; empty if nothing speaks against it."""
    remedy = f"is newer than {target.words} takes (at most {{most}}); export the model for that"
    if target.upgrade:
        remedy += ", or use {needs}"
    refusals = beyond(opsets, ir_version, target.reach, remedy)
    if target.providers is not None:
        refusals += lacking(require, providers, target.providers, target.words)
    return refusals


def lacking(require: str, wanted: Sequence[str], there: Sequence[str], who: str) -> list[str]:
    """Why `require` cannot be met where only the providers `there` are.

    One that is there may still not start; that is for preflight.
    """
    has = ", ".join(there) or "none"
    if require == "accelerated":
        auto = "auto" in wanted
        if any(p != "cpu" and (auto or p in wanted) for p in there):
            return []
        wishes = ", ".join(p for p in wanted if p not in ("cpu", "auto")) or "any accelerator"
        return [f"it requires an accelerator ({wishes}) and {who} has {has}"]
    if require == "any" or require in there:
        return []
    return [f"it requires {require} and {who} has {has}"]


def _install(require: str, wanted: Sequence[str]) -> str:
    for provider in wanted if require == "accelerated" else (require,):
        if (extra := _ACCELERATED_BY.get(provider, provider)) in _EXTRAS:
            return f"; install edge-model-agent[{extra}]"
    return ""


def _agent(least: str, has: str) -> list[str]:
    if not least or _is_at_least(version_of(has), version_of(least)):
        return []
    return [f"it needs edge-agent ≥ {least}; this device has {has}"]


def _hardware(wanted: Sequence[str], has: Sequence[str]) -> list[str]:
    names = {architecture(name) for name in has}
    if not wanted or any(architecture(name) in names for name in wanted):
        return []
    return [f"it is for {' or '.join(wanted)}; this device is {' and '.join(has) or 'unknown'}"]


def architecture(name: str) -> str:
    """One name for what has several: `amd64` is `x86_64`, `arm64` is `aarch64`."""
    folded = name.strip().casefold()
    return _SAME.get(folded, folded)


def _runtime(wanted: str, has: str) -> list[str]:
    for clause in filter(None, (part.strip() for part in wanted.split(","))):
        found = _AGREES.match(clause)
        if found is None:
            why = f"its signed requirements name the onnxruntime {wanted!r}"
            return [f"{why}, which is no version such as >=1.23; publish it again"]
        if not _agrees(found[1] or ">=", version_of(has), version_of(found[2])):
            return [f"it needs onnxruntime {_spelt(wanted)}; this device has {has}"]
    return []


def _spelt(wanted: str) -> str:
    text = wanted.strip() if wanted.strip()[:1] in "<>=!" else f">={wanted.strip()}"
    return text.replace(">=", "≥ ").replace("<=", "≤ ").replace("  ", " ")


def _agrees(sign: str, has: Version, wants: Version) -> bool:
    width = max(len(has), len(wants))
    left, right = (v + (0,) * (width - len(v)) for v in (has, wants))
    order = (left > right) - (left < right)
    return {
        ">=": order >= 0,
        "<=": order <= 0,
        ">": order > 0,
        "<": order < 0,
        "==": order == 0,
        "!=": order != 0,
    }[sign]


def _is_at_least(has: Version, least: Version) -> bool:
    return _agrees(">=", has, least)


def _memory(wants: float | None, has: float | None) -> list[str]:
    if wants is None or has is None or wants <= has:
        return []
    return [f"it needs {wants:.0f} MB of memory; this device has {has:.0f} MB for models at most"]
