"""Births of Sparkplug devices, kept over restarts: only a birth says what an alias means.

Saved a moment after they came, and not with each reading: births are rare, and may be taken in
twice.
"""

import asyncio

import structlog

from agent.core.errors import RefusedError, UnavailableError
from agent.core.formats.sparkplug_births import Census
from agent.ports import Journal
from agent.runtime.lane import Lane

LOOK_S = 1.0
PREFIX = "births:"  # of the documents, before the name of the stream

logger = structlog.get_logger(__name__)


class Certificates:
    """Of every Sparkplug stream on `lane`."""

    def __init__(self, lane: Lane, journal: Journal) -> None:
        self._lane = lane
        self._journal = journal
        self._unsaved: dict[str, bytes] = {}

    def recall(self) -> None:
        """Before the lane starts: what an earlier process knew.  Waits for the disk."""
        streams = self._streams()
        known = [name for name in self._journal.document_names() if name.startswith(PREFIX)]
        gone = [name for name in known if name.removeprefix(PREFIX) not in streams]
        if gone:
            self._journal.drop_documents(gone)
        for stream, census in streams.items():
            if (raw := self._journal.load_document(PREFIX + stream)) is None:
                continue
            try:
                census.recall(raw)
            except RefusedError as error:
                logger.warning("births lost", stream=stream, why=str(error))

    async def run(self) -> None:
        """Until cancelled: save what was born."""
        while True:
            await asyncio.sleep(LOOK_S)
            await asyncio.wrap_future(self._lane.call(self._look))
            await self._save()

    async def close(self) -> None:
        """Save the last of it; the lane has stopped."""
        self._look()
        await self._save()

    @property
    def are_kept(self) -> bool:
        """Whether there is a stream of this kind."""
        return bool(self._streams())

    def _streams(self) -> dict[str, Census]:
        intakes = self._lane.intakes.items()
        return {name: i.decoder.census for name, i in intakes if i.decoder.census is not None}

    def _look(self) -> None:
        for stream, census in self._streams().items():
            if (raw := census.kept()) is not None:
                self._unsaved[stream] = raw

    async def _save(self) -> None:
        for stream in list(self._unsaved):
            try:
                await asyncio.to_thread(
                    self._journal.save_document, PREFIX + stream, self._unsaved[stream]
                )
            except UnavailableError as error:  # a full disk, say: once more at the next look
                logger.warning("births not saved", stream=stream, why=str(error))
                return
            del self._unsaved[stream]
