"""A repository on a web server: any that serves static files, ranges or not.

The server is trusted with nothing: how many bytes come is decided by the metadata, not by it; a
redirect may not change the scheme; and whoever sends slower than `RATE_BYTES_MIN` is left.
"""

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from urllib.parse import urljoin, urlsplit

import structlog
import urllib3
from urllib3.exceptions import HTTPError

from agent.core.enclosed import PACKED_BYTES_MAX, unpack_metadata
from agent.core.errors import RefusedError, UnavailableError
from agent.core.packages import CHUNK_BYTES, FileEntry
from agent.ports import Partial

BUNDLE_FILE = "metadata.bundle"
BUNDLE_BYTES_MAX = PACKED_BYTES_MAX * 4 // 3 + 4
REDIRECTS_MAX = 3
CONNECT_S_MAX = 10.0
READ_S_MAX = 20.0  # without a single byte
RATE_BYTES_MIN = 1024  # per second, on average, once RATE_GRACE_S have gone by
RATE_GRACE_S = 30.0
GATHER_S = 0.05
_RANGE = re.compile(r"^bytes (\d+)-(\d+)/(\d+|\*)$")

log = structlog.get_logger(__name__)


class HttpsFetcher:
    """A `ports.Fetcher` over http(s).  `url` is where `metadata.bundle` and `blobs/` lie.

    `ca_file`: whom to trust instead of the system's authorities.

    Raises:
        RefusedError: it is no such URL, or `ca_file` cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        ca_file: str = "",
        read_s_max: float = READ_S_MAX,
        rate_bytes_min: float = RATE_BYTES_MIN,
        rate_grace_s: float = RATE_GRACE_S,
    ) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise RefusedError(f"{url!r} is no repository on the web; write https://host/path")
        self._url = url if url.endswith("/") else f"{url}/"
        self._rate_bytes_min = rate_bytes_min
        self._rate_grace_s = rate_grace_s
        try:
            context = ssl.create_default_context(cafile=ca_file or None)
        except OSError as error:
            raise RefusedError(f"the certificates in {ca_file} cannot be read: {error}") from error
        self._pool = urllib3.PoolManager(
            num_pools=4,
            ssl_context=context,
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT_S_MAX, read=read_s_max),
        )

    def close(self) -> None:
        """Close the connections that are kept for reuse."""
        self._pool.clear()

    async def metadata(self) -> Mapping[str, bytes]:
        """The repository's metadata files by name.  Raises UnavailableError."""
        text = bytearray()
        async with self._get(BUNDLE_FILE, {}) as response:
            body = self._body(response)
            while chunk := await body.read(BUNDLE_BYTES_MAX + 1 - len(text)):
                text += chunk
        try:
            return unpack_metadata(text.decode("ascii", "replace").strip())
        except RefusedError as error:
            raise UnavailableError(f"{self._url}{BUNDLE_FILE}: {error}") from error

    async def fetch(self, file: FileEntry, into: Partial, progress: Callable[[int], None]) -> None:
        """Fill the holes of `into`; `progress` is told of bytes as they come.

        Raises:
            UnavailableError: it broke off; what came stays, the next call goes on from there.
        """
        for start, end in into.holes():
            ranges = {} if (start, end) == (0, file.size) else {"Range": f"bytes={start}-{end - 1}"}
            async with self._get(f"blobs/sha256/{file.hex}", ranges) as response:
                at = _starts_at(response, file, start, end)
                body = self._body(response)
                while at < end and (chunk := await body.read(min(end, _block_end(at)) - at)):
                    fresh = chunk[max(0, start - at) :]  # a server without ranges begins at 0
                    at += len(chunk)
                    if fresh:
                        await asyncio.to_thread(into.write, at - len(fresh), fresh)
                        progress(len(fresh))
            if at < end:
                raise UnavailableError(f"{file.path} broke off at byte {at} of {file.size}")

    def _body(self, response: urllib3.BaseHTTPResponse) -> "_Body":
        return _Body(response, self._rate_bytes_min, self._rate_grace_s)

    @asynccontextmanager
    async def _get(
        self, path: str, headers: Mapping[str, str]
    ) -> AsyncIterator[urllib3.BaseHTTPResponse]:
        url = urljoin(self._url, path)
        for _ in range(REDIRECTS_MAX + 1):
            response = await self._ask(url, headers)
            try:
                target = response.get_redirect_location()
                if not target:
                    if response.status not in (200, 206):
                        raise UnavailableError(f"{url} answers {response.status} {response.reason}")
                    yield response
                    return
            finally:
                response.close()
            url = _hop(url, target)
        raise UnavailableError(f"{self._url}{path} redirects more than {REDIRECTS_MAX} times")

    async def _ask(self, url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        try:
            return await asyncio.to_thread(
                self._pool.request,
                "GET",
                url,
                headers={"Accept-Encoding": "identity", **headers},
                preload_content=False,
                redirect=False,
            )
        except HTTPError as error:
            raise UnavailableError(f"{url} cannot be reached: {_plain(error)}") from error


class _Body:
    """The body of a response, read as it comes and with an eye on the clock."""

    def __init__(
        self, response: urllib3.BaseHTTPResponse, rate_bytes_min: float, rate_grace_s: float
    ) -> None:
        self._response = response
        self._rate_bytes_min = rate_bytes_min
        self._rate_grace_s = rate_grace_s
        self._began = time.monotonic()
        self._got = 0

    async def read(self, bytes_max: int) -> bytes:
        """What has come, up to `bytes_max`; empty at the end."""
        try:
            chunk = await asyncio.to_thread(self._gather, min(CHUNK_BYTES, bytes_max))
        except asyncio.CancelledError:
            with suppress(ValueError, RuntimeError, OSError):
                self._response.shutdown()  # or its thread would read on
            raise
        except (HTTPError, OSError) as error:
            raise UnavailableError(f"the download broke off: {_plain(error)}") from error
        self._got += len(chunk)
        took = time.monotonic() - self._began
        if chunk and took > self._rate_grace_s and self._got < took * self._rate_bytes_min:
            raise UnavailableError(f"the server sends {self._got / took:.0f} bytes/s: too slow")
        return chunk

    def _gather(self, amount: int) -> bytes:
        """TLS gives 16 KiB at a time, and to hand those to a thread and back costs more than they
        do; but nobody waits long for what comes slowly.
        """
        parts, size, until = [], 0, time.monotonic() + GATHER_S
        while size < amount:
            part = self._response.read1(amount - size, decode_content=False)
            parts.append(part)
            size += len(part)
            if not part or time.monotonic() >= until:
                break
        return b"".join(parts)


def _block_end(at: int) -> int:
    """Of the block that `at` lies in: one that comes whole is not read again for its digest."""
    return (at // CHUNK_BYTES + 1) * CHUNK_BYTES


def _hop(url: str, target: str) -> str:
    """Where a redirect leads."""
    try:
        hop = urljoin(url, target)
        scheme = urlsplit(hop).scheme
    except ValueError as error:
        raise UnavailableError(f"{url} redirects to {target[:80]!r}, which is no URL") from error
    if scheme != urlsplit(url).scheme:
        raise UnavailableError(f"{url} redirects to {hop[:80]!r}; another scheme is not followed")
    return hop


def _starts_at(response: urllib3.BaseHTTPResponse, file: FileEntry, start: int, end: int) -> int:
    """The byte of the file at which the body begins."""
    length = response.headers.get("Content-Length")
    if response.status == 206:
        found = _RANGE.match(response.headers.get("Content-Range", ""))
        right = found is not None and (int(found[1]), int(found[2])) == (start, end - 1)
        if found is None or not right or found[3] not in ("*", str(file.size)):
            offered = response.headers.get("Content-Range", "nothing")[:80]
            raise UnavailableError(
                f"asked for bytes {start}-{end - 1} of {file.path}, the server offers {offered!r}"
            )
        return start
    if length is not None and length != str(file.size):
        raise UnavailableError(
            f"{file.path} should have {file.size} bytes, the server offers {length[:20]}"
        )
    return 0


def _plain(error: Exception) -> str:
    """The innermost reason, without urllib3's object addresses."""
    reason: object = error
    while getattr(reason, "reason", None) is not None and not isinstance(reason.reason, str):  # type: ignore[attr-defined]
        reason = reason.reason  # type: ignore[attr-defined]
    text = str(reason)
    return text.rpartition(">: ")[2] or type(reason).__name__
