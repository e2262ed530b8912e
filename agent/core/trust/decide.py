"""May this release be installed here, now?  The rules on top of TUF: counters, floors, overrides.

Pure: bytes in, a verdict out; told the time.  It is asked before a byte of the package is fetched,
and only for what would be installed: activating what is already here is `state.permits`.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import TargetFile, Targets

from agent.core.errors import RefusedError
from agent.core.packages import Package, read
from agent.core.strict import read_object
from agent.core.trust.chain import Climb, climb
from agent.core.trust.gate import BUNDLE_BYTES_MAX
from agent.core.trust.refusal import Kind, UntrustedError
from agent.core.trust.state import RELEASE_MAX, TrustState

_COUNTER = r"(0|[1-9][0-9]{0,15})"  # one spelling per number


@dataclass(frozen=True)
class Accepted:
    """The verdict: this package may be fetched and installed.

    `state` is to be stored in the same transaction as the decision that rests on it; `expires` is
    when the first of the signatures behind it runs out, in seconds since 1970-01-01 UTC.
    """

    package: Package
    state: TrustState
    expires: float


def refresh(
    state: TrustState,
    bundle: Mapping[str, bytes],
    *,
    now: float,
    families: Collection[str] = (),
    grace_s: float = 0.0,
) -> TrustState:
    """What is known after `bundle`, without asking for a release: the state to store.

    Of each of `families` the signatures and the security floor are renewed too; one that the
    repository no longer has is passed over.

    Raises:
        UntrustedError: as `resolve`.
    """
    state = climb(state, bundle, None, now=now - grace_s).state
    refusal: UntrustedError | None = None
    for name in families:  # one that is refused keeps no other from being renewed
        try:
            found = climb(state, bundle, name, now=now - grace_s)
            assert found.family is not None
            state = found.state
            newest = max(_releases(name, found.family), default=0)
            state = _with_min_release(state, name, found.family, newest)
        except UntrustedError as error:
            state = error.state or state
            if error.kind is not Kind.UNKNOWN:
                refusal = refusal or error
    if refusal is not None:
        refusal.state = state
        raise refusal
    return state


def resolve(
    state: TrustState,
    bundle: Mapping[str, bytes],
    name: str,
    release: int | None,
    *,
    now: float,
    device: str = "",
    groups: Collection[str] = (),
    grace_s: float = 0.0,
) -> Accepted:
    """Whether release `release` of model `name` may be installed; None asks for the newest.

    `now` is trusted time (`trusted_now`), `grace_s` how long past its expiry metadata is still
    taken.  `device` and `groups` say whom a signed override must name.

    Raises:
        UntrustedError: code 403 (404 for a model or release that is not offered), with its `kind`,
            and in `state` what to store nevertheless.
    """
    found = climb(state, bundle, name, now=now - grace_s)
    assert found.family is not None
    state = found.state
    try:
        listed = _releases(name, found.family)
        state = _with_min_release(state, name, found.family, max(listed, default=0))
        package = _package(found, name, listed, release)
        override = _judge(state, found, package, now=now, device=device, groups=groups)
    except UntrustedError as error:
        error.state = state
        raise
    state = replace(
        state,
        releases={**state.releases, name: package.ref.release},
        digests={**state.digests, name: package.ref.digest},
        overrides_used=state.overrides_used | ({override} if override else set()),
    )
    return Accepted(package, state, found.expires)


def _releases(name: str, family: Targets) -> dict[int, TargetFile]:
    """What the family lists of its own, by release; anything else in there is nobody's business."""
    spelled = re.compile(re.escape(name) + "/" + _COUNTER)
    matches = ((spelled.fullmatch(path), entry) for path, entry in family.targets.items())
    return {int(match[1]): entry for match, entry in matches if match}


def _with_min_release(state: TrustState, name: str, family: Targets, newest: int) -> TrustState:
    """The state with the family's security floor, which only ever rises."""
    custom = family.unrecognized_fields.get("custom")
    floor = custom.get("min_release", 0) if isinstance(custom, dict) else 0
    # Above everything on offer it could only lock the device out of the family for good.
    if type(floor) is not int or not 0 <= floor <= newest:
        raise UntrustedError(
            Kind.MALFORMED, f"{name}.json asks for at least release {floor!r} and lists none such"
        )
    known = state.min_release.get(name, 0)
    return replace(state, min_release={**state.min_release, name: max(known, floor)})


def _package(
    found: Climb, name: str, listed: Mapping[int, TargetFile], release: int | None
) -> Package:
    """The package as its family describes it."""
    if release is None and listed:
        release = max(listed)
    if release is None or release not in listed:
        wish = "any release" if release is None else f"release {release}"
        there = ", ".join(map(str, sorted(listed)[-5:])) or "none"
        raise UntrustedError(
            Kind.UNKNOWN, f"{name} is not offered in {wish}; there is {there}", code=404
        )
    path = f"{name}/{release}"
    if found.signs_for(path) != name:
        raise UntrustedError(
            Kind.DELEGATION,
            f"{path} is for {found.signs_for(path) or 'nobody'} to sign; let targets.json delegate"
            f" {name}/* to {name}, before any other pattern that matches it",
        )
    entry = listed[release]
    text = entry.custom.get("description") if isinstance(entry.custom, dict) else None
    if not isinstance(text, str):
        raise UntrustedError(Kind.MALFORMED, f"{path} comes without its description")
    try:
        raw = text.encode()
        entry.verify_length_and_hashes(raw)
        package = read(read_object(raw, path, bytes_max=BUNDLE_BYTES_MAX))
    except LengthOrHashMismatchError as error:
        raise UntrustedError(Kind.MISMATCH, f"{path}: {error}") from error
    except RefusedError as error:
        raise UntrustedError(Kind.MALFORMED, f"{path}: {error}") from error
    if (package.ref.name, package.ref.release) != (name, release):
        raise UntrustedError(Kind.MISMATCH, f"{path} describes {package.ref}")
    return package


def _judge(
    state: TrustState,
    found: Climb,
    package: Package,
    *,
    now: float,
    device: str,
    groups: Collection[str],
) -> str | None:
    """Hold the release against the floors; the path of the override it needed, if it needed one."""
    name, release = package.ref.name, package.ref.release
    least = state.min_release.get(name, 0)
    if release < least:
        raise UntrustedError(
            Kind.MIN_RELEASE, f"{package.ref} is below the signed security floor {least}"
        )
    floor = state.releases.get(name, -1)
    if release > floor:
        return None
    if release == floor:
        if state.digests.get(name) == package.ref.digest:
            return None  # the same bytes again: repair
        raise UntrustedError(
            Kind.DIGEST,
            f"{package.ref} was accepted here with other bytes; publish them as a new release",
        )
    for path, entry in sorted(_overrides(name, found).items()):
        if path not in state.overrides_used and _allows(entry.custom, release, now, device, groups):
            return path
    raise UntrustedError(
        Kind.ROLLBACK,
        f"{package.ref} is older than release {floor}, which was accepted here; publish the old"
        " files under a new release, or sign an override for this device",
    )


def _overrides(name: str, found: Climb) -> dict[str, TargetFile]:
    assert found.family is not None
    spelled = re.compile(re.escape(name) + "/override/" + _COUNTER)
    return {
        path: entry
        for path, entry in found.family.targets.items()
        if spelled.fullmatch(path) and found.signs_for(path) == name
    }


def _allows(custom: Any, release: int, now: float, device: str, groups: Collection[str]) -> bool:
    """Whether a signed override lets this device install `release` now.  In doubt it does not."""
    override = custom.get("override") if isinstance(custom, dict) else None
    if not isinstance(override, dict):
        return False
    devices, group = override.get("devices"), override.get("group")
    named = (isinstance(devices, list) and bool(device) and device in devices) or (
        isinstance(group, str) and group in groups
    )
    allowed, until = override.get("allow_release"), override.get("not_after")
    return (
        named
        and type(allowed) is int
        and allowed == release
        and type(until) is int
        and now <= until <= RELEASE_MAX
    )
