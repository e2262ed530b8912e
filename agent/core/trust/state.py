"""What this device knows to be true of its repository: one value, stored whole in one transaction.

Losing it loses the floor, so damage is told apart from absence: `from_bytes` refuses what it did
not write.  It decides nothing; see `decide`.
"""

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from agent.core.names import is_digest, is_id
from agent.core.trust.refusal import Kind, UntrustedError

SCHEMA = 1
RELEASE_MAX = 2**53 - 1  # what every JSON reader holds exactly
CLOCK_AHEAD_MAX_S = 2 * 365 * 86400.0  # a clock further past the floor than this is not believed
CLOCK_BEHIND_S = 300.0  # two good clocks may differ by that: the floor is used, nobody is told
_TOP_LEVEL_ROLES = {"root", "timestamp", "snapshot", "targets"}
_MAGIC = b"edge-agent trust 1 "


@dataclass(frozen=True)
class TrustState:
    """Trusted metadata and floors.

    roles           role -> its trusted metadata, byte for byte: "root" (the newest), "timestamp",
                    "snapshot", "targets" and model families by name
    releases        family -> highest accepted release: the floor
    digests         family -> digest of the package accepted at the floor
    min_release     family -> signed security floor, which holds for local rollback too
    time_floor      seconds since 1970-01-01 UTC; it is later than this, someone signed for it
    overrides_used  paths of the signed overrides that have done their work
    anchor          SHA-256 of the root file all this grew from
    serial          how often it has been stored: of two copies, the one that knows more
    """

    roles: Mapping[str, bytes]
    releases: Mapping[str, int] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    min_release: Mapping[str, int] = field(default_factory=dict)
    time_floor: float = 0.0
    overrides_used: frozenset[str] = frozenset()
    anchor: str = ""
    serial: int = 0

    def to_bytes(self) -> bytes:
        """The state as it is stored, with a checksum; `from_bytes` is its inverse."""
        body = json.dumps(
            {
                "schema": SCHEMA,
                "roles": {role: raw.decode() for role, raw in self.roles.items()},
                "releases": dict(self.releases),
                "digests": dict(self.digests),
                "min_release": dict(self.min_release),
                "time_floor": self.time_floor,
                "overrides_used": sorted(self.overrides_used),
                "anchor": self.anchor,
                "serial": self.serial,
            },
            ensure_ascii=False,
            sort_keys=True,
            separators=(",", ":"),
        ).encode()
        return _MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body

    def is_from(self, root_file: bytes) -> bool:
        """Whether all this grew from `root_file`."""
        return self.anchor == hashlib.sha256(root_file).hexdigest()

    def stored_again(self) -> "TrustState":
        """The same, as it is to be stored now."""
        return replace(self, serial=self.serial + 1)

    @classmethod
    def from_bytes(cls, raw: bytes) -> "TrustState":
        """The state that `to_bytes` wrote.

        Raises:
            UntrustedError: kind `corrupt`: these are not those bytes.  Do not start over from the
                root file instead: that would forget the floor.
        """
        head, _, body = raw.partition(b"\n")
        if head != _MAGIC + hashlib.sha256(body).hexdigest().encode():
            raise _corrupt("its checksum does not match")
        try:
            document = json.loads(body)
            state = cls(
                roles={str(role): text.encode() for role, text in document["roles"].items()},
                releases=_counters(document["releases"]),
                digests=dict(document["digests"]),
                min_release=_counters(document["min_release"]),
                time_floor=float(document["time_floor"]),
                overrides_used=frozenset(map(str, document["overrides_used"])),
                anchor=str(document["anchor"]),
                serial=int(document.get("serial", 0)),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _corrupt(f"it cannot be read ({error})") from error
        if "root" not in state.roles or not math.isfinite(state.time_floor):
            raise _corrupt("it has no root, or no time")
        if not all(map(is_digest, state.digests.values())):
            raise _corrupt("it holds a digest that is none")
        return state


def expires(state: TrustState, families: Collection[str] = ()) -> float:
    """When the first of the stored top-level roles and of `families` expires.

    In seconds since 1970-01-01 UTC; infinity where nothing but the root file is known yet.
    """
    if "timestamp" not in state.roles:
        return math.inf
    roles = state.roles.keys() & (_TOP_LEVEL_ROLES | set(families))
    stamps = [json.loads(state.roles[role])["signed"]["expires"] for role in roles]
    return min(datetime.fromisoformat(stamp).timestamp() for stamp in stamps)


def latest(copies: Iterable[bytes | None]) -> TrustState | None:
    """What this device knew, out of the copies it keeps: of the whole ones, the one stored last.

    None is a copy that was never made; if all are, so is the answer.

    Raises:
        UntrustedError: kind `corrupt`: there are copies, and none is whole.
    """
    whole: list[TrustState] = []
    damage: UntrustedError | None = None
    for raw in copies:
        if raw is not None:
            try:
                whole.append(TrustState.from_bytes(raw))
            except UntrustedError as error:
                damage = error
    if not whole and damage is not None:
        raise damage  # to start over would forget the floor
    return max(whole, key=lambda state: state.serial, default=None)


def trusted_now(state: TrustState, system_clock: float, built_at: float) -> tuple[float, str]:
    """The time to judge signatures by, seconds since 1970-01-01 UTC, and a why if not the clock's.

    A clock is believed from the floor on (the latest signed time seen, or when this software was
    built: `built_at`) until two years after it.  Otherwise the floor itself is used, so a dead
    clock does not bring expired metadata back to life, and one absurd reading does not expire
    everything.  The why is empty if the clock is believed; else it begins with `clock_untrusted`.

    A clock that is no more than five minutes behind is not worth a word: the floor is used.

    With no floor at all (nothing signed yet, `built_at` 0) there is nothing to hold against the
    clock, and any finite reading is believed.
    """
    floor = max(state.time_floor, built_at)
    if floor <= 0 and math.isfinite(system_clock):
        return max(system_clock, 0.0), ""
    if floor <= system_clock <= floor + CLOCK_AHEAD_MAX_S:
        return system_clock, ""
    if floor - CLOCK_BEHIND_S <= system_clock < floor:
        return floor, ""
    side = "behind" if system_clock < floor else "far ahead of"
    return floor, (
        f"clock_untrusted: the clock of this device is {side} the last signed time; set the clock"
        " (NTP); until then expiry is judged by the last signed time"
    )


def permits(state: TrustState, name: str, release: int) -> bool:
    """Whether a version that is already on this device may be activated: local rollback.

    Going back to what was last known good needs no signature, but not below the security floor.
    """
    return release >= state.min_release.get(name, 0)


def _counters(document: Any) -> dict[str, int]:
    counters = {}
    for name, release in document.items():
        if not is_id(name) or type(release) is not int or not 0 <= release <= RELEASE_MAX:
            raise ValueError(f"{name!r} has the release {release!r}")
        counters[name] = release
    return counters


def _corrupt(why: str) -> UntrustedError:
    return UntrustedError(
        Kind.CORRUPT,
        f"the stored trust state is damaged: {why}; restore the store from its copy, or provision"
        " this device again",
    )
