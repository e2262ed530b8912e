"""Keeps what this device knows of its repository, and asks `core.trust` before anything is fetched.

The state is durable before a package that rests on it is acted on, and it is stored on a refusal
too: what was learnt on the way (a revoked key, a higher version) must not be forgotten.
"""

from collections.abc import Mapping, Sequence

from agent.core import catalog
from agent.core.errors import RefusedError
from agent.core.packages import Package
from agent.core.trust import (
    TrustState,
    UntrustedError,
    anchored,
    begin,
    permits,
    resolve,
    trusted_now,
)
from agent.ports import Clock, Journal, Vault

DOCUMENT = "trust"


class Unsigned:
    """Takes a repository's own word.  Only where the configuration says `trust = "none"`."""

    def resolve(self, metadata: Mapping[str, bytes], name: str, release: int) -> Package:
        """The package as the catalog lists it.  Raises RefusedError."""
        raw = metadata.get(catalog.FILE)
        if raw is None:
            raise RefusedError(f"the repository's metadata has no {catalog.FILE}")
        return catalog.find(raw, name, release)

    def permits(self, name: str, release: int) -> bool:  # noqa: ARG002  # as every resolver
        """Always: there is no floor without signatures."""
        return True


class Unanchored:
    """Takes nothing: no trust anchor was given, and unsigned packages were not asked for."""

    def resolve(
        self,
        metadata: Mapping[str, bytes],  # noqa: ARG002  # as every resolver
        name: str,
        release: int,
    ) -> Package:
        """Always raises RefusedError."""
        why = (
            f"{name}:{release} is not installed: this device has no trust anchor; copy the"
            " repository's root.json here and name it in repository.root_file"
        )
        raise RefusedError(why, 403)

    def permits(self, name: str, release: int) -> bool:  # noqa: ARG002  # as every resolver
        """Always: what is here came when there was an anchor, or with the device."""
        return True


class Trusting:
    """Takes what the repository's keys have signed, by the TUF profile of docs/spec/trust.md."""

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
    ) -> None:
        """Raises RefusedError where `root_file` is no root, or both copies are damaged."""
        self._journal = journal
        self._vault = vault
        self._clock = clock
        self._built_at = built_at
        self._device = device
        self._groups = groups
        state = self._remembered()
        self._state = begin(root_file) if state is None else anchored(state, root_file)

    def _remembered(self) -> TrustState | None:
        """What this device knew, from whichever copy is whole; None if it never knew anything."""
        damage: UntrustedError | None = None
        for copy in (self._journal.load_document, self._vault.recall):
            raw = copy(DOCUMENT)
            if raw is not None:
                try:
                    return TrustState.from_bytes(raw)
                except UntrustedError as error:
                    damage = error
        if damage is not None:
            raise damage  # to start over would forget the floor
        return None

    def resolve(self, metadata: Mapping[str, bytes], name: str, release: int) -> Package:
        """The package, if its release is signed for this device and not below the floor.

        Raises:
            RefusedError: it is not; the sentence begins with the kind.
            UnavailableError: the state could not be stored.
        """
        now, _ = trusted_now(self._state, self._clock.wall(), self._built_at)
        try:
            accepted = resolve(
                self._state,
                metadata,
                name,
                release,
                now=now,
                device=self._device,
                groups=self._groups,
            )
        except UntrustedError as error:
            if error.state is not None:
                self._keep(error.state)
            raise
        self._keep(accepted.state)
        return accepted.package

    def permits(self, name: str, release: int) -> bool:
        """Whether `release`, which is here already, is not below the signed security floor."""
        return permits(self._state, name, release)

    def _keep(self, state: TrustState) -> None:
        if state != self._state:
            self._vault.keep(DOCUMENT, state.to_bytes())
            self._journal.save_document(DOCUMENT, state.to_bytes())
            self._state = state
