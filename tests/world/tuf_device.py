"""A device as trust sees it: what it has stored, and what it says to a bundle.

It is switched off and on again before everything it does, so whatever is not in the stored bytes is
not known.
"""

from collections.abc import Collection, Mapping

import pytest
from tuf.api.metadata import Metadata

from agent.core.trust import Accepted, Kind, TrustState, UntrustedError, begin, refresh, resolve
from tests.world.tuf_repository import NOW


class Device:
    """Stores what `core.trust` tells it to store, also when it is refused."""

    def __init__(
        self, root_file: bytes, name: str = "pump-7", groups: Collection[str] = ()
    ) -> None:
        self.name = name
        self.groups = groups
        self.stored = begin(root_file).to_bytes()

    @property
    def state(self) -> TrustState:
        return TrustState.from_bytes(self.stored)

    def install(
        self,
        bundle: Mapping[str, bytes],
        model: str = "pump",
        release: int | None = None,
        now: float = NOW,
    ) -> Accepted:
        """Ask for a release.  Raises UntrustedError, having kept what was learnt."""
        try:
            accepted = resolve(
                self.state, bundle, model, release, now=now, device=self.name, groups=self.groups
            )
        except UntrustedError as error:
            self._keep(error)
            raise
        self.stored = accepted.state.to_bytes()
        return accepted

    def look(self, bundle: Mapping[str, bytes], now: float = NOW) -> None:
        """Take the top-level metadata in, asking for nothing."""
        try:
            self.stored = refresh(self.state, bundle, now=now).to_bytes()
        except UntrustedError as error:
            self._keep(error)
            raise

    def refuses(
        self,
        bundle: Mapping[str, bytes],
        *kinds: Kind,
        model: str = "pump",
        release: int | None = None,
        now: float = NOW,
    ) -> UntrustedError:
        """Assert that the bundle is refused, for one of `kinds`, and that no floor moved down."""
        before = self.state
        with pytest.raises(UntrustedError) as caught:
            self.install(bundle, model, release, now)
        assert caught.value.kind in kinds, str(caught.value)
        assert str(caught.value).startswith(caught.value.kind)
        assert caught.value.code == (404 if caught.value.kind is Kind.UNKNOWN else 403)
        assert self.state.releases == before.releases
        return caught.value

    def version(self, role: str) -> int | None:
        """The version of a role's stored metadata; None if there is none."""
        raw = self.state.roles.get(role)
        return Metadata.from_bytes(raw).signed.version if raw else None

    def _keep(self, error: UntrustedError) -> None:
        if error.state is not None:
            self.stored = error.state.to_bytes()
