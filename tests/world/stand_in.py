"""A device as the broker sees one: it reports, takes wishes and answers commands, by a script.

Not the agent: what operators' commands must cope with includes devices that say nonsense.
"""

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

from agent.config import Mqtt
from agent.core.wire import Desired, Topics, parse_desired
from agent.repository.conversation import Conversation

Report = dict[str, Any]
Script = Callable[[Desired], Sequence[Report]]


class StandIn:
    """Enter it to bring it online; `wishes` are the desired documents it was given."""

    def __init__(self, url: str, name: str, *, groups: Sequence[str] = ()) -> None:
        self.topics = Topics("edge", name)
        self.name, self.groups = name, list(groups)
        self.script: Script = lambda _: ()
        self.answers: Callable[[str, Report], Report | None] = lambda *_: None
        self.wishes: list[Desired] = []
        self.commands: list[tuple[str, Report]] = []
        self._talk = Conversation(Mqtt(url=url))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live)

    def __enter__(self) -> Self:
        self._talk.__enter__()
        filters = [self.topics.desired, self.topics.commands]
        filters += [self.topics.group_desired(group) for group in self.groups]
        self._talk.follow(*filters)
        self._talk.publish(self.topics.status, b'{"schema":1,"online":true}', retain=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(10)
        self._talk.close()

    def report(self, **members: Any) -> None:
        """Publish a report, retained."""
        document = {"schema": 1, "device": self.name, "groups": self.groups, "code": 200}
        body = json.dumps(document | members).encode()
        self._talk.publish(self.topics.reported, body, retain=True)

    def _live(self) -> None:
        while not self._stop.is_set():
            message = self._talk.next(0.05)
            if message is None:
                continue
            kind, _, last = message.topic.rpartition("/")
            if last == "desired":
                wish = parse_desired(message.payload)
                self.wishes.append(wish)
                for report in self.script(wish):
                    self.report(**report)
            elif kind.endswith("/command"):
                body = json.loads(message.payload)
                self.commands.append((last, body))
                if (answer := self.answers(last, body)) is not None:
                    raw = json.dumps({"schema": 1, "id": body["id"]} | answer).encode()
                    self._talk.publish(self.topics.answer(body["id"]), raw)


def model(
    *,
    active: int = 0,
    candidate: int = 0,
    known_good: int = 0,
    phase: str = "steady",
    state: str = "Healthy",
    **more: Any,
) -> Report:
    """A member of `models` in a report; release 0 is none."""

    def version(release: int) -> Report | None:
        return {"release": release, "version": str(release)} if release else None

    return {
        "state": state,
        "phase": phase,
        "why": "",
        "active": version(active),
        "candidate": version(candidate),
        "known_good": version(known_good),
    } | more
