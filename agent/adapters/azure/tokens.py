"""Shared access signatures: what the hub is shown for a password, and when the next one is due."""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from urllib.parse import quote

import structlog

from agent.adapters.azure.identity import Identity
from agent.adapters.azure.workload import Workload
from agent.ports import Login

LIFE_SHARE = 0.8  # of a token's life, after which the next one is made

log = structlog.get_logger(__name__)


def token(resource: str, expires_s: int, sign: Callable[[bytes], str]) -> str:
    """A token for `resource` until `expires_s` (seconds since 1970); `sign` gives base64."""
    scope = quote(resource, safe="")
    signature = quote(sign(f"{scope}\n{expires_s}".encode()), safe="")
    return f"SharedAccessSignature sr={scope}&sig={signature}&se={expires_s}"


def sign_with(key: bytes, text: bytes) -> str:
    """HMAC-SHA256 in base64, as the workload API would answer."""
    return base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()


class HubLogin(Login):
    """Tokens of `life_s` seconds, signed by the workload API or with our own key.

    `prepare` makes the next one ahead, while the connection that stands is still good; `password`
    takes it, or makes one.  Both may wait, and belong to threads that may.

    Args:
        authorities_pem: whose certificates are believed instead of what the workload API says;
            empty where it shall say, and the system's where there is none to ask.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        life_s: float,
        authorities_pem: str = "",
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._identity = identity
        self._life_s = life_s
        self._pem = authorities_pem
        self._wall = wall
        self._clock = clock
        self._workload = Workload(identity) if identity.workload else None
        self._next: tuple[str, float] | None = None
        self.renew_at = float("inf")  # monotonic; of the token in use

    def prepare(self) -> None:
        """Make the next token.  Raises UnavailableError: there is nobody to sign it."""
        self._next = self._made()

    def password(self) -> str:
        """A token that is good now.  Raises UnavailableError: there is nobody to sign it."""
        made, self._next = self._next, None
        now = self._clock()
        if made is None or made[1] <= now:
            made = self._made()
        self.renew_at = made[1]
        return made[0]

    def authorities(self) -> str:
        """The trust bundle.  Raises UnavailableError: there is nobody to ask for it."""
        if self._pem or self._workload is None:
            return self._pem
        return self._workload.trust_bundle()

    def _made(self) -> tuple[str, float]:
        began, now = self._clock(), self._wall()
        expires_s = int(now + self._life_s)
        made = token(self._identity.resource, expires_s, self._sign)
        log.info("token made", life_s=self._life_s)
        return made, began + LIFE_SHARE * (expires_s - now)

    def _sign(self, text: bytes) -> str:
        if self._workload is not None:
            return self._workload.sign(text)
        return sign_with(self._identity.key, text)
