"""Which version is meant, and whom it is for."""

from collections.abc import Mapping, Sequence

from agent.core.errors import RefusedError
from agent.core.packages import Package
from agent.core.wire import Desired, parse_desired
from agent.repository.fleet import Device, Newer, part


def pick(packages: Sequence[Package], name: str, version: str) -> Package:
    """The package of model `name` whose version, else whose release, is `version`; empty: newest.

    Raises:
        RefusedError: there is none.
    """
    ours = sorted((p for p in packages if p.ref.name == name), key=lambda p: p.ref.release)
    if not ours:
        names = ", ".join(sorted({p.ref.name for p in packages})) or "nothing yet"
        raise RefusedError(f"the repository has no model {name}; it has {names}", 404)
    if not version:
        return ours[-1]
    for package in reversed(ours):
        if package.version == version:
            return package
    for package in ours:
        if str(package.ref.release) == version:
            return package
    there = ", ".join(p.version for p in ours[-8:])
    raise RefusedError(f"the repository has no {name}:{version}; it has {there}", 404)


def members_of(fleet: Mapping[str, Device], group: str) -> set[str]:
    """The devices whose reports say that they are in `group`."""
    return {
        name
        for name, device in fleet.items()
        if isinstance(groups := device.report.get("groups"), list) and group in groups
    }


def wished_by(device: str, model: str, documents: Mapping[str, bytes]) -> bool:
    """Whether `device` has a desired document of its own that names `model`."""
    for topic, raw in documents.items():
        if topic.endswith(f"/{device}/desired") and not _is_groups(topic):
            wish = _wish(raw)
            return wish is not None and model in wish.models
    return False


def replacement(
    raw: bytes, model: str, release: int, *, above: int | None, of: str
) -> Newer | None:
    """What the desired document `raw`, of the device or group `of`, wishes of `model` instead of
    `release`; None if that stands.

    `above`: only a higher revision counts; None where `raw` goes over the document that was
    followed, and then it has to name the model.
    """
    wish = _wish(raw)
    if wish is None or (above is not None and wish.revision <= above):
        return None
    other = wish.models.get(model)
    if (other is None and above is None) or (other is not None and other.release == release):
        return None
    said = f"no {model}" if other is None else f"{model}:{other.release}"
    words = f"revision {wish.revision} of {of} wishes for {said} instead"
    return Newer(wish.revision if above is not None else None, words)


def check_not_lost(device: Device, model: str, documents: Mapping[str, bytes]) -> None:
    """Whether it is safe to begin a desired document for `device` where the broker has none.

    Raises:
        RefusedError: the device runs other models by a document that the broker has lost; a new
            one would retire them.
    """
    others = sorted(name for name in part(device.report, "models") if name != model)
    groups = [_wish(raw) for topic, raw in documents.items() if _is_groups(topic)]
    from_group = any(wish is not None and wish.revision == device.revision for wish in groups)
    if device.revision > 0 and others and not from_group:
        raise RefusedError(
            f"the broker has lost the desired document by which {device.name} runs"
            f" {', '.join(others)} (revision {device.revision}), and a new one would retire them;"
            " if that is meant, pass --fresh",
            409,
        )


def _is_groups(topic: str) -> bool:
    levels = topic.split("/")
    return len(levels) >= 4 and levels[-3] == "group"


def _wish(raw: bytes) -> Desired | None:
    try:
        return parse_desired(raw)
    except RefusedError:
        return None
