"""A link that carries chunks of packages and nothing else, beside the control link.

For control planes that cannot carry a package, where the site's broker can.
"""

import asyncio

from agent.ports import Link
from agent.runtime.chunked import ChunkedFetcher


class Branch:
    """Keeps `link` up, and hands what comes over it to `fetcher`."""

    def __init__(self, link: Link, fetcher: ChunkedFetcher) -> None:
        self._link = link
        self._fetcher = fetcher

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._link.run())
            async for message in self._link.messages():
                self._fetcher.take(message)
