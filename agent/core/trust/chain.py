"""From the root this device trusts up to one model family: signatures, versions, expiry.

python-tuf's TrustedMetadataSet does the judging (TUF 1.0, section 5); what is here hands it bytes
in the right order, from what is stored and from what came, and keeps what was proven.  It is not
ngclient's Updater, which needs files and a network and keeps its floor in a cache it does not sync.
TrustedMetadataSet is private to python-tuf: tests/unit/test_trust_library.py pins what we rely on.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tuf.api.exceptions import (
    BadVersionNumberError,
    EqualVersionNumberError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import TOP_LEVEL_ROLE_NAMES, DelegatedRole, Signed, Targets
from tuf.api.serialization import DeserializationError, SerializationError
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from agent.core.names import is_id
from agent.core.trust.gate import BUNDLE_BYTES_MAX, ROOTS_MAX, check
from agent.core.trust.refusal import Kind, UntrustedError
from agent.core.trust.state import RELEASE_MAX, TrustState

TIMESTAMP_BYTES_MAX = 16 * 1024
_ROOT_FILE = re.compile(r"([1-9][0-9]{0,8})\.root\.json")
_KINDS: tuple[tuple[type[RepositoryError], Kind], ...] = (
    (ExpiredMetadataError, Kind.EXPIRED),
    (UnsignedMetadataError, Kind.SIGNATURE),
    (LengthOrHashMismatchError, Kind.MISMATCH),
    (BadVersionNumberError, Kind.VERSION),
    (DeserializationError, Kind.MALFORMED),
    (SerializationError, Kind.MALFORMED),
    (RepositoryError, Kind.VERSION),  # a role that vanished from the snapshot
)
_ADVICE = {
    Kind.EXPIRED: "publish again (`edge-agent repo publish`); what runs here goes on",
    Kind.SIGNATURE: "too few of the keys this device trusts have signed it",
    Kind.VERSION: "this is not the newest that was seen here, or a mixture of two generations",
}


@dataclass(frozen=True)
class Climb:
    """What was proven: the state to keep, and when the first of what it rests on expires.

    `family` is the metadata of the family that was asked for; None if none was.
    """

    state: TrustState
    top: Targets
    family: Targets | None
    expires: float

    def signs_for(self, path: str) -> str | None:
        """The family whose signature counts for the target `path`; None if it is nobody's.

        TUF asks the delegations in their order; families are terminating, so the first that may
        sign for a path is the only one.
        """
        roles = _families(self.top)
        return next((name for name, role in roles.items() if role.is_delegated_path(path)), None)


def begin(root_file: bytes) -> TrustState:
    """The state of a device that has seen nothing yet but its root file.

    Raises:
        UntrustedError: the file is not a root that is signed by itself.
    """
    with _blame("the root file"):
        check("root", root_file)
        TrustedMetadataSet(root_file, EnvelopeType.METADATA)
    return TrustState(roles={"root": root_file}, anchor=hashlib.sha256(root_file).hexdigest())


def anchored(state: TrustState, root_file: bytes) -> TrustState:
    """`state` under this root file: itself, unless whoever runs the device has replaced the file.

    Then trust starts again from the new file; the floors stay.

    Raises:
        UntrustedError: the file is not a root that is signed by itself.
    """
    if state.is_from(root_file):
        return state
    fresh = begin(root_file)
    return replace(state, roles=fresh.roles, anchor=fresh.anchor)


def climb(
    state: TrustState, bundle: Mapping[str, bytes], family: str | None, *, now: float
) -> Climb:
    """Verify `bundle` on top of `state`, and the metadata of `family` if one is named.

    `now` is one moment for the whole climb, in seconds since 1970-01-01 UTC.

    Raises:
        UntrustedError: with what had been proven until then in its `state`.
    """
    ladder = _Ladder(state, bundle, now)
    try:
        ladder.root()
        ladder.timestamp()
        ladder.snapshot()
        ladder.targets("targets", "root")
        found = ladder.family(family) if family is not None else None
    except UntrustedError as error:
        error.state = replace(state, roles=ladder.roles)
        raise
    return ladder.top(found)


class _Ladder:
    """The order of the steps, and what stands after each."""

    def __init__(self, state: TrustState, bundle: Mapping[str, bytes], now: float) -> None:
        self.state = state
        self.roles = dict(state.roles)
        self._bundle = bundle
        self._taken_bytes = 0
        self._stale: RepositoryError | None = None  # what the last recalled role had against it
        with _blame("the stored root"):
            self._set = TrustedMetadataSet(state.roles["root"], EnvelopeType.METADATA)
        # The library reads the clock; a device's clock is not to be believed just so.
        self._set.reference_time = datetime.fromtimestamp(now, UTC)

    def root(self) -> None:
        found = (_ROOT_FILE.fullmatch(name) for name in self._bundle)
        newer = sorted(n for m in found if m and (n := int(m[1])) > self._set.root.version)
        for version in newer[:ROOTS_MAX]:
            if version != self._set.root.version + 1:
                raise UntrustedError(
                    Kind.ROOT_CHAIN,
                    f"the bundle has root {version} but this device needs root"
                    f" {self._set.root.version + 1} first; send a bundle that begins there",
                )
            self._take("root", f"{version}.root.json", self._set.update_root)
        if len(newer) > ROOTS_MAX:  # what was taken is kept, so the next try gets further
            raise UntrustedError(
                Kind.BOUNDS,
                f"of {len(newer)} new roots the first {ROOTS_MAX} were taken, which is the most at"
                " once; try again",
            )

    def timestamp(self) -> None:
        # As stored it is the floor for the new one, expired or not.  If a new root has revoked the
        # keys that signed it, it counts for nothing: that is how a fast-forward is recovered from.
        self._recall("timestamp", self._set.update_timestamp, ExpiredMetadataError)
        with suppress(EqualVersionNumberError):  # what we hold stays, whatever came of that number
            self._take("timestamp", "timestamp.json", self._set.update_timestamp)

    def snapshot(self) -> None:
        def trusted(raw: bytes) -> object:
            return self._set.update_snapshot(raw, trusted=True)

        if not self._recall("snapshot", trusted, ExpiredMetadataError, BadVersionNumberError):
            name = self._name("snapshot", self._set.timestamp.snapshot_meta.version)
            self._take("snapshot", name, self._set.update_snapshot)

    def targets(self, role: str, delegator: str) -> Targets:
        def update(raw: bytes) -> Targets:
            return self._set.update_delegated_targets(raw, role, delegator)

        meta = self._set.snapshot.meta.get(f"{role}.json")
        if meta is None:
            raise UntrustedError(Kind.MISSING, f"the snapshot does not name {role}.json")
        if not self._recall(
            role, update, ExpiredMetadataError, BadVersionNumberError, LengthOrHashMismatchError
        ):
            self._take(role, self._name(role, meta.version), update)
        signed = self._set[role]
        assert isinstance(signed, Targets)
        return signed

    def family(self, name: str) -> Targets:
        """The metadata of the family."""
        top = self._set.targets
        if top.targets or (top.delegations and top.delegations.succinct_roles):
            raise UntrustedError(
                Kind.DELEGATION,
                "targets.json lists files or bins of its own; here it may only name model families",
            )
        if not is_id(name) or name not in _families(top):
            raise UntrustedError(
                Kind.UNKNOWN, f"the repository has no model named {name!r}", code=404
            )
        return self.targets(name, "targets")

    def top(self, found: Targets | None) -> Climb:
        """All steps hold: the new state."""
        signed: list[Signed] = [self._set.root, self._set.timestamp, self._set.snapshot]
        signed += [self._set.targets, *([found] if found else [])]
        first_expiry = min(role.expires.timestamp() for role in signed)
        kept = TOP_LEVEL_ROLE_NAMES | _families(self._set.targets).keys()
        state = replace(
            self.state,
            roles={role: raw for role, raw in self.roles.items() if role in kept},
            # No single key may push the time past what all the others have signed for.
            time_floor=max(self.state.time_floor, min(_issued(self._set.timestamp), first_expiry)),
        )
        return Climb(state, self._set.targets, found, first_expiry)

    def _name(self, role: str, version: int) -> str:
        return f"{version}.{role}.json" if self._set.root.consistent_snapshot else f"{role}.json"

    def _recall(
        self, role: str, update: Callable[[bytes], object], *stale: type[RepositoryError]
    ) -> bool:
        """Put what is stored before the set; whether it is still the current one.

        Only the errors named, or a revoked key, may make stored metadata count for less; any other
        is damage, and damage is not forgotten in silence, because the floor would go with it.
        """
        self._stale = None
        raw = self.roles.get(role)
        if raw is None:
            return False
        forgiven: tuple[type[RepositoryError], ...] = (UnsignedMetadataError, *stale)
        with _blame(f"the stored {role}"):
            try:
                update(raw)
            except forgiven as error:
                self._stale = error
                return False
        return True

    def _take(self, role: str, name: str, update: Callable[[bytes], object]) -> None:
        raw = self._bundle.get(name)
        if raw is None:
            with _blame(f"the stored {role}"):
                if isinstance(self._stale, ExpiredMetadataError):
                    raise self._stale
            raise UntrustedError(Kind.MISSING, f"the metadata bundle lacks {name}; send it whole")
        self._taken_bytes += len(raw)
        if self._taken_bytes > BUNDLE_BYTES_MAX:
            raise UntrustedError(
                Kind.BOUNDS,
                f"up to {name} the metadata has {self._taken_bytes} bytes; at most"
                f" {BUNDLE_BYTES_MAX} are read: remove old releases",
            )
        if role == "timestamp" and len(raw) > TIMESTAMP_BYTES_MAX:
            raise UntrustedError(
                Kind.BOUNDS, f"{name} has {len(raw)} bytes; at most {TIMESTAMP_BYTES_MAX} are read"
            )
        with _blame(name):
            check(name, raw)
            update(raw)
        self.roles[role] = raw


@contextmanager
def _blame(what: str) -> Iterator[None]:
    """Say in our words what the library has against `what`."""
    try:
        yield
    except EqualVersionNumberError:
        raise  # no refusal: the caller knows what it means
    except RepositoryError as error:
        kind = next(kind for cls, kind in _KINDS if isinstance(error, cls))
        advice = f" ({_ADVICE[kind]})" if kind in _ADVICE else ""
        raise UntrustedError(kind, f"{what}: {error}{advice}") from error


def _issued(timestamp: Signed) -> float:
    """When the timestamp was signed, by its own account; 0 if it does not say."""
    custom = timestamp.unrecognized_fields.get("custom")
    issued = custom.get("issued") if isinstance(custom, dict) else None
    return float(issued) if type(issued) is int and 0 <= issued <= RELEASE_MAX else 0.0


def _families(top: Targets) -> Mapping[str, DelegatedRole]:
    return (top.delegations.roles if top.delegations else None) or {}
