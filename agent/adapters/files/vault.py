"""The second copy of the little that must outlive the database: the trust floor, the epoch.

One small file each, replaced whole and durably.  It is read only when the database has nothing.
"""

from pathlib import Path

from agent.adapters.files.durable import make_folder, weather, write_atomic
from agent.core.errors import UnavailableError

BYTES_MAX = 4 * 2**20


class FileVault:
    """The `Vault` port over a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, name: str, body: bytes) -> None:
        """Durable on return.  Raises UnavailableError."""
        with weather(f"cannot write the second copy of {name}"):
            make_folder(self._folder)
            write_atomic(self._folder / name, body, mode=0o600)

    def recall(self, name: str) -> bytes | None:
        """What was kept under `name` last; None if nothing was.  Raises UnavailableError."""
        try:
            with weather(f"cannot read the second copy of {name}"):
                body = (self._folder / name).read_bytes()
        except UnavailableError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        return body if len(body) <= BYTES_MAX else None
