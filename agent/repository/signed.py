"""The Publisher of a signed repository: what `publishing` changes, `signing` signs."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from agent.core.packages import Package
from agent.repository.layout import Repository
from agent.repository.signing import TIMESTAMP_DAYS, Signing


class SignedPublisher:
    """Signs with the keys in `keys` (the repository's own `keys/` if None).

    `profile` and `timestamp_days` matter for a new repository only, `uris` also for `rotate`; see
    `Signing.create`.
    """

    def __init__(
        self,
        *,
        keys: Path | None = None,
        passphrase: bytes | None = None,
        pin: bytes | None = None,
        uris: Mapping[str, str] = MappingProxyType({}),
        profile: str = "solo",
        timestamp_days: int = TIMESTAMP_DAYS,
    ) -> None:
        self._keys = keys
        self._passphrase = passphrase
        self._pin = pin
        self._uris = uris
        self._profile = profile
        self._timestamp_days = timestamp_days

    def init(self, repo: Repository) -> None:
        """Keys, and the devices' trust anchor `root.json`."""
        Signing.create(
            repo.folder,
            self._profile,
            self._keys,
            self._passphrase,
            pin=self._pin,
            uris=self._uris,
            timestamp_days=self._timestamp_days,
        )

    def write(self, repo: Repository, packages: Sequence[Package]) -> Sequence[str]:
        """See `Publisher.write`."""
        return self._signing(repo).publish(packages)

    def rotate(self, repo: Repository, role: str) -> Sequence[Path]:
        """Replace the keys of `role`; gives the files of the old keys, to be destroyed.

        Raises:
            RefusedError: there is no such role (404), or too few keys are here.
        """
        with repo.writing():
            retired = self._signing(repo).rotate(role, self._uris)
            repo.write_bundle()
        return retired

    def allow(
        self,
        repo: Repository,
        name: str,
        release: int,
        *,
        devices: Collection[str],
        group: str,
        not_after: float,
    ) -> str:
        """Sign a leave to go down to `release`, once; gives the path it was signed under.

        Raises:
            RefusedError: there is no such release (404), it is below the security floor, or too
                few keys are here.
        """
        with repo.writing():
            number = self._signing(repo).allow(
                name, release, devices=devices, group=group, not_after=not_after
            )
            repo.write_bundle()
        return f"{name}/override/{number}"

    def _signing(self, repo: Repository) -> Signing:
        return Signing.open(repo.folder, self._keys, self._passphrase, pin=self._pin)
