"""The IoT Edge daemon's workload API, as one module sees it: a unix socket that signs.

Keeps the daemon's rules: an api-version, the module and its generation in the path, and at most ten
requests at once at one socket; whoever is the eleventh is hung up on without a word.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import secrets
import socketserver
import tempfile
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from tests.world.waiting import eventually

AT_ONCE_MAX = 10
VERSIONS = ("2018-06-28", "2019-01-30", "2019-10-22", "2020-07-07", "2021-12-07", "2022-08-03")


class Workload:
    """A context manager.  `failing` answers 500; `signed` counts; `hung_up` counts the eleventh."""

    def __init__(self, module, *, bundle="", generation="gen-1"):
        self.module, self.generation, self.bundle = module, generation, bundle
        self.key = secrets.token_bytes(32)
        self.signed = self.hung_up = self.at_once = 0
        self.failing = False
        self.until = lambda: True  # no answer before
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="w-")  # a socket's path has little room
        self.path = Path(self._folder.name) / "workload.sock"
        self._server = None

    @property
    def uri(self):
        return f"unix://{self.path}"

    def __enter__(self):
        workload = self

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True
            request_queue_size = 64

            def process_request(self, request, client_address):
                with workload._lock:
                    if workload.at_once >= AT_ONCE_MAX:
                        workload.hung_up += 1
                        self.shutdown_request(request)
                        return
                    workload.at_once += 1
                super().process_request(request, client_address)

            def process_request_thread(self, request, client_address):
                try:
                    super().process_request_thread(request, client_address)
                finally:
                    with workload._lock:
                        workload.at_once -= 1

            def handle_error(self, request, client_address):
                pass  # a client that hung up

        class Answer(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                self._say(*workload.answer("GET", self.path, b""))

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self._say(*workload.answer("POST", self.path, body))

            def _say(self, status, document):
                raw = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(raw)

        self._server = Server(str(self.path), Answer)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._folder.cleanup()

    def sign(self, text):
        return base64.b64encode(hmac.new(self.key, text, hashlib.sha256).digest()).decode()

    def answer(self, method, target, body):
        """Status and document."""
        eventually(self.until)
        if self.failing:
            return 500, {"message": "the key service is not there"}
        parts = urlsplit(target)
        if parse_qs(parts.query).get("api-version", [""])[0] not in VERSIONS:
            return 400, {"message": "no such api-version"}
        if (method, parts.path) == ("GET", "/trust-bundle"):
            return 200, {"certificate": self.bundle}
        module = quote(self.module, safe="")
        if (method, parts.path) != ("POST", f"/modules/{module}/genid/{self.generation}/sign"):
            return 404, {"message": "no such module or generation"}
        asked = json.loads(body)
        if asked.get("algo") != "HMACSHA256" or asked.get("keyId") != "primary":
            return 400, {"message": "keyId and algo"}
        self.signed += 1
        return 200, {"digest": self.sign(base64.b64decode(asked["data"]))}
