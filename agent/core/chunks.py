"""The chunk protocol: how a device pulls files in blocks over MQTT.  Bytes in, bytes out; no I/O.

A device asks for blocks of a file by digest (JSON, with a bitmap in the manner of the AWS IoT file
streams); the repository answers one message per block (a fixed binary header, then raw bytes), or a
rejection.  `docs/spec/chunks.md` is the contract on the wire.  What a block is worth is decided
elsewhere: nothing here knows a file's content, only which bytes have come.
"""

import hashlib
import json
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from agent.core.errors import RefusedError
from agent.core.names import Digest, is_digest
from agent.core.packages import CHUNK_BYTES, FILE_BYTES_MAX
from agent.core.strict import read_object

SCHEMA = 1
BLOCK_BYTES_MIN = 256
BLOCK_BYTES_MAX = CHUNK_BYTES
REQUEST_BYTES_MAX = 4096
REQUEST_BLOCKS_MAX = 64  # a repository answers no more per request; a device asks for far fewer
WHY_CHARACTERS_MAX = 500
SPAN_BLOCKS_MAX = 8 * 1024  # from the first to the last block of one request: its bitmap's length

_MAGIC = b"EMC1"
_HEADER = struct.Struct(">4sBBIIQ8s")  # magic, kind, length of id, index, block bytes, size, etag
_BLOCK, _REJECTION = 0, 1
_ID = re.compile(r"^[A-Za-z0-9._-]{1,64}$")

Span = tuple[int, int]  # of bytes: start, end (exclusive)


@dataclass(frozen=True, slots=True)
class Request:
    """A device wants these blocks of a file; `file` None asks for the metadata bundle.

    `blocks` are block numbers, ascending, without repeats.  `size` is the file's size as the
    device knows it; None where it does not (metadata).
    """

    id: str
    file: Digest | None
    blocks: tuple[int, ...]
    size: int | None = None
    block_bytes: int = BLOCK_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a file.  `etag` tells versions of the file apart; `size` is the whole file's."""

    id: str
    index: int
    block_bytes: int
    size: int
    etag: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Rejection:
    """The repository will not answer request `id`; `code` follows HTTP."""

    id: str
    code: int
    why: str


def write_request(request: Request) -> bytes:
    """`request` as it goes over the wire; `read_request` is its inverse."""
    first = request.blocks[0]
    bits = 0
    for block in request.blocks:
        bits |= 1 << (block - first)
    count = request.blocks[-1] - first + 1
    document: dict[str, Any] = {"schema": SCHEMA, "id": request.id}
    document |= {"metadata": True} if request.file is None else {"file": request.file}
    if request.size is not None:
        document["size"] = request.size
    document |= {
        "block": request.block_bytes,
        "offset": first,
        "count": count,
        "bitmap": bits.to_bytes((count + 7) // 8, "little").hex(),
    }
    return json.dumps(document, separators=(",", ":")).encode()


def read_request(raw: bytes) -> Request:
    """A request that came from a device.

    Raises:
        RefusedError: it is none; `code` is what to answer with.
    """
    document = read_object(raw, "the chunk request", bytes_max=REQUEST_BYTES_MAX)
    if document.get("schema") != SCHEMA:
        raise RefusedError(f"a chunk request has schema {SCHEMA}")
    token = document.get("id")
    if not isinstance(token, str) or _ID.fullmatch(token) is None:
        raise RefusedError("a chunk request needs an id of up to 64 plain characters")
    file = document.get("file")
    if document.get("metadata") is True:
        file = None
    elif not isinstance(file, str) or not is_digest(file):
        raise RefusedError("a chunk request names its file as sha256:<64 hexadecimal digits>")
    block_bytes = _integer(document, "block", BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, BLOCK_BYTES_MAX)
    offset = _integer(document, "offset", 0, 0, FILE_BYTES_MAX // BLOCK_BYTES_MIN)
    count = _integer(document, "count", REQUEST_BLOCKS_MAX, 1, SPAN_BLOCKS_MAX)
    size = None
    if document.get("size") is not None:
        size = _integer(document, "size", 0, 0, FILE_BYTES_MAX)
    blocks = tuple(offset + i for i in _bits(document.get("bitmap"), count))
    if len(blocks) > REQUEST_BLOCKS_MAX:
        raise RefusedError(
            f"a chunk request wants {len(blocks)} blocks; at most {REQUEST_BLOCKS_MAX}"
        )
    if not blocks:
        raise RefusedError("a chunk request wants no block at all")
    return Request(token, None if file is None else Digest(file), blocks, size, block_bytes)


def _integer(document: dict[str, Any], key: str, default: int, low: int, high: int) -> int:
    value = document.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise RefusedError(
            f"a chunk request has {key} {value!r}; it is a number from {low} to {high}"
        )
    return value


def _bits(bitmap: object, count: int) -> Iterable[int]:
    """Set bits below `count`, bit 0 of byte 0 first; all of them where there is no bitmap."""
    if bitmap is None:
        return range(count)
    try:
        raw = bytes.fromhex(bitmap) if isinstance(bitmap, str) else None
    except ValueError:
        raw = None
    if raw is None:
        raise RefusedError("the bitmap of a chunk request is no hexadecimal text")
    bits = int.from_bytes(raw, "little")
    return [i for i in range(min(count, bits.bit_length())) if bits >> i & 1]


def write_block(block: Block) -> bytes:
    """`block` as it goes over the wire; `read_answer` is its inverse."""
    token = block.id.encode()
    head = _HEADER.pack(
        _MAGIC, _BLOCK, len(token), block.index, block.block_bytes, block.size, block.etag
    )
    return b"".join((head, token, block.body))


def write_rejection(rejection: Rejection) -> bytes:
    """`rejection` as it goes over the wire; `read_answer` is its inverse."""
    token = rejection.id.encode()
    head = _HEADER.pack(_MAGIC, _REJECTION, len(token), 0, 0, 0, b"")
    body = json.dumps({"schema": SCHEMA, "code": rejection.code, "why": rejection.why}).encode()
    return b"".join((head, token, body))


def read_answer(raw: bytes) -> Block | Rejection:
    """What the repository answered.

    Raises:
        RefusedError: it is no answer.
    """
    if len(raw) < _HEADER.size or len(raw) > _HEADER.size + 64 + BLOCK_BYTES_MAX:
        raise RefusedError(f"an answer of {len(raw)} bytes is no chunk")
    magic, kind, length, index, block_bytes, size, etag = _HEADER.unpack_from(raw)
    start = _HEADER.size + length
    token = raw[_HEADER.size : start].decode("ascii", "replace")
    if magic != _MAGIC or _ID.fullmatch(token) is None or len(token) != length:
        raise RefusedError("an answer does not start as a chunk does")
    if kind == _BLOCK:
        return Block(token, index, block_bytes, size, etag, raw[start:])
    if kind != _REJECTION:
        raise RefusedError(f"an answer is of the unknown kind {kind}")
    document = read_object(raw[start:], "a rejection", bytes_max=REQUEST_BYTES_MAX)
    code, why = document.get("code"), document.get("why")
    if not isinstance(code, int) or not isinstance(why, str):
        raise RefusedError("a rejection has a code and a sentence")
    return Rejection(token, code, why[:WHY_CHARACTERS_MAX])


def etag_of(content: bytes) -> bytes:
    """What tells this content from another: the first 8 bytes of its SHA-256."""
    return hashlib.sha256(content).digest()[:8]


def etag_of_digest(file: Digest) -> bytes:
    """The same for a file known by its digest."""
    return bytes.fromhex(file.removeprefix("sha256:")[:16])


def subtract(holes: Sequence[Span], start: int, end: int) -> list[Span]:
    """`holes` (ascending, disjoint) without the bytes from `start` to `end`."""
    if start >= end:
        return list(holes)
    left: list[Span] = []
    for low, high in holes:
        if low < min(start, high):
            left.append((low, min(start, high)))
        if max(end, low) < high:
            left.append((max(end, low), high))
    return left


def blocks_of(holes: Iterable[Span], block_bytes: int = BLOCK_BYTES_MAX) -> list[int]:
    """The blocks that touch `holes`, ascending, each once."""
    blocks: list[int] = []
    for low, high in holes:
        if low < high:
            first = low // block_bytes
            if blocks and blocks[-1] == first:
                first += 1
            blocks.extend(range(first, (high - 1) // block_bytes + 1))
    return blocks


def span_of(index: int, size: int, block_bytes: int = BLOCK_BYTES_MAX) -> Span:
    """The bytes of block `index` in a file of `size`; empty beyond its end."""
    return min(index * block_bytes, size), min((index + 1) * block_bytes, size)
