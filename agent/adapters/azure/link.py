"""The control link in the hub's words: native documents in and out, twin and methods between.

Wraps the one MQTT connection that the hub grants an identity.  Decides nothing about models.
"""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import structlog

from agent.adapters.azure import topics as hub
from agent.adapters.azure import twin
from agent.adapters.azure.methods import Methods
from agent.adapters.azure.tokens import HubLogin
from agent.core.errors import RefusedError, UnavailableError
from agent.core.mirrors import difference, merge
from agent.core.scores import split
from agent.core.strict import read_object
from agent.core.topics import Topics
from agent.ports import Clock, Link, Message

MESSAGE_BYTES_MAX = 256 * 1024
ENVELOPE_BYTES = 1024  # of it, kept for topic and properties
METHOD_BYTES_MAX = 128 * 1024
TWIN_BYTES_MAX = 4 * twin.SECTION_BYTES_MAX
ANSWER_S_MAX = 15.0
AGAIN_S_FIRST, AGAIN_S_MAX = 1.0, 60.0
INBOX_MAX = 64
TOO_MANY = 429

log = structlog.get_logger(__name__)


class Line(Link, Protocol):
    """The connection beneath: a link that counts its connections and can be renewed."""

    async def fresh(self, after: int) -> int:
        """Until a connection later than the one numbered `after` stands; its number."""
        ...

    def renew(self) -> None:
        """Connect afresh, as planned."""
        ...


class HubLink(Link):
    """`ports.Link` over IoT Edge's hub, or IoT Hub itself.

    Published on the native topics: `reported` becomes a patch of the twin, scores and events
    become outputs, the answer to a command that of its method; `status` needs no message here.
    Given out on the native topics: the twin's desired properties, and direct methods as commands.

    Args:
        line: the connection, which subscribes to `outputs.subscriptions` and logs in with `login`.
        topics: the native topics of this device.
        outputs: the hub's topics of this identity.
        login: whose tokens are renewed; None where nothing expires.
    """

    def __init__(
        self,
        line: Line,
        *,
        topics: Topics,
        outputs: hub.HubTopics,
        login: HubLogin | None,
        clock: Clock,
    ) -> None:
        self._line = line
        self._topics = topics
        self._outputs = outputs
        self._login = login
        self._clock = clock
        self._methods = Methods(topics, clock)
        self._inbox: asyncio.Queue[Message] = asyncio.Queue(INBOX_MAX)
        self._asked: dict[str, asyncio.Future[tuple[int, bytes]]] = {}
        self._reread = asyncio.Event()
        self._desired: dict[str, Any] | None = None  # None until it is read on this connection
        self._reported: dict[str, Any] | None = None  # as the hub has it
        self._reporting = asyncio.Lock()
        self._twin_trouble = ""
        self.rereads = 0

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
        retain: bool = False,  # noqa: ARG002  # the hub keeps the twin, and nothing else
        correlation: bytes | None = None,  # noqa: ARG002  # a method knows its own answer
    ) -> bool:
        """As the port says, in the hub's words; a native topic it has no word for is refused."""
        scores = self._topics.scores("")
        if topic.startswith(scores):
            model = topic.removeprefix(scores)
            for part in split(payload, MESSAGE_BYTES_MAX - ENVELOPE_BYTES):
                await self._send(self._outputs.output("scores", model=model), part)
        elif topic == self._topics.events:
            await self._send(self._outputs.output("events"), payload)
        elif topic == self._topics.reported:
            async with self._reporting:
                await self._report(payload)
        elif (rid := self._methods.answered(topic)) is not None:
            await self._answer(rid, payload)
        else:
            raise RefusedError(f"the hub has no place for {topic}")
        return True  # whom the hub gives it to is for its routes to say

    async def connected(self) -> None:
        """Until the link stands."""
        await self._line.connected()

    def trouble(self) -> str:
        """Why it does not stand, or why the twin cannot be read."""
        return self._line.trouble() or self._twin_trouble

    async def run(self) -> None:
        """Keep the link up and the twin read until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._line.run())
            tasks.create_task(self._listen())
            tasks.create_task(self._watch())
            tasks.create_task(self._read_twin())
            if self._login is not None:
                tasks.create_task(self._renew(self._login))

    # ---- out ----

    async def _send(self, topic: str, payload: bytes) -> None:
        size = len(payload) + len(topic.encode())
        if size > MESSAGE_BYTES_MAX:
            raise RefusedError(f"{size} bytes; the hub takes {MESSAGE_BYTES_MAX} a message", 413)
        await self._line.publish(topic, payload)

    async def _report(self, payload: bytes) -> None:
        before = self._reported
        if before is None:
            raise UnavailableError("the twin has not been read on this connection yet")
        after = twin.reported_section(json.loads(payload))
        patch = difference(before, after)
        if not patch:
            return
        raw = json.dumps(patch, ensure_ascii=False, separators=(",", ":")).encode()
        try:
            code, _ = await self._ask(hub.patch_reported, raw)
        except UnavailableError:
            self._unsure(before)
            raise
        if code == TOO_MANY or code >= 500:
            self._unsure(before)
            raise UnavailableError(f"the hub does not take the report just now ({code})")
        if code >= 400:
            raise RefusedError(f"the hub refuses the reported properties ({code})", code)
        if self._reported is before:  # else it was read anew meanwhile
            self._reported = after

    def _unsure(self, before: dict[str, Any]) -> None:
        """The patch may or may not have been taken: what the hub has must be read again."""
        if self._reported is before:
            self._reported = None
        self._reread.set()

    async def _answer(self, rid: str, payload: bytes) -> None:
        code = int(json.loads(payload).get("code", 200))
        if len(payload) > METHOD_BYTES_MAX:
            why = f"the answer has {len(payload)} bytes; a method's has at most {METHOD_BYTES_MAX}"
            code, payload = 413, json.dumps({"schema": 1, "code": 413, "why": why}).encode()
        await self._line.publish(hub.method_answer(code, rid), payload)

    async def _ask(self, topic: Callable[[str], str], body: bytes) -> tuple[int, bytes]:
        rid = secrets.token_hex(8)
        future: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._asked[rid] = future
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                await self._line.publish(topic(rid), body)
                return await future
        except TimeoutError as error:
            raise UnavailableError(f"the hub did not answer within {ANSWER_S_MAX:g} s") from error
        finally:
            del self._asked[rid]

    # ---- in ----

    async def _listen(self) -> None:
        async for message in self._line.messages():
            if (answer := hub.twin_answer(message.topic)) is not None:
                code, rid = answer
                future = self._asked.get(rid)
                if future is not None and not future.done():
                    future.set_result((code, message.payload))
            elif (version := hub.twin_change(message.topic)) is not None:
                await self._changed(version, message.payload)
            elif (call := hub.method(message.topic)) is not None:
                await self._inbox.put(self._methods.command(*call, message.payload))
            # anything else is at an input that no stream wants

    async def _changed(self, version: int, raw: bytes) -> None:
        known = self._desired
        if known is None:
            return  # the whole is on its way
        try:
            patch = read_object(raw, "the twin's change", bytes_max=TWIN_BYTES_MAX)
        except RefusedError as error:
            log.warning("twin change not understood", why=str(error))
            self._reread.set()
            return
        last = int(known.get("$version", 0))
        if version <= last:
            return  # came twice, or is in what was read
        if version > last + 1:
            log.info("twin jumped", seen=last, now=version)
            self._reread.set()
            return
        self._desired = {**merge(known, patch), "$version": version}
        await self._tell_desired()

    async def _tell_desired(self) -> None:
        assert self._desired is not None
        document = twin.desired_document(self._desired)
        if document is not None:
            await self._inbox.put(Message(self._topics.desired, document, retain=True))

    async def _watch(self) -> None:
        """A new connection: nothing that was known of the twin holds any more."""
        number = 0
        while True:
            number = await self._line.fresh(number)
            self._desired = self._reported = None
            for future in self._asked.values():
                if not future.done():
                    future.set_exception(UnavailableError("the link was lost before the answer"))
            self._reread.set()

    async def _read_twin(self) -> None:
        wait_s = AGAIN_S_FIRST
        while True:
            await self._reread.wait()
            self._reread.clear()
            try:
                code, raw = await self._ask(hub.get_twin, b"")
                if code != 200:
                    raise UnavailableError(f"the hub answers {code} where the twin is asked for")
                whole = read_object(raw, "the twin", bytes_max=TWIN_BYTES_MAX)
            except (UnavailableError, RefusedError) as error:
                self._twin_trouble = f"the twin cannot be read: {error}"
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, AGAIN_S_MAX)
                self._reread.set()
                continue
            wait_s, self._twin_trouble = AGAIN_S_FIRST, ""
            self.rereads += 1
            self._desired, self._reported = _section(whole, "desired"), _section(whole, "reported")
            self._reported = {k: v for k, v in self._reported.items() if not k.startswith("$")}
            await self._tell_desired()

    # ---- tokens ----

    async def _renew(self, login: HubLogin) -> None:
        """Before a token ends: the next one first, then a new connection with it."""
        wait_s = AGAIN_S_FIRST
        while True:
            await self._line.connected()
            left_s = login.renew_at - self._clock.monotonic()
            if left_s > 0:
                await asyncio.sleep(min(left_s, AGAIN_S_MAX))
                continue
            number = await self._line.fresh(0)
            try:
                await asyncio.to_thread(login.prepare)
            except UnavailableError as error:
                log.warning("no new token yet", why=str(error), retry_s=wait_s)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, AGAIN_S_MAX)
                continue
            wait_s = AGAIN_S_FIRST
            self._line.renew()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S_MAX):
                    await self._line.fresh(number)


def _section(whole: dict[str, Any], name: str) -> dict[str, Any]:
    section = whole.get(name)
    return section if isinstance(section, dict) else {}
