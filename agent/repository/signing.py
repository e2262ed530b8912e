"""The publishing side of trust: what is offered, by whom signed, until when.

Writes what `core.trust` verifies.  Packages and blobs are not its business: it is told what the
repository offers and signs that.  The metadata on disk is its only memory.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    MetaFile,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)

from agent.adapters.files.durable import weather, write_atomic
from agent.core.errors import RefusedError
from agent.core.packages import Package
from agent.repository.generation import Generation
from agent.repository.keys import KeyFolder
from agent.repository.offers import allow, check_names, offer
from agent.repository.shelf import Shelf

TIMESTAMP_DAYS = 30
TOP = ("root", "targets", "snapshot", "timestamp")


@dataclass(frozen=True)
class Profile:
    """Which keys sign what (labels), and how many of them must."""

    keys: Mapping[str, tuple[str, ...]]
    thresholds: Mapping[str, int] = field(default_factory=dict)


PROFILES = {
    "solo": Profile(
        {
            **dict.fromkeys(("root", "targets", "families"), ("owner",)),
            **dict.fromkeys(("snapshot", "timestamp"), ("online",)),
        }
    ),
    "team": Profile(
        {
            "root": ("root-1", "root-2", "root-3"),
            "targets": ("targets-1", "targets-2"),
            "families": ("models-1", "models-2"),
            "snapshot": ("snapshot",),
            "timestamp": ("timestamp",),
        },
        {"root": 2, "targets": 2, "families": 2},
    ),
}


class Signing:
    """The signed metadata of the repository in `repo_dir`; get one from `open` or `create`.

    `clock` gives seconds since 1970-01-01 UTC.
    """

    def __init__(self, repo_dir: Path, keys: KeyFolder, clock: Callable[[], float]) -> None:
        self._anchor = repo_dir / "root.json"
        self._shelf = Shelf(repo_dir / "metadata")
        self._keys = keys
        self._clock = clock

    @classmethod
    def open(
        cls,
        repo_dir: Path,
        keys_dir: Path | None = None,
        passphrase: bytes | None = None,
        *,
        pin: bytes | None = None,
        clock: Callable[[], float] = time.time,
    ) -> "Signing":
        """The repository that is there, with such keys as are there (`repo_dir/keys` by default).

        Raises:
            RefusedError: there is none (404), or a key does not open.
        """
        signing = cls(repo_dir, KeyFolder(keys_dir or repo_dir / "keys", passphrase, pin), clock)
        if not signing._shelf.roots():
            raise RefusedError(
                f"{repo_dir} is no signed repository: `edge-agent repo init` it", 404
            )
        return signing

    @classmethod
    def create(
        cls,
        repo_dir: Path,
        profile: str = "solo",
        keys_dir: Path | None = None,
        passphrase: bytes | None = None,
        *,
        pin: bytes | None = None,
        uris: Mapping[str, str] = MappingProxyType({}),
        timestamp_days: int = TIMESTAMP_DAYS,
        clock: Callable[[], float] = time.time,
    ) -> "Signing":
        """A new repository with new keys, offering nothing yet.

        The trust anchor for devices is `repo_dir/root.json`.  `timestamp_days` is how long devices
        go on installing without hearing anything new; long for a fleet without a network.
        `uris` are keys on tokens, by the label of the key that each is taken for.

        Raises:
            RefusedError: no such profile or label (400), a token that does not answer, or there is
                a repository already (409).
        """
        if (plan := PROFILES.get(profile)) is None:
            raise RefusedError(
                f"there is no profile {profile!r}; choose one of {', '.join(PROFILES)}"
            )
        signing = cls(repo_dir, KeyFolder(keys_dir or repo_dir / "keys", passphrase, pin), clock)
        if signing._shelf.roots() or signing._anchor.exists():
            raise RefusedError(f"{repo_dir} holds a signed repository already", 409)
        labels = dict.fromkeys(label for role in plan.keys.values() for label in role)
        made = dict(zip(labels, signing._keys.create_all(labels, uris), strict=True))
        root = Root()
        for role in TOP:
            for label in plan.keys[role]:
                root.add_key(made[label], role)
            root.roles[role].threshold = plan.thresholds.get(role, 1)
        authors = {made[label].keyid: made[label] for label in plan.keys["families"]}
        targets = Targets(delegations=Delegations(dict(authors), {}))
        targets.unrecognized_fields["custom"] = {  # who signs families that do not exist yet
            "families": {"keyids": list(authors), "threshold": plan.thresholds.get("families", 1)}
        }
        timestamp = Timestamp(snapshot_meta=MetaFile(1))
        timestamp.unrecognized_fields["custom"] = {"days": timestamp_days}
        first = Generation(root, targets, {}, Snapshot(), timestamp)
        for signed in (root, targets, first.snapshot, timestamp):
            signed.version = 0
        for role in ("root", "targets", "snapshot"):
            first.touch(role, clock())
        try:
            signing._commit(first)
        except RefusedError:
            signing._keys.discard(key.keyid for key in made.values())
            raise
        return signing

    def publish(self, packages: Iterable[Package]) -> list[str]:
        """From now on the repository offers `packages`, all of them and nothing else.

        Nothing that has not changed is signed again unless it runs out soon, so a new release needs
        the keys of its family and the online ones only.  Returns sentences about what will run out
        and could not be renewed, because its keys are not here.

        Raises:
            RefusedError: keys are missing, a release comes with other files than before, a name
                cannot be signed for, or the metadata would be too large for devices.
        """
        now = self._clock()
        generation = Generation.load(self._shelf)
        wanted: dict[str, dict[str, Package]] = {name: {} for name in generation.families}
        for package in packages:
            path = f"{package.ref.name}/{package.ref.release}"
            wanted.setdefault(package.ref.name, {})[path] = package
        check_names(wanted)
        for name in sorted(wanted.keys() - generation.families.keys()):
            self._delegate(generation, name, now)
        for name, offered in wanted.items():
            if offer(generation.families[name], name, offered, now):
                generation.touch(name, now)
        notes = self._renew(generation, now)
        self._commit(generation)
        return notes

    def allow(
        self,
        name: str,
        release: int,
        *,
        devices: Collection[str] = (),
        group: str = "",
        not_after: float,
    ) -> int:
        """Sign a one-time leave for `devices`, or every device of `group`, to go down to `release`.

        `not_after` is in seconds since 1970-01-01 UTC.  Returns the number of the override.

        Raises:
            RefusedError: there is no such model or release here, or keys are missing.
        """
        generation = Generation.load(self._shelf)
        if name not in generation.families:
            raise RefusedError(f"{name} is not published here", 404)
        number = allow(
            generation.families[name],
            name,
            release,
            devices=devices,
            group=group,
            not_after=not_after,
        )
        generation.touch(name, self._clock())
        self._commit(generation)
        return number

    def rotate(self, role: str, uris: Mapping[str, str] = MappingProxyType({})) -> list[Path]:
        """Replace the keys of `role` (root, targets, snapshot, timestamp or a model family).

        They are replaced wherever they sign: in the solo profile the owner's key signs three roles.
        `uris` as in `create`.  Returns the files of the old keys, put out of use and now to be
        destroyed.

        Raises:
            RefusedError: no such role (404), or too few keys are here to sign the change.
        """
        now = self._clock()
        generation = Generation.load(self._shelf)
        rows = list(generation.roles())
        gone = next((list(row.keyids) for name, row, _ in rows if name == role), None)
        if gone is None:
            raise RefusedError(f"there is no role {role!r} here", 404)
        made = self._keys.create_all([self._keys.label(keyid) for keyid in gone], uris)
        fresh = dict(zip(gone, made, strict=True))
        custom = generation.targets.unrecognized_fields["custom"]["families"]
        if set(custom["keyids"]) & fresh.keys():
            custom["keyids"] = [fresh[k].keyid if k in fresh else k for k in custom["keyids"]]
            generation.touch("targets", now)
        for name, row, table in rows:
            if set(row.keyids) & fresh.keys():
                row.keyids = [fresh[k].keyid if k in fresh else k for k in row.keyids]
                generation.touch("root" if name in TOP else "targets", now)
                if name not in ("root", "timestamp"):  # the timestamp is always signed anew
                    generation.touch(name, now)
            for keyid in table.keys() & fresh.keys():
                del table[keyid]
                table[fresh[keyid].keyid] = fresh[keyid]
        try:
            self._commit(generation)
        except RefusedError:
            self._keys.discard(key.keyid for key in fresh.values())
            raise
        return self._keys.retire(gone)

    def bundle(self, first_root: int | None = None) -> dict[str, bytes]:
        """The current metadata by file name, as a device wants it.

        `first_root` is for a device that is more roots behind than one bundle may hold: give it the
        roots from there on, and then again from where that ended.
        """
        generation = Generation.load(self._shelf)
        return self._shelf.bundle(generation.versions(), first_root)

    def _commit(self, generation: Generation) -> None:
        generation.commit(self._shelf, self._keys, self._clock())
        if "root" in generation.changed:
            newest = self._shelf.roots()[generation.root.version]
            with weather(f"cannot write {self._anchor}"):
                write_atomic(self._anchor, newest.read_bytes())

    def _delegate(self, generation: Generation, name: str, now: float) -> None:
        delegations = generation.targets.delegations
        assert delegations
        assert delegations.roles is not None
        author = generation.targets.unrecognized_fields["custom"]["families"]
        paths = [f"{name}/*", f"{name}/override/*"]
        delegations.roles[name] = DelegatedRole(
            name, list(author["keyids"]), author["threshold"], terminating=True, paths=paths
        )
        generation.families[name] = Targets()
        generation.families[name].version = 0
        generation.touch(name, now)
        generation.touch("targets", now)

    def _renew(self, generation: Generation, now: float) -> list[str]:
        """Touch what runs out soon, if its keys are here; else a sentence about it."""
        notes = []
        for name, row, _ in generation.roles():
            if name == "timestamp" or name in generation.changed or not generation.due(name, now):
                continue
            if len(self._keys.signers(row.keyids)) >= row.threshold:
                generation.touch(name, now)
            else:
                notes.append(f"{name} runs out soon and needs {row.threshold} of its keys to renew")
        return notes
