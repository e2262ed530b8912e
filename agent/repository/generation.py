"""All roles of a repository at one moment, and the step to the next: signed whole, written whole.

Every signature is made before the first byte is written, so a missing key changes nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import (
    Key,
    Metadata,
    MetaFile,
    Role,
    Root,
    Signed,
    Snapshot,
    Targets,
    Timestamp,
)

from agent.core.errors import RefusedError
from agent.core.trust import BUNDLE_BYTES_MAX
from agent.repository.keys import KeyFolder
from agent.repository.shelf import Shelf
from agent.repository.tokens import speaking

LIFE_DAYS = {"root": 5 * 365, "targets": 365, "family": 180, "snapshot": 90}
ROOTS_BYTES = 64 * 1024  # of what a device reads, left for new roots
RENEW_SHARE = 1 / 3  # of its life left: signed again although it has not changed


@dataclass
class Generation:
    """The signed parts of every role.  Say what changes with `touch`, then `commit`."""

    root: Root
    targets: Targets
    families: dict[str, Targets]
    snapshot: Snapshot
    timestamp: Timestamp
    changed: set[str] = field(default_factory=set)
    old_root: Role | None = None  # whose keys must sign a new root too; None for the first

    @classmethod
    def load(cls, shelf: Shelf) -> "Generation":
        """The current generation.

        Raises:
            RefusedError: part of it is missing or damaged.
        """
        root = shelf.load(Root, list(shelf.roots().values())[-1].name)
        timestamp = shelf.load(Timestamp, "timestamp.json")
        snapshot = shelf.load(Snapshot, f"{timestamp.snapshot_meta.version}.snapshot.json")
        versions = {
            name.removesuffix(".json"): meta.version for name, meta in snapshot.meta.items()
        }
        signed = {r: shelf.load(Targets, f"{v}.{r}.json") for r, v in versions.items()}
        old = root.roles["root"]
        return cls(
            root,
            signed.pop("targets"),
            signed,
            snapshot,
            timestamp,
            old_root=Role(list(old.keyids), old.threshold),
        )

    def touch(self, role: str, now: float) -> None:
        """`role` changes: it gets the next version and a fresh life."""
        if role not in self.changed:
            self.changed.add(role)
            signed = self._signed(role)
            signed.version += 1
            signed.expires = _in(LIFE_DAYS.get(role, LIFE_DAYS["family"]), now)

    def due(self, role: str, now: float) -> bool:
        """Whether `role` should be signed again before it expires."""
        left_s = self._signed(role).expires.timestamp() - now
        return left_s < RENEW_SHARE * 86400 * LIFE_DAYS.get(role, LIFE_DAYS["family"])

    def versions(self) -> dict[str, int]:
        """Role -> version, of every role whose file is named by it and that may be pruned."""
        roles = {"targets": self.targets, **self.families, "snapshot": self.snapshot}
        return {role: signed.version for role, signed in roles.items()}

    def commit(self, shelf: Shelf, keys: KeyFolder, now: float) -> None:
        """Sign what changed and write it; the timestamp is always new.

        Raises:
            RefusedError: too few of a role's keys are here, or the metadata has become too large.
        """
        files: dict[str, bytes] = {}
        if "root" in self.changed:
            raw = self._sign("root", keys)
            files[f"{self.root.version}.root.json"] = raw
        authors = sorted(self.changed & {"targets", *self.families})
        for role in authors:
            raw = self._sign(role, keys)
            files[f"{self._signed(role).version}.{role}.json"] = raw
            meta = MetaFile.from_data(self._signed(role).version, raw, ["sha256"])
            self.snapshot.meta[f"{role}.json"] = meta
        if authors or "snapshot" in self.changed or self.due("snapshot", now):
            self.touch("snapshot", now)
            raw = self._sign("snapshot", keys)
            files[f"{self.snapshot.version}.snapshot.json"] = raw
            self.timestamp.snapshot_meta = MetaFile.from_data(
                self.snapshot.version, raw, ["sha256"]
            )
        custom = self.timestamp.unrecognized_fields["custom"]
        custom["issued"] = int(now)
        self.timestamp.version += 1
        self.timestamp.expires = _in(custom["days"], now)
        raw = self._sign("timestamp", keys)
        files["timestamp.json"] = raw
        self._check_size(raw)
        shelf.write(files)
        shelf.prune(self.versions())

    def roles(self) -> Iterator[tuple[str, Role, dict[str, Key]]]:
        """Every role with its keys' ids and threshold, and the table that holds those keys."""
        for name, role in self.root.roles.items():
            yield name, role, self.root.keys
        assert self.targets.delegations
        for name, delegated in (self.targets.delegations.roles or {}).items():
            yield name, delegated, self.targets.delegations.keys

    def _role(self, name: str) -> Role:
        found: dict[str, Role] = {role: spec for role, spec, _ in self.roles()}
        return found[name]

    def _signed(self, role: str) -> Signed:
        tops: dict[str, Signed] = {
            "root": self.root,
            "targets": self.targets,
            "snapshot": self.snapshot,
            "timestamp": self.timestamp,
        }
        return tops[role] if role in tops else self.families[role]

    def _sign(self, role: str, keys: KeyFolder) -> bytes:
        demands = [self._role(role)]
        if role == "root" and self.old_root:
            demands.append(self.old_root)
        signers = keys.signers(dict.fromkeys(keyid for row in demands for keyid in row.keyids))
        here = {signer.public_key.keyid for signer in signers}
        for row in demands:
            if len(here & set(row.keyids)) < row.threshold:
                missing = ", ".join(keys.label(k) for k in row.keyids if k not in here)
                raise RefusedError(
                    f"{role} needs {row.threshold} of its {len(row.keyids)} keys to sign and"
                    f" {len(here & set(row.keyids))} are in {keys.folder}: bring {missing}"
                )
        signed: Metadata[Any] = Metadata(self._signed(role))
        for signer in signers:
            try:
                signed.sign(signer, append=True)
            except UnsignedMetadataError as error:
                label = keys.label(signer.public_key.keyid)
                with speaking(f"{label} of {role}"):
                    raise error.__cause__ or error from error
        return signed.to_bytes()

    def _check_size(self, timestamp: bytes) -> None:
        """What one device reads for one family must stay within what it takes."""
        sizes = {name: meta.length or 0 for name, meta in self.snapshot.meta.items()}
        top = (
            len(timestamp) + (self.timestamp.snapshot_meta.length or 0) + sizes.pop("targets.json")
        )
        for name, size in sizes.items():
            if ROOTS_BYTES + top + size > BUNDLE_BYTES_MAX:
                raise RefusedError(
                    f"{name} would have {size} bytes beside {top} of the other roles; devices read"
                    f" {BUNDLE_BYTES_MAX - ROOTS_BYTES} of both: remove old releases"
                )


def _in(days: float, now: float) -> datetime:
    return datetime.fromtimestamp(now, UTC).replace(microsecond=0) + timedelta(days=days)
