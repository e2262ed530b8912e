"""The control link in IoT Core's words: native documents in and out, shadow and jobs between.

Scores, events, status, commands and their answers keep their native topics: IoT Core has no words
of its own for them.  Decides nothing about models.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any, Protocol

from agent.adapters.aws.asking import Asking
from agent.adapters.aws.files import Files
from agent.adapters.aws.jobs import Jobs
from agent.adapters.aws.shadow import Shadow
from agent.adapters.aws.topics import ThingTopics
from agent.core.chunks import Rejection, read_request, write_block, write_rejection
from agent.core.errors import RefusedError, UnavailableError
from agent.core.scores import split
from agent.core.strict import read_object
from agent.core.topics import Topics
from agent.ports import Clock, Link, Message

MESSAGE_BYTES_MAX = 128 * 1024
DOCUMENT_BYTES_MAX = 256 * 1024
AGAIN_S_FIRST, AGAIN_S_MAX = 1.0, 60.0
INBOX_MAX = 64


class Line(Link, Protocol):
    """The connection beneath: a link that counts its connections."""

    async def fresh(self, after: int) -> int:
        """Until a connection later than the one numbered `after` stands; its number."""
        ...


class ThingLink(Link):
    """`ports.Link` over AWS IoT Core.

    Args:
        line: the connection, which subscribes to `thing.subscriptions` and to native commands.
        topics: the native topics of this device.
        thing: the reserved topics of this thing.
    """

    def __init__(self, line: Line, *, topics: Topics, thing: ThingTopics, clock: Clock) -> None:
        self._line = line
        self._topics = topics
        self._thing = thing
        self._asking = Asking(line)
        self._shadow = Shadow(self._asking, thing)
        self._reread = asyncio.Event()
        self._files = Files()
        self.jobs = Jobs(self._asking, thing, self._shadow, clock, renewed=self._reread.set)
        self._inbox: asyncio.Queue[Message] = asyncio.Queue(INBOX_MAX)
        self._trouble = ""
        self._described = asyncio.Event()

    # ---- the port ----

    async def messages(self) -> AsyncIterator[Message]:
        """Native messages, for one consumer."""
        while True:
            yield await self._inbox.get()

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,  # noqa: ARG002  # the shadow is kept, and nothing else
        correlation: bytes | None = None,
    ) -> bool:
        """As the port says; `reported` goes to the shadow, chunk requests to file streams."""
        heard = True
        if topic == self._topics.reported:
            document = json.loads(payload)
            self.jobs.reported(document)
            try:
                await self._shadow.report(document)
            except UnavailableError:
                self._reread.set()
                raise
        elif topic == self._topics.repo_get:
            await self._fetch(payload)
        elif not topic.startswith(f"{self._topics.root}/{self._topics.device}/"):
            raise RefusedError(f"{topic} is no topic of this device")
        else:
            scores = topic.startswith(self._topics.scores(""))
            for part in split(payload, MESSAGE_BYTES_MAX) if scores else [payload]:
                if len(part) > MESSAGE_BYTES_MAX:
                    most = f"IoT Core takes {MESSAGE_BYTES_MAX} a message"
                    raise RefusedError(f"{len(part)} bytes; {most}", 413)
                heard &= await self._line.publish(topic, part, correlation=correlation)
        return heard

    async def connected(self) -> None:
        """Until the link stands."""
        await self._line.connected()

    def trouble(self) -> str:
        """Why it does not stand, or why the shadow cannot be read."""
        return self._line.trouble() or self._trouble

    async def run(self) -> None:
        """Keep the link up, the shadow read and the job followed until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._line.run())
            tasks.create_task(self._listen())
            tasks.create_task(self._watch())
            tasks.create_task(self._read())
            tasks.create_task(self.jobs.run())

    # ---- in ----

    async def _listen(self) -> None:
        thing, commands = self._thing, self._topics.command("")
        async for message in self._line.messages():
            topic = message.topic
            if topic.startswith(commands):
                await self._inbox.put(message)
            elif topic.startswith(f"{thing.streams}/"):
                await self._file(topic.split("/")[-2], message.payload)
            elif topic == f"{thing.shadow}/update/delta":
                delta = _read(message.payload)
                if delta is not None and self._shadow.changed(delta):
                    await self._tell_desired()
            elif topic == f"{thing.jobs}/notify-next":
                told = _read(message.payload)
                if told is not None:
                    self._notified(told.get("execution"))
            else:
                self._asking.take(message.payload)

    def _notified(self, execution: Any) -> None:
        self.jobs.notified(execution if isinstance(execution, dict) else None)
        self._offer()

    def _offer(self) -> None:
        if self.jobs.current is not None:
            self._files.offered(self.jobs.current.document.get("stream"))

    async def _tell_desired(self) -> None:
        document = self._shadow.document()
        if document is not None:
            await self._inbox.put(Message(self._topics.desired, document, retain=True))

    async def _watch(self) -> None:
        number = 0
        while True:
            number = await self._line.fresh(number)
            self._shadow.forget()
            self._asking.lost()
            self._reread.set()

    async def _read(self) -> None:
        """The shadow and the next job: at each connect, and whenever there is a doubt."""
        wait_s = AGAIN_S_FIRST
        while True:
            await self._reread.wait()
            self._reread.clear()
            try:
                await self._shadow.read()
                await self.jobs.ask()
            except (UnavailableError, RefusedError) as error:
                self._trouble = f"the shadow cannot be read: {error}"
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, AGAIN_S_MAX)
                self._reread.set()
                continue
            wait_s, self._trouble = AGAIN_S_FIRST, ""
            self._offer()
            await self._tell_desired()

    # ---- files ----

    async def _fetch(self, payload: bytes) -> None:
        request = read_request(payload)
        stream = f"{self._thing.streams}/{self._files.stream}"
        if self._files.stream and not self._files.is_described:
            self._described.clear()
            ask = json.dumps({"c": secrets.token_hex(8)}).encode()
            await self._line.publish(f"{stream}/describe/json", ask)
            await self._described.wait()  # whoever asks for chunks gives up in time
        asked = self._files.asked(request)
        if isinstance(asked, Rejection):
            await self._inbox.put(Message(self._topics.repo_data, write_rejection(asked)))
            return
        for document in asked:
            await self._line.publish(f"{stream}/get/json", json.dumps(document).encode())

    async def _file(self, kind: str, payload: bytes) -> None:
        document = _read(payload)
        if document is None:
            return
        if kind == "description":
            self._files.described(document)
            self._described.set()
        elif kind == "data" and (block := self._files.came(document)) is not None:
            await self._inbox.put(Message(self._topics.repo_data, write_block(block)))
        elif kind == "rejected":
            rejection = self._files.rejected(document)
            self._described.set()
            if rejection is not None:
                await self._inbox.put(Message(self._topics.repo_data, write_rejection(rejection)))


def _read(payload: bytes) -> dict[str, Any] | None:
    try:
        return read_object(payload, "what IoT Core says", bytes_max=DOCUMENT_BYTES_MAX)
    except RefusedError:
        return None
