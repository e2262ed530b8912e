"""Which runtime takes which models: one table, measured by loading models, and what is read off it.

onnxruntime refuses a model whose opset, `ai.onnx.ml` version or IR version is newer than it knows.
Windows' own Windows ML does as well, and has not grown with Windows 11's updates.  What a version
between two rows takes is what the row before it takes; of a version after MEASURED nothing is
known, so nothing is refused on its account: loading the model tells.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from agent.core.errors import RefusedError

Version = tuple[int, ...]
OPSET_LEAST = 7  # opset 6 has kernels in no runtime here
ML = "ai.onnx.ml"


@dataclass(frozen=True, slots=True)
class Reach:
    """The newest opset of the standard operators, of `ai.onnx.ml`, and the newest IR version."""

    opset: int
    ml: int
    ir: int


# The first release with this reach; loaded with 1.15.1, 1.16.3, 1.17.3, 1.18.1 to 1.20.1, 1.21.1,
# 1.22.1, 1.23.2, 1.24.4, and 1.25.1 to 1.31.1.
RUNTIMES: tuple[tuple[Version, Reach], ...] = (
    ((1, 15), Reach(19, 3, 9)),
    ((1, 17), Reach(20, 4, 9)),
    ((1, 18), Reach(21, 5, 10)),
    ((1, 21), Reach(22, 5, 10)),
    ((1, 23), Reach(23, 5, 11)),
    ((1, 24), Reach(25, 5, 13)),
    ((1, 25), Reach(26, 5, 13)),
)
MEASURED: Version = (1, 31)


@dataclass(frozen=True, slots=True)
class Target:
    """A runtime to check a package against without having it.

    `providers` are those it can have at all; None where that is not known.  `upgrade` says whether
    a newer onnxruntime helps, which it does not where Windows brings its own.
    """

    name: str
    words: str
    reach: Reach | None
    providers: tuple[str, ...] | None = None
    upgrade: bool = True


def _windows(name: str, words: str, reach: Reach) -> Target:
    return Target(name, f"the Windows ML built into {words}", reach, ("directml", "cpu"), False)


# Windows: opsets as Microsoft's page on ONNX versions gives them; `ml` and IR are those of the
# newest ONNX release it names there (1.7, 1.4, 1.3, 1.2).
_NAMED = (
    _windows("windows-11", "Windows 11", Reach(12, 2, 7)),
    _windows("windows-10-2004", "Windows 10 2004", Reach(9, 1, 4)),
    _windows("windows-10-1909", "Windows 10 1909", Reach(8, 1, 3)),
    _windows("windows-10-1903", "Windows 10 1903", Reach(8, 1, 3)),
    _windows("windows-10-1809", "Windows 10 1809", Reach(7, 1, 3)),
)
# Each build of onnxruntime, at the release where it stands or has ended.
_BUILDS = {
    "cpu": ("onnxruntime", "1.31.1", ("xnnpack", "cpu")),
    "cuda": ("onnxruntime-gpu", "1.31.1", ("tensorrt", "cuda", "cpu")),
    "directml": ("onnxruntime-directml", "1.24.4", ("directml", "cpu")),
    "openvino": ("onnxruntime-openvino", "1.24.1", ("openvino", "cpu")),
    "windows-ml-1.8": ("Windows ML 1.8 with onnxruntime", "1.23.2", None),
    "windows-ml-2.0": ("Windows ML 2.0 with onnxruntime", "1.24.5", None),
}
_ORT = re.compile(r"^ort-(\d{1,3}\.\d{1,3}(?:\.\d{1,3})?)$")


def version_of(text: str) -> Version:
    """The numbers `text` begins with: (1, 22, 1) of `1.22.1+cu13`; empty if it begins with none.

    What follows them (a release candidate, a build) is passed over.
    """
    found = re.match(r"\d{1,9}(?:\.\d{1,9}){0,5}", text.strip())
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def reach_of(version: str) -> Reach | None:
    """What onnxruntime `version` takes; None if nobody has measured it.

    One that is older than the table takes no more than the oldest in it.
    """
    numbers = version_of(version)
    if not numbers or numbers[:2] > MEASURED:
        return None
    return next((reach for first, reach in reversed(RUNTIMES) if first <= numbers), RUNTIMES[0][1])


def beyond(
    opsets: Mapping[str, int], ir_version: int | None, reach: Reach | None, remedy: str
) -> list[str]:
    """Why a model with these versions does not load where `reach` is all there is.

    `remedy` follows what is too new, and holds `{needs}` where the first onnxruntime that takes it
    may stand.
    """
    refusals = []
    standard = opsets.get("", opsets.get("ai.onnx"))
    if standard is not None and standard < OPSET_LEAST:
        refusals.append(
            f"opset {standard} is older than any onnxruntime runs; convert the model to opset"
            f" {OPSET_LEAST} or newer"
        )
    if reach is None:
        return refusals
    for what, wants, most, part in (
        ("opset {}", standard, reach.opset, "opset"),
        ("opset {} of ai.onnx.ml", opsets.get(ML), reach.ml, "ml"),
        ("IR version {}", ir_version, reach.ir, "ir"),
    ):
        if wants is not None and wants > most:
            text = remedy.format(needs=_needs(part, wants), most=f"{part_words(part)} {most}")
            refusals.append(f"{what.format(wants)} {text}")
    return refusals


def part_words(part: str) -> str:
    """What a member of Reach is called in a sentence."""
    return {"opset": "opset", "ml": "ai.onnx.ml opset", "ir": "IR version"}[part]


def _needs(part: str, wants: int) -> str:
    for first, reach in RUNTIMES:
        if getattr(reach, part) >= wants:
            return f"onnxruntime ≥ {'.'.join(map(str, first))}"
    return f"an onnxruntime newer than {'.'.join(map(str, MEASURED))}"


def target(name: str) -> Target:
    """The target called `name`: one of the named ones, or `ort-1.17` for any onnxruntime.

    Raises:
        RefusedError: there is none of that name, or it was never measured (404).
    """
    for each in _NAMED:
        if each.name == name:
            return each
    if name in _BUILDS:
        words, version, providers = _BUILDS[name]
        return Target(name, f"{words} {version}", reach_of(version), providers)
    if (found := _ORT.match(name)) and RUNTIMES[0][0] <= version_of(found[1])[:2] <= MEASURED:
        return Target(name, f"onnxruntime {found[1]}", reach_of(found[1]))
    first, last = (".".join(map(str, v)) for v in (RUNTIMES[0][0], MEASURED))
    named = ", ".join([*(each.name for each in _NAMED), *_BUILDS])
    why = f"there is no target {name!r}; there are {named}, and ort-{first} to ort-{last}"
    raise RefusedError(why, 404)
