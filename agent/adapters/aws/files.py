"""File streams in place of chunk requests: the same blocks, in IoT Core's words.

IoT Core numbers the files of a stream and carries no digests: the job says which is which,
`"stream": {"id": "s1", "files": {"sha256:…": 0}, "metadata": 7}`.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agent.core.chunks import Block, Rejection, Request, etag_of_digest

REQUEST_BYTES_MAX = 128 * 1024  # of blocks, in one request
BLOCK_BYTES_MAX = 64 * 1024  # in base64 and a document, still within a message
OPEN_MAX = 64  # requests remembered


@dataclass(frozen=True, slots=True)
class _Open:
    request: Request
    file: int
    size: int
    etag: bytes


class Files:
    """Translates requests for blocks, and the blocks that come."""

    def __init__(self) -> None:
        self._stream: Mapping[str, Any] = {}
        self._sizes: dict[int, int] = {}
        self._version = 0
        self._open: dict[str, _Open] = {}

    @property
    def stream(self) -> str:
        """The stream that the job names; empty if it names none."""
        name = self._stream.get("id")
        return name if isinstance(name, str) and "/" not in name else ""

    @property
    def is_described(self) -> bool:
        """Whether IoT Core has told what is in the stream."""
        return bool(self._sizes)

    def offered(self, stream: object) -> None:
        """What a job says of its stream."""
        if isinstance(stream, dict) and stream != self._stream:
            self._stream, self._sizes = stream, {}

    def described(self, document: Mapping[str, Any]) -> None:
        """What IoT Core says of the stream: its version, and the sizes of its files."""
        self._version = int(document.get("s", 0))
        self._sizes = {int(file["f"]): int(file["z"]) for file in document.get("r", [])}

    def asked(self, request: Request) -> Iterator[dict[str, Any]] | Rejection:
        """The documents that ask IoT Core for what `request` wants; or why there are none."""
        files = self._stream.get("files")
        known = files if isinstance(files, dict) else {}
        number = self._stream.get("metadata") if request.file is None else known.get(request.file)
        if not isinstance(number, int) or number not in self._sizes:
            what = request.file or "metadata"
            return Rejection(request.id, 404, f"the job's stream has no {what}")
        if request.file is None:
            etag = hashlib.sha256(f"{self.stream} {self._version}".encode()).digest()[:8]
        else:
            etag = etag_of_digest(request.file)
        while len(self._open) >= OPEN_MAX:
            self._open.pop(next(iter(self._open)))
        self._open[request.id] = _Open(request, number, self._sizes[number], etag)
        return self._documents(request, number)

    def _documents(self, request: Request, number: int) -> Iterator[dict[str, Any]]:
        each = max(1, REQUEST_BYTES_MAX // request.block_bytes)
        for at in range(0, len(request.blocks), each):
            blocks = request.blocks[at : at + each]
            first, bits = blocks[0], 0
            for block in blocks:
                bits |= 1 << (block - first)
            span = blocks[-1] - first + 1
            yield {
                "c": request.id,
                "s": self._version,
                "f": number,
                "l": request.block_bytes,
                "o": first,
                "n": len(blocks),
                "b": "0x" + bits.to_bytes((span + 7) // 8, "little").hex(),
            }

    def came(self, document: Mapping[str, Any]) -> Block | None:
        """The block in a message of data; None if nobody asked for it, or it is damaged."""
        asked = self._open.get(str(document.get("c")))
        index, body = document.get("i"), document.get("p")
        if asked is None or not isinstance(index, int) or not isinstance(body, str):
            return None
        try:
            raw = base64.b64decode(body, validate=True)
        except binascii.Error:
            return None
        if document.get("f") != asked.file:
            return None
        block_bytes = asked.request.block_bytes
        return Block(asked.request.id, index, block_bytes, asked.size, asked.etag, raw)

    def rejected(self, document: Mapping[str, Any]) -> Rejection | None:
        """Why a request is not answered; None if nobody made it."""
        if str(document.get("c")) not in self._open:
            return None
        if document.get("o") == "VersionMismatch":
            self._sizes = {}  # described anew at the next request
        why = f"{document.get('o')}: {document.get('m', '')}"
        return Rejection(str(document["c"]), 502, why[:500])
