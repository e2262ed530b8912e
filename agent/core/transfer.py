"""One file on its way in blocks: what is wanted, what is out, what to ask next.  Pure; told nothing
of time: whoever drives it says when an answer has been waited for long enough (`lost`).
"""

from collections import deque
from collections.abc import Iterable

from agent.core.chunks import (
    BLOCK_BYTES_MAX,
    SPAN_BLOCKS_MAX,
    Block,
    Request,
    blocks_of,
    etag_of_digest,
    span_of,
)
from agent.core.errors import UnavailableError
from agent.core.names import Digest

WINDOW_BLOCKS = 8  # out at once: what a device must hold, and what one cut can cost on the wire


class Transfer:
    """The state of one transfer; at most `window` blocks are out at once.

    Blocks nobody asked for, of the wrong length, or there already are ignored and counted in
    `ignored`.
    """

    def __init__(
        self,
        token: str,
        *,
        file: Digest,
        size: int,
        blocks: Iterable[int],
        window: int = WINDOW_BLOCKS,
        block_bytes: int = BLOCK_BYTES_MAX,
    ) -> None:
        self.token = token
        self.file: Digest | None = file
        self.size: int | None = size
        self.ignored = 0
        self._etag: bytes | None = etag_of_digest(file)
        self._window = window
        self._block_bytes = block_bytes
        self._wanted = deque(blocks)
        self._out: set[int] = set()

    @property
    def done(self) -> bool:
        """Whether every block has come."""
        return not self._wanted and not self._out

    def ask(self, held: int = 0) -> Request | None:
        """What to ask for next; None while enough is out or nothing is left to ask for.

        `held` blocks have come and wait to be written: they take up the window as well.
        Half the window is asked for at a time, so that the next half is on its way while this one
        comes in.
        """
        room = self._window - len(self._out) - held
        if not self._wanted or room < max(1, self._window // 2):
            return None
        first = self._wanted[0]
        blocks: list[int] = []
        while self._wanted and len(blocks) < room and self._wanted[0] - first < SPAN_BLOCKS_MAX:
            blocks.append(self._wanted.popleft())
        self._out.update(blocks)
        return Request(self.token, self.file, tuple(blocks), self.size, self._block_bytes)

    def lost(self) -> None:
        """No answer came: what is out is to be asked for again, lowest first."""
        self._wanted = deque(sorted(self._out | set(self._wanted)))
        self._out.clear()

    def take(self, block: Block) -> bool:
        """Whether `block` is one that is wanted; from now on it counts as come."""
        wanted = block.index in self._out or block.index in self._wanted  # late, but welcome
        if not wanted or not self._fits(block):
            self.ignored += 1
            return False
        if block.index in self._out:
            self._out.remove(block.index)
        else:
            self._wanted.remove(block.index)
        return True

    def _fits(self, block: Block) -> bool:
        assert self.size is not None
        start, end = span_of(block.index, self.size, self._block_bytes)
        return (
            block.id == self.token
            and block.block_bytes == self._block_bytes
            and block.size == self.size
            and block.etag == self._etag
            and len(block.body) == end - start > 0
        )


class MetadataTransfer(Transfer):
    """The metadata bundle on its way: nobody knows its size until the first block has come.

    A bundle that is replaced while it comes starts over (`restarts`); the parts of two never mix.
    """

    def __init__(self, token: str, *, bytes_max: int, block_bytes: int = BLOCK_BYTES_MAX) -> None:
        super().__init__(
            token, file=Digest("sha256:" + "0" * 64), size=0, blocks=(0,), block_bytes=block_bytes
        )
        self.file = self.size = self._etag = None
        self.restarts = 0
        self._bytes_max = bytes_max
        self._parts: dict[int, bytes] = {}

    def take(self, block: Block) -> bool:
        """As Transfer; the first block tells how many there are.

        Raises:
            UnavailableError: the bundle is larger than `bytes_max`.
        """
        if block.id != self.token or block.block_bytes != self._block_bytes:
            self.ignored += 1
            return False
        if block.etag != self._etag:
            if block.size > self._bytes_max or block.size == 0:
                offered = f"the repository offers {block.size} bytes of metadata"
                raise UnavailableError(f"{offered}; 1 to {self._bytes_max} are taken")
            self.restarts += self._etag is not None
            self.size, self._etag = block.size, block.etag
            self._parts.clear()
            self._out.clear()
            self._wanted = deque(blocks_of([(0, block.size)], self._block_bytes))
        if not super().take(block):
            return False
        self._parts[block.index] = block.body
        return True

    @property
    def body(self) -> bytes:
        """The bundle, once `done`."""
        return b"".join(self._parts[index] for index in sorted(self._parts))
