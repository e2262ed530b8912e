"""A package is copied from a folder at leisure, since a stream is scored meanwhile."""

import asyncio
import time

from agent.adapters.folder import PIECE_BYTES, REST, FolderFetcher
from agent.core.names import Digest
from agent.core.packages import FileEntry

PIECES, WRITE_S = 4, 0.02
HEX = "0" * 64


class SlowDisk:
    """A `Partial` that takes its time."""

    size = PIECES * PIECE_BYTES
    busy_s = 0.0
    writes = 0

    def holes(self):
        return [(0, self.size)]

    def write(self, offset, chunk):
        began = time.monotonic()
        time.sleep(WRITE_S)
        self.busy_s += time.monotonic() - began
        self.writes += 1


def test_a_copy_rests_longer_than_it_works(tmp_path):
    blob = tmp_path / "blobs" / "sha256" / HEX
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(SlowDisk.size))
    disk, began = SlowDisk(), time.monotonic()
    file = FileEntry("model.onnx", SlowDisk.size, Digest(f"sha256:{HEX}"))
    asyncio.run(FolderFetcher(tmp_path).fetch(file, disk, lambda _: None))
    assert time.monotonic() - began >= (1 + REST) * disk.busy_s
    assert disk.writes == PIECES, "each costs two changes of threads"
