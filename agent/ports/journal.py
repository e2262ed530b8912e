"""What the agent knows of itself after a restart, and what it signs with."""

from collections.abc import Sequence
from typing import Protocol

from agent.core.rollout import Rollout


class Journal(Protocol):
    """Control state.  Durable before `save…` returns; `load…` gives the last state saved whole."""

    def load(self, model: str) -> Rollout: ...
    def save(self, model: str, rollout: Rollout) -> None: ...
    def models(self) -> Sequence[str]: ...
    def load_document(self, name: str) -> bytes | None: ...
    def save_document(self, name: str, body: bytes) -> None: ...
    def document_names(self) -> Sequence[str]:
        """The names of all documents saved."""
        ...

    def drop_documents(self, names: Sequence[str]) -> None:
        """Forget these; they need not be there."""
        ...


class Notes(Protocol):
    """The part of the journal that keeps small documents."""

    def load_document(self, name: str) -> bytes | None: ...
    def save_document(self, name: str, body: bytes) -> None: ...


class Vault(Protocol):
    """A second copy, apart from the journal, of the little that must outlive it."""

    def keep(self, name: str, body: bytes) -> None:
        """Durable on return.  Raises UnavailableError."""
        ...

    def recall(self, name: str) -> bytes | None:
        """What was kept under `name` last; None if nothing was."""
        ...


class Signer(Protocol):
    """The device's own key: by it others know what this device has said."""

    keyid: str
    scheme: str  # as TUF names them: ed25519, ecdsa-sha2-nistp256

    def sign(self, body: bytes) -> str:
        """The signature of `body`, in hexadecimal; takes no longer than a signature takes."""
        ...
