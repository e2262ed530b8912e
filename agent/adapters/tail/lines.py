"""Chunks of a file in, whole lines out, and where the next one begins.  Pure."""

HEAD_BYTES = 4096  # of the beginning, to recognise the file by


class Lines:
    """Cuts what is read of one file into lines.

    `offset` is where the first byte stands that has not been delivered, `head` the file's first
    bytes as far as they were seen, `skips` whether it is inside a line that was too long.
    """

    def __init__(
        self, line_bytes_max: int, *, head: bytes = b"", offset: int = 0, skips: bool = False
    ) -> None:
        self._line_bytes_max = line_bytes_max
        self._partial: list[bytes] = []
        self._partial_bytes = 0
        self.head = head
        self.offset = offset
        self.skips = skips

    @property
    def seen(self) -> int:
        """How far the file has been read."""
        return self.offset + self._partial_bytes

    def cut(self, chunk: bytes) -> list[bytes]:
        """The lines that end in `chunk`, without their ends; blank ones are left out.

        Of a line that is too long one byte more than allowed is given, so that whoever checks
        lengths rejects it and counts it; the rest of it is passed over.
        """
        if len(self.head) < HEAD_BYTES and self.seen == len(self.head):
            self.head += chunk[: HEAD_BYTES - len(self.head)]
        *whole, rest = chunk.split(b"\n")
        lines: list[bytes] = []
        longest = self._line_bytes_max + 1
        if whole:
            whole[0] = b"" if self.skips else b"".join([*self._partial, whole[0]])
            self.skips = False
            self.offset += self._partial_bytes + len(chunk) - len(rest)
            self._partial, self._partial_bytes = [], 0
            lines = [line[:longest].rstrip(b"\r") for line in whole if line and not line.isspace()]
        if rest:
            self._partial.append(rest)
            self._partial_bytes += len(rest)
        if self._partial_bytes > self._line_bytes_max or self.skips:
            if not self.skips:
                lines.append(b"".join(self._partial)[:longest])
            self.offset += self._partial_bytes
            self._partial, self._partial_bytes, self.skips = [], 0, True
        return lines

    def finish(self) -> list[bytes]:
        """The last line of a file that nobody will write to any more, if it has no end."""
        last = [] if self.skips else self._partial
        self.offset += self._partial_bytes
        self._partial, self._partial_bytes = [], 0
        return [b"".join(last)] if last else []
