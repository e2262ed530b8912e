"""Why a bundle or a release was not trusted: one error, with a word that programs can compare."""

from enum import StrEnum
from typing import TYPE_CHECKING

from agent.core.errors import RefusedError

if TYPE_CHECKING:
    from agent.core.trust.state import TrustState


class Kind(StrEnum):
    """What was wrong.  The words are part of the interface: they stand in `reported`."""

    BOUNDS = "bounds"  # larger, or more of it, than anything honest
    MALFORMED = "malformed"  # not the metadata it should be
    MISSING = "missing"  # the bundle lacks a file that the signed metadata names
    KEY = "key"  # a key of a type we do not take, or one key under two names
    SIGNATURE = "signature"  # fewer good signatures than the threshold
    ROOT_CHAIN = "root_chain"  # a root was skipped
    VERSION = "version"  # metadata older than what was seen, or of another generation
    MISMATCH = "mismatch"  # length or hash differs from the signed one
    EXPIRED = "expired"  # too old to act on
    UNKNOWN = "unknown"  # no such model or release for this device
    DELEGATION = "delegation"  # whoever signed this may not sign for that model
    ROLLBACK = "rollback"  # below the floor
    MIN_RELEASE = "min_release"  # below the signed security floor
    DIGEST = "digest"  # the accepted release came again with other bytes
    CORRUPT = "corrupt"  # our own stored state is damaged


class UntrustedError(RefusedError):
    """Refused: nothing is installed and what runs goes on.

    `kind` says what was wrong; the text begins with it.  `state`, when there is one, is what had
    been proven before the refusal (a root that revokes a key, a newer version seen): store it, so
    that what was learnt holds although nothing is installed.
    """

    def __init__(
        self, kind: Kind, why: str, *, state: "TrustState | None" = None, code: int = 403
    ) -> None:
        super().__init__(f"{kind}: {why}", code)
        self.kind = kind
        self.state = state
