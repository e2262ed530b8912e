"""`edge-agent repo serve`, the MQTT half: chunks for devices that reach nothing but a broker.

It holds no state about anyone: a request names all it needs, so a server may be restarted, or two
may run, at any time.  Devices decide how much is on its way to them; what the server decides is how
much it holds at once.  The HTTP half is in `web.py`.
"""

import queue
import re
import secrets
import threading
from collections import deque
from collections.abc import Iterator
from typing import Self

import structlog
from paho.mqtt.client import Client, ConnectFlags, MQTTMessage, MQTTMessageInfo
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.adapters.files.durable import open_regular
from agent.config import Mqtt
from agent.core.chunks import (
    REQUEST_BYTES_MAX,
    Block,
    Rejection,
    Request,
    etag_of,
    etag_of_digest,
    read_request,
    span_of,
    write_block,
    write_rejection,
)
from agent.core.errors import RefusedError, UnavailableError
from agent.core.names import is_id
from agent.core.topics import Topics
from agent.repository import dial
from agent.repository.layout import Repository

REQUESTS_MAX = 1024  # waiting; beyond it a device has to ask again
OUT_MAX = 16  # messages on their way to the broker: 2 MiB
PUBLISH_S_MAX = 10.0
_TOKEN = re.compile(rb'"id"\s*:\s*"([A-Za-z0-9._-]{1,64})"')

log = structlog.get_logger(__name__)


def answers(repo: Repository, raw: bytes) -> Iterator[tuple[bytes, bool]]:
    """What to send back for the request in `raw`: blocks (True), or one rejection (False)."""
    try:
        request = read_request(raw)
        for block in _blocks(repo, request):
            yield write_block(block), True
    except (RefusedError, UnavailableError) as error:
        code = error.code if isinstance(error, RefusedError) else 503
        token = _TOKEN.search(raw[:REQUEST_BYTES_MAX])
        if token is not None:  # without one nobody would know what was rejected
            yield write_rejection(Rejection(token[1].decode(), code, str(error)[:500])), False


def _blocks(repo: Repository, request: Request) -> Iterator[Block]:
    if request.file is None:
        bundle = repo.bundle()
        etag, size = etag_of(bundle), len(bundle)
        for index in request.blocks:
            start, end = span_of(index, size, request.block_bytes)
            if start < end:
                body = bundle[start:end]
                yield Block(request.id, index, request.block_bytes, size, etag, body)
        return
    path = repo.blobs / request.file.removeprefix("sha256:")
    try:
        with open_regular(path) as blob:
            size = path.stat().st_size
            if request.size is not None and request.size != size:
                raise RefusedError(
                    f"{request.file[:19]}… has {size} bytes here, not {request.size}", 409
                )
            etag = etag_of_digest(request.file)
            for index in request.blocks:
                start, end = span_of(index, size, request.block_bytes)
                if start >= end:
                    raise RefusedError(f"{request.file[:19]}… has no block {index}", 416)
                blob.seek(start)
                body = blob.read(end - start)
                yield Block(request.id, index, request.block_bytes, size, etag, body)
    except FileNotFoundError as error:
        raise RefusedError(f"this repository has no file {request.file[:19]}…", 404) from error
    except OSError as error:
        raise UnavailableError(f"the repository cannot read a file: {error.strerror}") from error


class ChunkServer:
    """Answers every `ROOT/repo/get/DEVICE` on `ROOT/repo/data/DEVICE`.  Enter it to start.

    `counts`: requests taken, blocks sent, rejections sent, requests dropped.

    Raises on entering:
        UnavailableError: the broker cannot be reached, or does not let us in.
    """

    def __init__(self, repo: Repository, settings: Mqtt) -> None:
        self.counts = {"requests": 0, "blocks": 0, "bytes": 0, "rejections": 0, "dropped": 0}
        self._repo = repo
        self._settings = settings
        self._requests: queue.Queue[tuple[str, bytes]] = queue.Queue(REQUESTS_MAX)
        self._ready = threading.Event()
        self._trouble = ""
        self._stopping = threading.Event()
        self._client = dial.client(settings, f"repo-serve-{secrets.token_hex(6)}")
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._sender = threading.Thread(target=self._send, name="repo-serve", daemon=True)

    def __enter__(self) -> Self:
        dial.connect(self._client, self._settings, packet_bytes_max=64 * 1024)
        self._client.loop_start()
        url = dial.url_of(self._settings)
        came = self._ready.wait(dial.CONNECT_S_MAX)
        if not came or self._trouble:
            self._client.disconnect()
            self._client.loop_stop()
            raise UnavailableError(f"{url} {self._trouble or 'does not answer'}")
        self._sender.start()
        log.info("repo.serving", broker=url, root=self._settings.root)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.set()
        self._sender.join(PUBLISH_S_MAX)
        self._client.disconnect()
        self._client.loop_stop()

    # ---- the sender's thread ---------------------------------------------------------------------

    def _send(self) -> None:
        out: deque[MQTTMessageInfo] = deque()
        while not self._stopping.is_set():
            try:
                device, raw = self._requests.get(timeout=0.2)
            except queue.Empty:
                continue
            topic = Topics(self._settings.root, device).repo_data
            for answer, is_block in answers(self._repo, raw):
                if self._stopping.is_set() or not self._client.is_connected():
                    self.counts["dropped"] += 1
                    break  # paho would hoard it; the device asks again
                out.append(self._client.publish(topic, answer, qos=1))
                self.counts["blocks" if is_block else "rejections"] += 1
                self.counts["bytes"] += len(answer)
                while len(out) > OUT_MAX:
                    self._await(out.popleft())

    def _await(self, info: MQTTMessageInfo) -> None:
        try:
            info.wait_for_publish(PUBLISH_S_MAX)
        except (RuntimeError, ValueError) as error:
            log.warning("repo.unsent", why=str(error))

    # ---- callbacks, on paho's thread -------------------------------------------------------------

    def _on_connect(
        self,
        client: Client,
        _userdata: object,
        _flags: ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._trouble = f"does not let us in: {reason}"
            self._ready.set()
            return
        client.subscribe(Topics(self._settings.root, "+").repo_get, qos=1)

    def _on_subscribe(
        self,
        _client: Client,
        _userdata: object,
        _mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        if reasons and reasons[0].is_failure:
            self._trouble = f"does not let us read chunk requests: {reasons[0]}"
        self._ready.set()

    def _on_message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        device = message.topic.rpartition("/")[2]
        if message.retain or not is_id(device):
            return
        self.counts["requests"] += 1
        try:
            self._requests.put_nowait((device, bytes(message.payload)))
        except queue.Full:
            self.counts["dropped"] += 1
