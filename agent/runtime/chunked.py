"""A repository behind the broker: files pulled in chunks over the link that stands anyway.

For devices that reach nothing but their broker.  The device asks and the repository answers, so
back-pressure is the device's: at most `WINDOW_BLOCKS` blocks are out at once.  The protocol itself
is in `core.chunks` and `core.transfer`; here are the waiting, the retrying and the routing.
"""

import asyncio
import random
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress

import structlog

from agent.core.chunks import (
    BLOCK_BYTES_MAX,
    Block,
    Rejection,
    blocks_of,
    read_answer,
    span_of,
    write_request,
)
from agent.core.enclosed import PACKED_BYTES_MAX, unpack_metadata
from agent.core.errors import RefusedError, UnavailableError
from agent.core.packages import FileEntry
from agent.core.topics import Topics
from agent.core.transfer import MetadataTransfer, Transfer
from agent.ports import Link, Message, Partial

BUNDLE_BYTES_MAX = PACKED_BYTES_MAX * 4 // 3 + 4
RESTARTS_MAX = 4  # of the metadata, replaced while it came
WAIT_S_MAX = 60.0  # between tries, whatever the back-off says

log = structlog.get_logger(__name__)


class ChunkedFetcher:
    """A `ports.Fetcher` over a Link.  Whoever reads the link's messages hands them to `take`.

    All on one event loop.  `counts` tells what came since the start: blocks and bytes that were
    wanted, answers ignored (nobody asked, twice, malformed), requests sent again.

    Args:
        timeout_s: how long the first try waits for an answer; each further one twice as long.
        tries_max: how many tries in a row without a single block end a call.
        block_bytes: of one chunk; less where the link takes no packets of 128 KiB and a header.
    """

    def __init__(
        self,
        link: Link,
        *,
        root: str,
        device: str,
        timeout_s: float = 10.0,
        tries_max: int = 5,
        block_bytes: int = BLOCK_BYTES_MAX,
    ) -> None:
        self._link = link
        self._topics = Topics(root, device)
        self._timeout_s = timeout_s
        self._tries_max = tries_max
        self._block_bytes = block_bytes
        self._waiting: dict[str, tuple[Transfer, asyncio.Queue[Block | Rejection]]] = {}
        self.counts = {"blocks": 0, "bytes": 0, "ignored": 0, "retries": 0}

    def take(self, message: Message) -> bool:
        """Whether `message` was an answer for us (a bad one too).  Never waits."""
        if message.topic != self._topics.repo_data:
            return False
        try:
            answer = read_answer(message.payload)
        except RefusedError as error:
            log.debug("chunks.malformed", why=str(error))
            answer = None
        waiting = None if answer is None else self._waiting.get(answer.id)
        if answer is None or waiting is None or not _deliver(answer, *waiting):
            self.counts["ignored"] += 1
        return True

    async def metadata(self) -> Mapping[str, bytes]:
        """The repository's metadata files by name.  Raises UnavailableError."""
        transfer = MetadataTransfer(
            secrets.token_hex(8), bytes_max=BUNDLE_BYTES_MAX, block_bytes=self._block_bytes
        )
        async with self._blocks(transfer) as blocks:
            async for _ in blocks:
                if transfer.restarts > RESTARTS_MAX:
                    raise UnavailableError("the repository's metadata changes faster than it comes")
        try:
            return unpack_metadata(transfer.body.decode("ascii", "replace").strip())
        except RefusedError as error:
            raise UnavailableError(f"the repository's {error}") from error

    async def fetch(self, file: FileEntry, into: Partial, progress: Callable[[int], None]) -> None:
        """Fill the holes of `into`; `progress` is told of bytes as they come.

        Raises:
            UnavailableError: it broke off; what came stays, the next call goes on from there.
        """
        transfer = Transfer(
            secrets.token_hex(8),
            file=file.sha256,
            size=file.size,
            blocks=blocks_of(into.holes(), self._block_bytes),
            block_bytes=self._block_bytes,
        )
        async with self._blocks(transfer) as blocks:
            async for block in blocks:
                start, _ = span_of(block.index, file.size, self._block_bytes)
                await asyncio.to_thread(into.write, start, block.body)
                progress(len(block.body))

    @asynccontextmanager
    async def _blocks(self, transfer: Transfer) -> AsyncIterator[AsyncIterator[Block]]:
        """The blocks of `transfer` as they come, until it is done."""
        inbox: asyncio.Queue[Block | Rejection] = asyncio.Queue(maxsize=64)
        self._waiting[transfer.token] = (transfer, inbox)
        try:
            async with aclosing(self._pull(transfer, inbox)) as blocks:
                yield blocks
        finally:
            del self._waiting[transfer.token]

    async def _pull(
        self, transfer: Transfer, inbox: asyncio.Queue[Block | Rejection]
    ) -> AsyncGenerator[Block, None]:
        tries = 0
        while not (transfer.done and inbox.empty()):
            cut = False
            wait_s = min(self._timeout_s * 2**tries, WAIT_S_MAX)
            try:
                async with asyncio.timeout(wait_s):
                    if (request := transfer.ask(inbox.qsize())) is not None:
                        await self._link.publish(self._topics.repo_get, write_request(request))
                    answer = await inbox.get()
            except TimeoutError:
                why = f"no answer on {self._topics.repo_get}; is `edge-agent repo serve` running?"
            except UnavailableError as error:
                why, cut = str(error), True
            except RefusedError as error:
                raise UnavailableError(f"the broker takes no chunk requests: {error}") from error
            else:
                if isinstance(answer, Rejection):
                    raise UnavailableError(f"the repository says {answer.code}: {answer.why}")
                tries = 0
                self.counts["blocks"] += 1
                self.counts["bytes"] += len(answer.body)
                yield answer
                continue
            tries += 1
            if tries >= self._tries_max:
                raise UnavailableError(why)
            self.counts["retries"] += 1
            transfer.lost()
            if cut:
                await self._stands_again(wait_s)

    async def _stands_again(self, wait_s: float) -> None:
        """Until the link stands again, or `wait_s` are over; never at once."""
        await asyncio.sleep(min(wait_s, 1.0) * random.uniform(0.1, 0.5))  # noqa: S311 - jitter
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._link.connected()


def _deliver(
    answer: Block | Rejection, transfer: Transfer, inbox: asyncio.Queue[Block | Rejection]
) -> bool:
    """Whether the transfer had a use for `answer`; then it is in its inbox."""
    try:
        if isinstance(answer, Block) and not transfer.take(answer):
            return False
    except UnavailableError as error:
        answer = Rejection(answer.id, 507, str(error))
    try:
        inbox.put_nowait(answer)
    except asyncio.QueueFull:  # only rejections can be so many, and the first of them ends it
        return False
    return True
