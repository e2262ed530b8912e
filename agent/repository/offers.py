"""What a family's signers say: these releases, at least that one, these leaves to go down.

Documents only; who signs them, and where they lie, is for `signing`.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

from tuf.api.metadata import TOP_LEVEL_ROLE_NAMES, TargetFile, Targets

from agent.core.errors import RefusedError
from agent.core.packages import Package, describe


def check_names(names: Collection[str]) -> None:
    """Whether these models can have signers of their own.

    Raises:
        RefusedError: one is named like a role of the repository, or two differ in case only.
    """
    for name in names:
        if name in TOP_LEVEL_ROLE_NAMES:
            raise RefusedError(f"no model can be named {name!r}: a role of the repository is")
    folded = {name.casefold() for name in names}
    if len(folded) != len(names):
        raise RefusedError("two models differ in case only; their metadata would share a file")


def offer(family: Targets, name: str, offered: Mapping[str, Package], now: float) -> bool:
    """Make the family list exactly `offered` (by path) and the overrides still good.

    Returns whether that changed it.

    Raises:
        RefusedError: a release comes with other files than before (409), or a security floor that
            nothing on offer reaches.
    """
    entries = {path: _entry(path, package) for path, package in offered.items()}
    for path, entry in entries.items():
        before = family.targets.get(path)
        if before is not None and _digest(before) != _digest(entry):
            raise RefusedError(
                f"{path} was published with other files, and devices hold on to those; give the new"
                " ones the next release number",
                409,
            )
    for path, entry in family.targets.items():
        custom: Any = entry.custom
        if path.startswith(f"{name}/override/") and custom["override"]["not_after"] >= now:
            entries[path] = entry
    least = [package.custom.get("min_release", 0) for package in offered.values()]
    custom = family.unrecognized_fields.get("custom", {})
    floor = max([custom.get("min_release", 0), *least])
    if type(floor) is not int or (offered and floor > max(p.ref.release for p in offered.values())):
        raise RefusedError(f"{name}: min_release {floor!r} is no release on offer")
    if entries == family.targets and floor == custom.get("min_release", 0):
        return False
    family.targets = entries
    family.unrecognized_fields["custom"] = {**custom, "min_release": floor}
    return True


def allow(
    family: Targets,
    name: str,
    release: int,
    *,
    devices: Collection[str],
    group: str,
    not_after: float,
) -> int:
    """Add a one-time leave to go down to `release`; its number, which is never used twice.

    Raises:
        RefusedError: the release is not on offer (404), or is below the security floor, which
            devices hold against overrides too.
    """
    if f"{name}/{release}" not in family.targets:
        raise RefusedError(f"{name}:{release} is not on offer, so nothing can go down to it", 404)
    custom = family.unrecognized_fields.setdefault("custom", {})
    if release < (floor := custom.get("min_release", 0)):
        raise RefusedError(
            f"{name}:{release} is below the security floor {floor}; no override leads there"
        )
    number: int = custom.get("overrides", 0) + 1
    custom["overrides"] = number
    entry = TargetFile.from_data(f"{name}/override/{number}", b"", ["sha256"])
    entry.unrecognized_fields["custom"] = {
        "override": {
            "devices": sorted(devices),
            "group": group,
            "allow_release": release,
            "not_after": int(not_after),
            "once": True,
        }
    }
    family.targets[entry.path] = entry
    return number


def _entry(path: str, package: Package) -> TargetFile:
    """The package as a signed target.

    Its content is its description, which travels within the entry as text: that way it may hold
    what signed metadata cannot (fractions), and what is hashed is what is read.
    """
    text = json.dumps(describe(package), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    entry = TargetFile.from_data(path, text.encode(), ["sha256"])
    entry.unrecognized_fields["custom"] = {"description": text}
    return entry


def _digest(entry: TargetFile) -> str:
    return str(json.loads(entry.custom["description"])["digest"])
