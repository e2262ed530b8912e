"""The repository's signed metadata as one text, so that it can travel inside a desired document.

Base64 of gzip of a JSON object {file name: base64 of its bytes}.  Nothing here is trusted: the
signatures are checked by whoever reads the files.  What is checked is that reading costs little.
"""

import base64
import binascii
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

from agent.core.errors import RefusedError
from agent.core.names import FILE_PATTERN
from agent.core.strict import read_object

PACKED_BYTES_MAX = 256 * 1024  # gzipped
PLAIN_BYTES_MAX = 2 * 2**20  # what it may unfold to
FILES_MAX = 128
_GZIP = 31  # zlib's wbits for the gzip format, the largest window
_FILE = re.compile(FILE_PATTERN)


def pack_metadata(files: Mapping[str, bytes]) -> str:
    """The files as one text; the same files always give the same text.

    Raises:
        RefusedError: they are too many or too large, or a name is not flat and plain.
    """
    if len(files) > FILES_MAX:
        raise RefusedError(f"{len(files)} metadata files are too many; at most {FILES_MAX} travel")
    for name in files:
        _check_name(name)
    plain = json.dumps({name: base64.b64encode(files[name]).decode() for name in sorted(files)})
    if len(plain) > PLAIN_BYTES_MAX:
        raise RefusedError(_too_large(f"{len(plain)} bytes", PLAIN_BYTES_MAX), 413)
    packer = zlib.compressobj(9, zlib.DEFLATED, _GZIP)
    packed = packer.compress(plain.encode()) + packer.flush()
    if len(packed) > PACKED_BYTES_MAX:
        raise RefusedError(_too_large(f"{len(packed)} bytes packed", PACKED_BYTES_MAX), 413)
    return base64.b64encode(packed).decode()


def unpack_metadata(text: str) -> dict[str, bytes]:
    """The files out of `text`.

    Raises:
        RefusedError: it is no such text, or unfolds to more than we hold.
    """
    if len(text) > PACKED_BYTES_MAX * 4 // 3 + 4:
        raise RefusedError(_too_large(f"{len(text)} characters", PACKED_BYTES_MAX), 413)
    unpacker = zlib.decompressobj(_GZIP)
    try:
        plain = unpacker.decompress(base64.b64decode(text, validate=True), PLAIN_BYTES_MAX + 1)
    except (binascii.Error, ValueError) as error:
        raise RefusedError(f"metadata is not base64: {error}") from error
    except zlib.error as error:
        raise RefusedError(f"metadata is not gzip: {error}") from error
    if len(plain) > PLAIN_BYTES_MAX:
        raise RefusedError(_too_large("more", PLAIN_BYTES_MAX), 413)
    if not unpacker.eof or unpacker.unused_data:
        raise RefusedError("metadata is cut short, or has something behind its end")
    document = read_object(plain, "metadata", bytes_max=PLAIN_BYTES_MAX)
    if len(document) > FILES_MAX:
        raise RefusedError(f"metadata has {len(document)} files; at most {FILES_MAX} are read")
    return {_check_name(name): _content(name, value) for name, value in document.items()}


def version_of(files: Mapping[str, bytes]) -> int:
    """How new a bundle says it is: the version in its timestamp.json; -1 if it does not say.

    Only good for choosing which of two bundles to try: nothing of it is verified here.
    """
    try:
        signed = read_object(
            files.get("timestamp.json", b""), "timestamp.json", bytes_max=PLAIN_BYTES_MAX
        ).get("signed")
    except RefusedError:
        return -1
    version = signed.get("version") if isinstance(signed, dict) else None
    return version if isinstance(version, int) and not isinstance(version, bool) else -1


def _content(name: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise RefusedError(f"metadata: {name} is not base64 text")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RefusedError(f"metadata: {name} is not base64: {error}") from error


def _check_name(name: str) -> str:
    if _FILE.fullmatch(name) is None:
        raise RefusedError(f"metadata: {name[:80]!r} is no file name; names are flat and plain")
    return name


def _too_large(size: str, limit: int) -> str:
    return (
        f"metadata is too large to travel in a desired document ({size}, at most {limit}); "
        "leave it out and let the device fetch it from the repository"
    )
