"""The hub's topics and property bags.  Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from agent.adapters.azure.identity import Identity

TWIN_ANSWERS = "$iothub/twin/res/#"  # edgeHub takes this filter and no other for them
TWIN_CHANGES = "$iothub/twin/PATCH/properties/desired/#"
METHODS = "$iothub/methods/POST/#"
_TWIN_ANSWER = re.compile(r"^\$iothub/twin/res/(\d{3})/\?")
_METHOD = re.compile(r"^\$iothub/methods/POST/([^/]+)/\?")
_CHANGE = "$iothub/twin/PATCH/properties/desired/?"


def bag(properties: Mapping[str, str]) -> str:
    """Properties as a topic carries them."""
    return "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in properties.items())


def unbag(text: str) -> dict[str, str]:
    """The properties in a topic; one without a value is empty."""
    pairs = (part.partition("=") for part in text.lstrip("?").split("&") if part)
    return {unquote(key): unquote(value) for key, _, value in pairs}


def get_twin(rid: str) -> str:
    """Where the whole twin is asked for, with an empty body."""
    return f"$iothub/twin/GET/?$rid={rid}"


def patch_reported(rid: str) -> str:
    """Where a patch of the reported properties goes."""
    return f"$iothub/twin/PATCH/properties/reported/?$rid={rid}"


def method_answer(code: int, rid: str) -> str:
    """Where the answer to a direct method goes."""
    return f"$iothub/methods/res/{code}/?$rid={rid}"


def twin_answer(topic: str) -> tuple[int, str] | None:
    """Status and request id of an answer about the twin; None if `topic` is none."""
    found = _TWIN_ANSWER.match(topic)
    return (int(found[1]), unbag(topic[found.end() :]).get("$rid", "")) if found else None


def twin_change(topic: str) -> int | None:
    """The version of a change of the desired properties; None if `topic` is none."""
    if not topic.startswith(_CHANGE):
        return None
    version = unbag(topic.removeprefix(_CHANGE)).get("$version", "")
    return int(version) if version.isdigit() else 0


def method(topic: str) -> tuple[str, str] | None:
    """Name and request id of a direct method; None if `topic` is none."""
    found = _METHOD.match(topic)
    return (found[1], unbag(topic[found.end() :]).get("$rid", "")) if found else None


@dataclass(frozen=True, slots=True)
class HubTopics:
    """The topics of one identity."""

    identity: Identity

    @property
    def _whole(self) -> str:
        device, module = self.identity.device, self.identity.module
        return f"devices/{device}/modules/{module}" if module else f"devices/{device}"

    @property
    def subscriptions(self) -> list[str]:
        """All that is listened to, inputs too; the hub grants five."""
        inputs = [f"{self._whole}/inputs/#"] if self.identity.module else []
        return [TWIN_ANSWERS, TWIN_CHANGES, METHODS, *inputs]

    def input(self, name: str) -> str:
        """The filter of one of the module's inputs."""
        return f"{self._whole}/inputs/{name}/#"

    def output(self, kind: str, **properties: str) -> str:
        """Where a JSON message goes: an output of the module, or telemetry of the device."""
        whole = {"$.ct": "application/json", "$.ce": "utf-8", "type": kind, **properties}
        if self.identity.module:
            whole = {"$.on": kind, **whole}
        return f"{self._whole}/messages/events/{bag(whole)}"

    def named(self, topic: bytes) -> bytes:
        """INPUT/DEVICE/MODULE of the topic of a message at an input: who sent it, and to where."""
        at = len(self._whole.encode()) + len(b"/inputs/")
        name, _, properties = topic[at:].decode("utf-8", "replace").partition("/")
        sender = unbag(properties)
        return f"{name}/{sender.get('$.cdid', '')}/{sender.get('$.cmid', '')}".encode()
