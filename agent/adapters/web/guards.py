"""Who may ask what: checks before any page is looked for, and headers on every answer.

Host and Origin are checked always, against DNS rebinding and foreign pages; the token where there
is one.  A browser cannot send a bearer token when it opens a page, so for reading the token is also
taken as the password of Basic authentication; nothing that changes anything may be asked that way.
"""

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.adapters.web.saying import refuse, say

HEADER_BYTES_MAX = 8 * 1024
BODY_BYTES_MAX = 64 * 1024
READING = ("GET", "HEAD")
CHALLENGE = 'Bearer realm="edge-agent", Basic realm="edge-agent", charset="UTF-8"'
# For container health checks, which carry no token.
OPEN_PATHS = ("/livez", "/readyz", "/v2/health/live", "/v2/health/ready")
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 -- recognised here, bound only by configuration

HEADERS = {
    "connection": "close",
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Names:
    """What this endpoint may be called in a Host header."""

    exact: frozenset[str]  # "name:port", lower case
    any_address: bool  # bound to every interface: whatever IP address it is called by is its own

    @classmethod
    def of(cls, bind_host: str, port: int, more: Iterable[str]) -> "Names":
        """`more` are further names, with a port where it is not ours."""
        wildcard = bind_host in WILDCARDS
        bound = () if wildcard else (_bracketed(bind_host),)
        plain = (*LOOPBACK_NAMES, *bound, *(name for name in more if not _has_port(name)))
        exact = {f"{name.lower()}:{port}" for name in plain}
        exact |= {name.lower() for name in more if _has_port(name)}
        if port == 80:
            exact |= {name.lower() for name in plain}
        return cls(frozenset(exact), wildcard)

    def take(self, host: str) -> bool:
        """Whether a request for `host` is meant for us.

        An address, unlike a name, cannot be made to point here by whoever owns a DNS zone; and a
        port may have been mapped on its way into a container.
        """
        host = host.lower()
        if host in self.exact:
            return True
        name = host.rpartition(":")[0] if _has_port(host) else host
        return self.any_address and (name in LOOPBACK_NAMES or _is_address(name))


class Guards:
    """ASGI middleware, outermost."""

    def __init__(
        self, app: ASGIApp, *, names: Names, token: str | None, posts: Callable[[str], int]
    ) -> None:
        """`posts`: how many bytes may be posted to a path; 0: none may."""
        self._app = app
        self._names = names
        self._token = token.encode() if token is not None else None
        self._posts = posts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or let through to the app; dress what comes back in `HEADERS`."""
        started = False

        async def dressed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            await (self._refusal(scope) or self._app)(scope, receive, dressed)
        except Exception:
            # A bug in one page must not take the endpoint down with it, nor pass unseen.
            log.exception("page_failed", path=scope["path"])
            if not started:
                answer = say(500, "this page failed; the agent's log says why")
                await answer(scope, receive, dressed)

    def _refusal(self, scope: Scope) -> Response | None:
        headers, method, path = Headers(scope=scope), scope["method"], scope["path"]
        host = headers.get("host", "")
        if not self._names.take(host):
            return say(421, "not a name of this endpoint; add it to http.hosts if it should be")
        if not _is_ours(headers, host):
            return say(403, "other sites may not ask here")
        post_bytes_max = self._posts(path)
        allowed = ("POST",) if post_bytes_max else READING
        if method not in allowed:
            return refuse(
                path, 405, f"only {' and '.join(allowed)} here", {"allow": ", ".join(allowed)}
            )
        size = len(scope["raw_path"]) + len(scope["query_string"])
        if size + sum(len(name) + len(value) + 4 for name, value in headers.raw) > HEADER_BYTES_MAX:
            return refuse(path, 431, f"more than {HEADER_BYTES_MAX} bytes of headers")
        limit = BODY_BYTES_MAX if method in READING else post_bytes_max
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length[:18]) > limit:
            return refuse(path, 413, f"more than {limit} bytes")
        if self._token is not None and path not in OPEN_PATHS and not self._knows(headers, method):
            sentence = "the bearer token is wanted (http.token_file)"
            return refuse(path, 401, sentence, {"www-authenticate": CHALLENGE})
        return None

    def _knows(self, headers: Headers, method: str) -> bool:
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic" and method in READING:
            try:
                decoded = base64.b64decode(secret.strip(), validate=True)
            except binascii.Error:
                return False
            given = decoded.partition(b":")[2]
        elif scheme.lower() == "bearer":
            given = secret.strip().encode()
        else:
            return False
        return self._token is not None and hmac.compare_digest(given, self._token)


def _is_ours(headers: Headers, host: str) -> bool:
    """Whether no page of another site asks: it names itself in Origin, or the browser tells."""
    origins = headers.getlist("origin")
    if any(
        origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower())
        for origin in origins
    ):
        return False
    foreign = headers.get("sec-fetch-site", "none") in ("cross-site", "same-site")
    return not foreign or headers.get("sec-fetch-mode") == "navigate"


def _has_port(host: str) -> bool:
    name, _, port = host.rpartition(":")
    return bool(name) and port.isascii() and port.isdigit() and (":" not in name or name[-1] == "]")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name[1:-1] if name[:1] == "[" and name[-1:] == "]" else name)
    except ValueError:
        return False
    return True
