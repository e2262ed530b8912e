"""The named shadow: its desired state is the native desired document, its reported state ours.

What we report lies under one member, `report`, so that the delta between the two, which IoT Core
sends at every change, is the whole wish.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from agent.adapters.aws.asking import WEATHER, Asking, RejectedError
from agent.adapters.aws.topics import ThingTopics
from agent.core.errors import UnavailableError
from agent.core.mirrors import Mirror, difference, size_of

DOCUMENT_BYTES_MAX = 8 * 1024  # desired and reported together
SPARE_BYTES = 512  # of it, for what is counted otherwise than we do
NOT_FOUND = 404
REPORT = "report"
_MIRROR = Mirror(text_bytes_max=1024, depth_max=6, escapes=False)


class Shadow:
    """What IoT Core has of us, as far as it is known on this connection.

    `desired` and `reported` are None until it was read.
    """

    def __init__(self, asking: Asking, topics: ThingTopics) -> None:
        self._asking = asking
        self._topics = topics
        self._reporting = asyncio.Lock()
        self.desired: dict[str, Any] | None = None
        self.reported: dict[str, Any] | None = None
        self.version = 0  # of the desired state that is known
        self._latest = 0  # of anything that is known

    def forget(self) -> None:
        """A new connection: what was known may not hold any more."""
        self.desired = self.reported = None

    async def read(self) -> None:
        """Read all of it; a shadow that was never made is empty.  Raises UnavailableError."""
        try:
            whole = await self._asking.ask(f"{self._topics.shadow}/get", {})
        except RejectedError as error:
            if error.code != NOT_FOUND:
                raise UnavailableError(str(error)) from error
            whole = {}
        state = _object(whole, "state")
        self.version = self._latest = int(whole.get("version", 0))
        self.desired = _object(state, "desired")
        self.reported = _object(_object(state, "reported"), REPORT)

    def changed(self, delta: Mapping[str, Any]) -> bool:
        """Whether `delta` says something new; then it is what is desired."""
        version = delta.get("version")
        if not isinstance(version, int) or version <= self.version or self.desired is None:
            return False
        self.version, self._latest = version, max(version, self._latest)
        self.desired = _object(delta, "state")
        return True

    def document(self) -> bytes | None:
        """The native desired document; None if none was ever wished."""
        if self.desired is None or "models" not in self.desired:
            return None
        document = {"schema": 1, "revision": self.version, **self.desired}
        return json.dumps(document, ensure_ascii=False, sort_keys=True).encode()

    async def report(self, document: Mapping[str, Any]) -> None:
        """Have IoT Core know `document`.

        Raises:
            UnavailableError: it may or may not know it now; the shadow must be read again.
            RejectedError: it will never take this.
        """
        async with self._reporting:
            before, desired = self.reported, self.desired
            if before is None or desired is None:
                raise UnavailableError("the shadow has not been read on this connection yet")
            room = DOCUMENT_BYTES_MAX - SPARE_BYTES - size_of(desired)
            after = _MIRROR.image(document, max(0, room))
            patch = difference(before, after)
            if not patch:
                return
            try:
                await self._update({"reported": {REPORT: patch}})
            except UnavailableError:
                self.reported = None
                raise
            if self.reported is before:
                self.reported = after

    async def wish(self, models: Mapping[str, Any]) -> int:
        """Put `models` over what is desired; returns the revision in which they are.

        Raises:
            UnavailableError: not now; somebody else may have changed it: read it again.
            RejectedError: IoT Core will never take this.
        """
        desired = self.desired
        if desired is None:
            raise UnavailableError("the shadow has not been read on this connection yet")
        known = _object(desired, "models")
        revision = int(desired.get("revision", self.version))
        patch = {
            name: wish if not isinstance(wish, dict) else difference(_object(known, name), wish)
            for name, wish in models.items()
            if known.get(name) != wish
        }
        if not patch:
            return revision
        revision += 1
        wanted = {"schema": 1, "revision": revision, "models": patch}
        await self._update({"desired": wanted}, version=self._latest or None)
        return revision

    async def _update(self, state: Mapping[str, Any], version: int | None = None) -> None:
        document: dict[str, Any] = {"state": state}
        if version is not None:
            document["version"] = version
        try:
            accepted = await self._asking.ask(f"{self._topics.shadow}/update", document)
            self._latest = max(self._latest, int(accepted.get("version", 0)))
        except RejectedError as error:
            if error.code in WEATHER or error.code >= 500:
                raise UnavailableError(str(error)) from error
            raise


def _object(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}
