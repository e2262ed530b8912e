"""Questions to IoT Core and their answers, by client token."""

import asyncio
import json
import secrets
from collections.abc import Mapping
from typing import Any

from agent.core.errors import RefusedError, UnavailableError
from agent.core.strict import read_object
from agent.ports import Link

ANSWER_S_MAX = 15.0
ANSWER_BYTES_MAX = 256 * 1024
WEATHER = (409, 429)  # somebody was faster, or we are too fast: ask again


class RejectedError(RefusedError):
    """IoT Core said no; `document` is how."""

    def __init__(self, why: str, code: int, document: Mapping[str, Any]) -> None:
        super().__init__(why, code)
        self.document = document


class Asking:
    """Asks over `line`; whoever reads its messages hands the answers to `take`."""

    def __init__(self, line: Link) -> None:
        self._line = line
        self._open: dict[str, asyncio.Future[dict[str, Any]]] = {}

    async def ask(self, topic: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """What was accepted.

        Raises:
            RejectedError: it was not.
            UnavailableError: there was no answer.
        """
        token = secrets.token_hex(8)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._open[token] = future
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                raw = json.dumps({**document, "clientToken": token}, ensure_ascii=False).encode()
                await self._line.publish(topic, raw)
                answer = await future
        except TimeoutError as error:
            raise UnavailableError(f"no answer to {topic} within {ANSWER_S_MAX:g} s") from error
        finally:
            del self._open[token]
        if "code" in answer:
            code = answer["code"]
            why = f"IoT Core rejects {topic} ({code}): {answer.get('message', '')}"
            raise RejectedError(why, code if isinstance(code, int) else 400, answer)
        return answer

    def take(self, payload: bytes) -> dict[str, Any] | None:
        """What is in an answer; None if it is none, or nobody waits for it."""
        try:
            document = read_object(payload, "the answer", bytes_max=ANSWER_BYTES_MAX)
        except RefusedError:
            return None
        future = self._open.get(str(document.get("clientToken")))
        if future is None or future.done():
            return None
        future.set_result(document)
        return document

    def lost(self) -> None:
        """The connection has ended: no answer will come."""
        for future in self._open.values():
            if not future.done():
                future.set_exception(UnavailableError("the link was lost before the answer"))
