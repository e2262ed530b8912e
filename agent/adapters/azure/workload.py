"""The IoT Edge daemon's workload API: HTTP over a unix socket, which signs for us."""

import base64
import binascii
import http.client
import json
import random
import socket
import time
from typing import Any
from urllib.parse import quote, urlsplit

from agent.adapters.azure.identity import Identity
from agent.core.errors import RefusedError, UnavailableError
from agent.core.strict import read_object

TIMEOUT_S = 10.0
TRIES_MAX = 4  # the daemon hangs up, without a word, on whoever is one too many at its socket
PAUSE_S = 0.2
ANSWER_BYTES_MAX = 1024 * 1024


class Workload:
    """The daemon's answers for one module.  Each call is a connection of its own, and may wait."""

    def __init__(self, identity: Identity) -> None:
        self._uri = urlsplit(identity.workload)
        if self._uri.scheme not in ("unix", "http"):
            raise RefusedError(f"IOTEDGE_WORKLOADURI {identity.workload!r} is no unix:// socket")
        if self._uri.scheme == "unix" and not hasattr(socket, "AF_UNIX"):
            raise RefusedError("this system has no unix sockets, which IOTEDGE_WORKLOADURI needs")
        module, generation = quote(identity.module, safe=""), quote(identity.generation, safe="")
        version = quote(identity.workload_version, safe="")
        self._sign_path = f"/modules/{module}/genid/{generation}/sign?api-version={version}"
        self._trust_path = f"/trust-bundle?api-version={version}"

    def sign(self, text: bytes) -> str:
        """HMAC-SHA256 of `text` with the module's key, in base64.

        Raises:
            UnavailableError: the daemon is not there, too busy, or says no.
        """
        body = {"keyId": "primary", "algo": "HMACSHA256", "data": base64.b64encode(text).decode()}
        return self._text(self._ask("POST", self._sign_path, body), "digest")

    def trust_bundle(self) -> str:
        """PEM of the authorities behind edgeHub's certificate.  Raises UnavailableError."""
        bundle = self._text(self._ask("GET", self._trust_path), "certificate")
        if bundle.lstrip().startswith("-----BEGIN"):
            return bundle
        try:  # the published schema calls it base64; no daemon that we know does it
            return base64.b64decode(bundle, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise UnavailableError("the workload API's trust bundle is no PEM") from error

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        for left in range(TRIES_MAX - 1, -1, -1):
            try:
                return self._once(method, path, body)
            except (OSError, http.client.HTTPException) as error:
                if not left:
                    where = self._uri.geturl()
                    why = f"the workload API at {where} does not answer: {error!r}"
                    raise UnavailableError(why) from error
                time.sleep(PAUSE_S * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        raise AssertionError("unreachable")

    def _once(self, method: str, path: str, body: object) -> dict[str, Any]:
        connection = _Connection(self._uri.path) if self._uri.scheme == "unix" else self._http()
        try:
            raw = None if body is None else json.dumps(body).encode()
            headers = {"Content-Type": "application/json"} if raw else {}
            connection.request(method, path, raw, headers)
            answer = connection.getresponse()
            content = answer.read(ANSWER_BYTES_MAX + 1)
        finally:
            connection.close()
        try:
            document = read_object(content, "its answer", bytes_max=ANSWER_BYTES_MAX)
        except RefusedError as error:
            why = f"the workload API answered {answer.status}, and {error}"
            raise UnavailableError(why) from error
        if answer.status != http.client.OK:
            message = str(document.get("message"))[:500]
            raise UnavailableError(f"the workload API said {answer.status}: {message}")
        return document

    def _http(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._uri.netloc, timeout=TIMEOUT_S)

    @staticmethod
    def _text(document: dict[str, Any], member: str) -> str:
        value = document.get(member)
        if not isinstance(value, str) or not value:
            raise UnavailableError(f"the workload API's answer has no {member}")
        return value


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
