"""A TUF repository in memory that does as it is told, right or wrong.

Built on tuf.api alone, not on our publishing side, so that each may contradict the other.  A test
changes `root`, `targets`, `families[…]`, `signers[…]` or `files` as it likes and calls `publish`
with the roles to raise and sign again; `bundle` is what a device would be handed.
"""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from agent.core.names import Digest, ModelRef
from agent.core.packages import FileEntry, Package, describe, digest_of

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = 1_800_000_000.0  # 2027-01-15; no test asks the real clock
DAY = 86400.0
TOP = ("root", "targets", "snapshot", "timestamp")


def at(days: float) -> datetime:
    """`days` after NOW, as metadata writes it."""
    return (datetime.fromtimestamp(NOW, UTC) + timedelta(days=days)).replace(microsecond=0)


def package(name: str, release: int, content: bytes = b"", **custom: Any) -> Package:
    """A package of one small file whose bytes follow from its name, release and `content`."""
    body = content or f"{name}:{release}".encode()
    file = FileEntry("model.onnx", len(body), Digest(f"sha256:{hashlib.sha256(body).hexdigest()}"))
    ref = ModelRef(name, release, digest_of(name, (file,)))
    return Package(ref, str(release), (file,), custom=custom)


def target_of(path: str, described: Package) -> TargetFile:
    """The target entry of a package: its description, and the length and hash of that very text."""
    text = json.dumps(describe(described), sort_keys=True, separators=(",", ":"))
    entry = TargetFile.from_data(path, text.encode(), ["sha256"])
    entry.unrecognized_fields["custom"] = {"description": text}
    return entry


class TufRepository:
    """Root 2-of-3, targets 2-of-2, families 2-of-2, snapshot and timestamp one key each."""

    def __init__(self, *families: str, hashes: bool = False) -> None:
        self.hashes = hashes
        self.root = Root(expires=at(1800), consistent_snapshot=True)
        self.targets = Targets(expires=at(365), delegations=Delegations({}, {}))
        self.snapshot = Snapshot(expires=at(90))
        self.timestamp = Timestamp(expires=at(30))
        self.families: dict[str, Targets] = {}
        self.signers: dict[str, list[CryptoSigner]] = {}
        self.files: dict[str, bytes] = {}
        for role, keys in (("root", 3), ("targets", 2), ("snapshot", 1), ("timestamp", 1)):
            self.signers[role] = []
            for _ in range(keys):
                self.add_key(role)
        self.root.roles["root"].threshold = self.root.roles["targets"].threshold = 2
        for name in families or ("pump",):
            self.add_family(name)
        self.issue(NOW)
        for role in ("root", *self.families, "targets", "snapshot", "timestamp"):
            self.write(role)

    # ---- what a test reaches for ----------------------------------------------------------------

    def add_family(self, name: str, paths: list[str] | None = None, keys: int = 2) -> Targets:
        """Delegate `name/*` to a new role; not yet published."""
        family = self.families[name] = Targets(expires=at(180))
        assert self.targets.delegations
        assert self.targets.delegations.roles is not None
        self.targets.delegations.roles[name] = DelegatedRole(
            name, [], keys, True, paths=paths or [f"{name}/*", f"{name}/override/*"]
        )
        self.signers[name] = []
        for _ in range(keys):
            self.add_key(name)
        return family

    def add_key(self, role: str, signer: CryptoSigner | None = None) -> CryptoSigner:
        """A further key for `role`, which signs from now on."""
        signer = signer or CryptoSigner.generate_ed25519()
        (self.root if role in TOP else self.targets).add_key(signer.public_key, role)
        self.signers[role].append(signer)
        return signer

    def rotate(self, role: str) -> None:
        """All keys of `role` are revoked and as many new ones made; not yet published."""
        holder = self.root if role in TOP else self.targets
        gone = list(self.signers[role])
        self.signers[role] = []
        for signer in gone:
            holder.revoke_key(signer.public_key.keyid, role)
            self.add_key(role)
        if role == "root":  # the old ones sign the new root too; only the next is rid of them
            self.signers["root"] += gone

    def rotate_root(self) -> None:
        """One complete step of the root chain, published: new keys, signed by old and new."""
        self.rotate("root")
        self.publish("root")
        self.signers["root"] = self.signers["root"][:3]

    def offer(self, described: Package, family: str | None = None) -> None:
        """List a package in `family` (its own by default) and publish that."""
        family = family or described.ref.name
        path = f"{described.ref.name}/{described.ref.release}"
        self.families[family].targets[path] = target_of(path, described)
        self.publish(family)

    def allow(self, name: str, number: int, **override: Any) -> None:
        """Sign an override and publish it."""
        entry = TargetFile.from_data(f"{name}/override/{number}", b"", ["sha256"])
        entry.unrecognized_fields["custom"] = {"override": override}
        self.families[name].targets[entry.path] = entry
        self.publish(name)

    def least(self, name: str, release: int) -> None:
        """Ask for at least `release` from now on, and publish that."""
        self.families[name].unrecognized_fields["custom"] = {"min_release": release}
        self.publish(name)

    def issue(self, when: float) -> None:
        self.timestamp.unrecognized_fields["custom"] = {"issued": int(when)}

    # ---- publishing -----------------------------------------------------------------------------

    def publish(self, *roles: str) -> None:
        """Raise and sign `roles`, and whatever must follow: snapshot and timestamp."""
        wanted = dict.fromkeys(roles)
        if set(roles) - {"root", "timestamp"}:
            wanted |= dict.fromkeys(("snapshot", "timestamp"))
        for role in sorted(wanted, key=self._rank):
            self.signed(role).version += 1
            self.write(role)

    def write(self, role: str) -> bytes:
        """Sign `role` as it stands, without raising its version."""
        if role == "snapshot":
            for name in ("targets", *self.families):
                self.snapshot.meta[f"{name}.json"] = self._meta(name)
        if role == "timestamp":
            self.timestamp.snapshot_meta = self._meta("snapshot")
        self.files[self.name_of(role)] = raw = sign(self.signed(role), self.signers[role])
        return raw

    def signed(self, role: str) -> Signed:
        tops: Mapping[str, Signed] = {
            "root": self.root,
            "targets": self.targets,
            "snapshot": self.snapshot,
            "timestamp": self.timestamp,
        }
        return tops[role] if role in tops else self.families[role]

    def name_of(self, role: str) -> str:
        """The file in which `role` stands."""
        return (
            "timestamp.json" if role == "timestamp" else f"{self.signed(role).version}.{role}.json"
        )

    def bundle(self) -> dict[str, bytes]:
        """What a device is handed: every root and the newest of everything else."""
        roots = [name for name in self.files if name.endswith(".root.json")]
        current = [self.name_of(role) for role in (*TOP[1:], *self.families)]
        return {name: self.files[name] for name in (*roots, *current) if name in self.files}

    @property
    def root_file(self) -> bytes:
        return self.files["1.root.json"]

    def _meta(self, role: str) -> MetaFile:
        version, raw = self.signed(role).version, self.files.get(self.name_of(role))
        return (
            MetaFile.from_data(version, raw, ["sha256"])
            if self.hashes and raw
            else MetaFile(version)
        )

    def _rank(self, role: str) -> int:
        order = ("root", "targets", "snapshot", "timestamp")
        return order.index(role) if role in ("snapshot", "timestamp") else 0


def sign(signed: Signed, signers: list[CryptoSigner]) -> bytes:
    """`signed` with a good signature of each signer."""
    metadata = Metadata(signed)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()
