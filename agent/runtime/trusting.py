"""Keeps what this device knows of its repository, and asks `core.trust` before anything is fetched.

The state is durable before a package that rests on it is acted on, and it is stored on a refusal
too: what was learnt on the way (a revoked key, a higher version) must not be forgotten.
"""

import threading
from collections.abc import Mapping, Sequence

import structlog

from agent.core import catalog, trust
from agent.core.errors import RefusedError, UnavailableError
from agent.core.packages import Package
from agent.core.trust import TrustState, UntrustedError, expires, latest, permits, trusted_now
from agent.ports import Clock, Journal, Vault

DOCUMENT = "trust"
DAY_S = 86400.0
logger = structlog.get_logger(__name__)


class Unsigned:
    """Takes a repository's own word.  Only where the configuration says `trust = "none"`."""

    def resolve(self, metadata: Mapping[str, bytes], name: str, release: int) -> Package:
        """The package as the catalog lists it.  Raises RefusedError."""
        raw = metadata.get(catalog.FILE)
        if raw is None:
            raise RefusedError(f"the repository's metadata has no {catalog.FILE}")
        return catalog.find(raw, name, release)

    def refresh(self, metadata: Mapping[str, bytes], names: Sequence[str]) -> None:
        """Nothing: there is no signature to renew."""

    def permits(self, name: str, release: int) -> bool:  # noqa: ARG002  # as every resolver
        """Always: there is no floor without signatures."""
        return True

    def doubts(self, running: Mapping[str, int]) -> Sequence[str]:  # noqa: ARG002  # as every resolver
        """Always one."""
        return ['trust_none: unsigned packages are installed here (repository.trust = "none")']


class Unanchored:
    """Takes nothing: no trust anchor was given, and unsigned packages were not asked for; or, with
    a `why`, what this device knew is damaged, and with it the floor.
    """

    def __init__(self, why: str = "") -> None:
        self._why = why or (
            "this device has no trust anchor; copy the repository's root.json here and name it in"
            " repository.root_file"
        )

    def resolve(
        self,
        metadata: Mapping[str, bytes],  # noqa: ARG002  # as every resolver
        name: str,
        release: int,
    ) -> Package:
        """Always raises RefusedError."""
        raise RefusedError(f"{name}:{release} is not installed: {self._why}", 403)

    def refresh(self, metadata: Mapping[str, bytes], names: Sequence[str]) -> None:
        """Nothing: whose signatures they should be is not known."""

    def permits(self, name: str, release: int) -> bool:  # noqa: ARG002  # as every resolver
        """Always: what is here came when there was an anchor, or with the device."""
        return True

    def doubts(self, running: Mapping[str, int]) -> Sequence[str]:  # noqa: ARG002  # as every resolver
        """None: a refusal says it when something is to be installed."""
        return []


class Trusting:
    """Takes what the repository's keys have signed, by the TUF profile of docs/spec/trust.md.

    May be asked from several threads.
    """

    def __init__(
        self,
        root_file: bytes,
        journal: Journal,
        vault: Vault,
        clock: Clock,
        *,
        built_at: float,
        device: str,
        groups: Sequence[str],
        grace_s: float = 0.0,
    ) -> None:
        """Raises RefusedError where `root_file` is no root, or both copies are damaged."""
        self._journal = journal
        self._vault = vault
        self._clock = clock
        self._built_at = built_at
        self._device = device
        self._groups = groups
        self._grace_s = grace_s
        self._lock = threading.Lock()
        self._ends: tuple[TrustState, frozenset[str], float] | None = None  # asked each second
        copies = [copy(DOCUMENT) for copy in (journal.load_document, vault.recall)]
        state = latest(copies)
        if state is None:
            self._state = trust.begin(root_file)
        else:  # most often the file is the one of old: then there are no signatures to read
            self._state = state if state.is_from(root_file) else trust.anchored(state, root_file)
        if state is not None and any(copy != state.to_bytes() for copy in copies):
            self._mend(state)

    def resolve(self, metadata: Mapping[str, bytes], name: str, release: int) -> Package:
        """The package, if its release is signed for this device and not below the floor.

        Raises:
            RefusedError: it is not; the sentence begins with the kind.
            UnavailableError: the state could not be stored.
        """
        with self._lock:
            try:
                accepted = trust.resolve(
                    self._state,
                    metadata,
                    name,
                    release,
                    now=self._now()[0],
                    device=self._device,
                    groups=self._groups,
                    grace_s=self._grace_s,
                )
            except UntrustedError as error:
                if error.state is not None:
                    self._keep(error.state)
                raise
            self._keep(accepted.state)
        return accepted.package

    def refresh(self, metadata: Mapping[str, bytes], names: Sequence[str]) -> None:
        """Learn what is new (keys, floors, the time), of the models `names` too; installs nothing.

        Raises:
            RefusedError: the metadata is not to be trusted; the sentence begins with the kind.
            UnavailableError: the state could not be stored.
        """
        with self._lock:
            try:
                state = trust.refresh(
                    self._state,
                    metadata,
                    now=self._now()[0],
                    families=names,
                    grace_s=self._grace_s,
                )
            except UntrustedError as error:
                if error.state is not None:
                    self._keep(error.state)
                raise
            self._keep(state)

    def permits(self, name: str, release: int) -> bool:
        """Whether `release`, which is here already, is not below the signed security floor."""
        return permits(self._state, name, release)

    def doubts(self, running: Mapping[str, int]) -> Sequence[str]:
        """What a person should see to although everything goes on, in sentences.

        `clock_untrusted`, `trust_stale` (with the days), and each of `running` (model -> release)
        that is below its security floor.
        """
        now, clock = self._now()
        found = [clock] if clock else []
        over_s = now - self._expires(frozenset(running))
        if over_s >= 0:
            then = "nothing new is installed"
            if over_s < self._grace_s:
                then = f"in {_days(self._grace_s - over_s)} nothing new will be installed"
            found.append(
                f"trust_stale: the repository's signatures ran out {_days(over_s)} ago; what runs"
                f" goes on, {then} until it is published again (`edge-agent repo publish`)"
            )
        found += [
            f"min_release: {name}:{release} runs below the security floor"
            f" {self._state.min_release[name]} that its repository has signed; deploy a newer one"
            for name, release in running.items()
            if not self.permits(name, release)
        ]
        return found

    def _expires(self, families: frozenset[str]) -> float:
        """`core.trust.expires`, which reads all metadata, worked out once for each state."""
        state, known = self._state, self._ends
        if known is None or known[0] is not state or known[1] != families:
            known = self._ends = (state, families, expires(state, families))
        return known[2]

    def _now(self) -> tuple[float, str]:
        return trusted_now(self._state, self._clock.wall(), self._built_at)

    def _keep(self, state: TrustState) -> None:
        if state != self._state:
            state = state.stored_again()
            self._vault.keep(DOCUMENT, state.to_bytes())
            self._journal.save_document(DOCUMENT, state.to_bytes())
            self._state = state

    def _mend(self, state: TrustState) -> None:
        """One copy is lost, damaged or behind: make both the same again, as far as that goes."""
        try:
            self._vault.keep(DOCUMENT, state.to_bytes())
            self._journal.save_document(DOCUMENT, state.to_bytes())
        except UnavailableError as error:
            logger.warning("a copy of what is trusted is not mended", why=str(error))


def _days(seconds: float) -> str:
    days = int(seconds // DAY_S)
    return f"{days} day{'' if days == 1 else 's'}"
