"""Hands each message of the control connection to whom it is for."""

import asyncio
from collections.abc import Sequence

import structlog

from agent.core.topics import Topics
from agent.ports import Fetcher, Link, Message
from agent.runtime.chunked import ChunkedFetcher
from agent.runtime.commands import Commands
from agent.runtime.wishes import Wishes

logger = structlog.get_logger(__name__)

COMMANDS_MAX = 16  # at once


class Router:
    """Desired documents in turn, commands beside each other, chunks to the fetcher."""

    def __init__(
        self,
        link: Link,
        *,
        topics: Topics,
        groups: Sequence[str],
        fetcher: Fetcher,
        wishes: Wishes,
        commands: Commands,
    ) -> None:
        self._link = link
        self._wishes = wishes
        self._commands = commands
        self._chunks = fetcher if isinstance(fetcher, ChunkedFetcher) else None
        self._desired: dict[str, str | None] = {topics.desired: None}
        self._desired |= {topics.group_desired(group): group for group in groups}
        self._command = topics.command("")
        self._room = asyncio.Semaphore(COMMANDS_MAX)

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Until cancelled."""
        async for message in self._link.messages():
            if self._chunks is not None and self._chunks.take(message):
                continue
            if message.topic in self._desired:
                await self._wishes.take(self._desired[message.topic], message.payload)
            elif message.topic.startswith(self._command):
                await self._room.acquire()
                tasks.create_task(self._obey(message))

    async def _obey(self, message: Message) -> None:
        try:
            await self._commands.take(message.topic.removeprefix(self._command), message)
        finally:
            self._room.release()
