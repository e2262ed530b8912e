"""The Publisher of a signed repository: what `publishing` changes, `signing` signs."""

from collections.abc import Sequence
from pathlib import Path

from agent.core.packages import Package
from agent.repository.layout import Repository
from agent.repository.signing import TIMESTAMP_DAYS, Signing


class SignedPublisher:
    """Signs with the keys in `keys` (the repository's own `keys/` if None).

    `profile` and `timestamp_days` matter for a new repository only; see `Signing.create`.
    """

    def __init__(
        self,
        *,
        keys: Path | None = None,
        passphrase: bytes | None = None,
        profile: str = "solo",
        timestamp_days: int = TIMESTAMP_DAYS,
    ) -> None:
        self._keys = keys
        self._passphrase = passphrase
        self._profile = profile
        self._timestamp_days = timestamp_days

    def init(self, repo: Repository) -> None:
        """Keys, and the devices' trust anchor `root.json`."""
        Signing.create(
            repo.folder,
            self._profile,
            self._keys,
            self._passphrase,
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
            retired = self._signing(repo).rotate(role)
            repo.write_bundle()
        return retired

    def _signing(self, repo: Repository) -> Signing:
        return Signing.open(repo.folder, self._keys, self._passphrase)
