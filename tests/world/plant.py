"""A device in memory: real models, wishes, commands and reporter over scripted ports.

def test_…(tmp_path):
    async def main(plant):
        plant.publish(1)
        await plant.desire(m=1)
        assert plant.state("m")["state"] == "Healthy"
    live(main, tmp_path)
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from agent.core import catalog
from agent.core.names import ModelRef
from agent.core.packages import FileEntry, Package, digest_of
from agent.core.rollout import Rollout
from agent.core.topics import Topics
from agent.ports import Message
from agent.runtime.archive import Archive
from agent.runtime.assessing import Assessor
from agent.runtime.commands import Commands
from agent.runtime.desk import Desk
from agent.runtime.healing import Healer
from agent.runtime.models import Models, World
from agent.runtime.proving import Prover
from agent.runtime.reporter import Reporter
from agent.runtime.trusting import Unsigned
from agent.runtime.wishes import Wishes
from tests.world.hours import HandClock, passing, quiet
from tests.world.memory import (
    FolderStore,
    MemoryFetcher,
    MemoryJournal,
    MemoryOutbox,
    MemoryRing,
    OpenMachine,
)
from tests.world.scripted import ListSource, RecordingFaces, ScriptedEngine, ScriptedLink
from tests.world.still import SamePlace, still_lane

SETTLE_S = 30.0
TOML = """
name = "{name}"
[features]
names = ["v"]
[output]
score = {{ tensor = "y" }}
{more}
"""


class Floored(Unsigned):
    """As `Unsigned`, with a security floor under each model."""

    def __init__(self, floors: dict[str, int]) -> None:
        self.floors = floors

    def permits(self, name: str, release: int) -> bool:
        return release >= self.floors.get(name, 0)


class Plant:
    """What outlives a restart is kept here; `start` makes the rest anew."""

    def __init__(self, folder: Path, *streams: str) -> None:
        self.folder = folder
        self.streams = list(streams) or ["s"]
        self.clock = HandClock()
        self.journal, self.box = MemoryJournal(), MemoryOutbox()
        self.ring, self.machine = MemoryRing(), OpenMachine()
        self.store, self.fetcher = FolderStore(), MemoryFetcher()
        self.link, self.faces = ScriptedLink(), RecordingFaces()
        self.engine = ScriptedEngine()
        self.topics = Topics("edge", "d")
        self.packages: dict[ModelRef, Package] = {}
        self.factory: dict[str, tuple[str, Package]] = {}
        self.settle_s = SETTLE_S  # what a start is given before the test goes on
        self.refused: list[tuple[str, str]] = []
        self.degraded: list[tuple[str, str]] = []
        self.receipts: list[dict[str, Any]] = []
        self.papers = MemoryJournal()  # where receipts are kept; its saves are nobody's business
        self.papers.rollouts = self.journal.rollouts
        self.revision = 0
        self.floors: dict[str, int] = {}  # signed: no release below may be activated again

    # ---- the repository ----

    def package(self, release: int, name: str = "m", more: str = "") -> Package:
        """A package that could be published."""
        raw = TOML.format(name=name, more=more).encode() + b"# %d\n" % release
        folder = self.folder / f"{name}-{release}"
        folder.mkdir(exist_ok=True)
        (folder / "model.toml").write_bytes(raw)
        sha256 = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        files = (FileEntry("model.toml", len(raw), sha256),)  # type: ignore[arg-type]
        ref = ModelRef(name, release, digest_of(name, files))
        made = Package(ref, f"{release}.0", files)
        self.store.waiting[ref] = folder
        self.fetcher.blobs[sha256] = raw
        return made

    def publish(self, release: int, name: str = "m", more: str = "") -> Package:
        """`release` of `name` is in the repository from now on."""
        package = self.package(release, name, more)
        self.packages[package.ref] = package
        self.fetcher.bundle = {catalog.FILE: catalog.write(self.packages.values())}
        return package

    # ---- the device ----

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Everything that is made at a start."""
        self.source = ListSource(self.streams[0])
        self.lane = still_lane(self.clock, self.box, *self.streams)
        self.lane.add_source(self.source, self.streams)
        news = asyncio.Event()
        dice = Random(7)
        self.archive = Archive(
            self.papers,
            device="d",
            signer=None,
            tell=lambda *_, receipt, signature: self.receipts.append(receipt),
            unsigned="as this test has it",
        )
        await self.archive.reopen()
        self.models = Models(
            World(
                lane=self.lane,
                engine=self.engine,
                store=self.store,
                fetcher=self.fetcher,
                journal=self.journal,
                outbox=self.box,
                clock=self.clock,
                topics=self.topics,
                random=dice,
                run_s_max=600.0,
                receipt_s=2.0,
                ring=self.ring,
                shadow_share=1.0,
                assessor=Assessor(self.machine, self.engine),
                receipt=self.archive.take,
                degraded=lambda *told: self.degraded.append(told),
                refused=lambda *told: self.refused.append(told),
                changed=news.set,
            ),
            tasks,
        )
        self.models.healer = Healer(
            self.lane,
            SamePlace(),
            self.clock,
            deaths_max=3,
            deaths_s=300.0,
            condemned=self.models.condemned,
            gives_way=self.models.gives_way,
            changed=news.set,
            random=dice,
        )
        self.wishes = Wishes(
            self.models,
            self.journal,
            self.fetcher,
            Floored(self.floors),
            streams=self.streams,
            factory=self.factory,
            refused=lambda *told: self.refused.append(told),
            changed=news.set,
            random=dice,
        )
        self.reporter = Reporter(
            device="d",
            groups=["g"],
            topics=self.topics,
            models=self.models,
            wishes=self.wishes,
            prover=Prover(self.models, self.clock, 5.0),
            lane=self.lane,
            engine=self.engine,
            outbox=self.box,
            link=self.link,
            faces=self.faces,
            clock=self.clock,
            interval_s=60.0,
            trust="none",
            archive=self.archive,
            news=news,
        )
        self.commands = Commands(
            models=self.models,
            wishes=self.wishes,
            lane=self.lane,
            desk=Desk(self.models, self.lane, self.clock),
            link=self.link,
            journal=self.journal,
            clock=self.clock,
            topics=self.topics,
            state=self.reporter.document,
            receipts=self.archive.envelopes,
        )
        await self.wishes.remember(["g"])
        tasks.create_task(self.wishes.run())
        tasks.create_task(self.reporter.run())
        await quiet(self.settle_s)

    async def stop(self) -> None:
        """What is left of a start."""
        await self.models.close()
        await self.archive.close()
        self.source.close()
        self.lane.close()

    # ---- what others do ----

    async def desire(self, *, seconds: float = SETTLE_S, **releases: Any) -> None:
        """A new revision of the device's own document."""
        self.revision += 1
        models = {k: v if isinstance(v, dict) else {"release": v} for k, v in releases.items()}
        await self.say({"revision": self.revision, "models": models}, seconds=seconds)

    async def say(
        self, document: Mapping[str, Any], group: str | None = None, *, seconds: float = SETTLE_S
    ) -> None:
        """Any desired document."""
        await self.wishes.take(group, json.dumps(document).encode())
        await quiet(seconds)

    async def command(self, name: str, ident: str = "c1", **args: Any) -> dict[str, Any]:
        """The answer to a command; empty if there was none."""
        return await self.send(name, {"id": ident, "expires": 4e9, "args": args})

    async def send(self, name: str, body: Mapping[str, Any], **message: Any) -> dict[str, Any]:
        """The same, of any body."""
        raw, before = json.dumps(body).encode(), len(self.link.published)
        await self.commands.take(name, Message(self.topics.command(name), raw, **message))
        await quiet(SETTLE_S)
        answers = [p for t, p in self.link.published[before:] if t != self.topics.reported]
        return json.loads(answers[0]) if answers else {}

    def feed(self, *values: float) -> None:
        """Readings come in, and the lane turns until they are through."""
        self.source.put(*(b'{"k": "a", "v": %f}' % value for value in values))
        for _ in range(4):
            self.lane._turn()

    # ---- what there is to see ----

    def rollout(self, name: str = "m") -> Rollout:
        """Where a model stands."""
        return self.models.rows[name].driver.now

    @property
    def reports(self) -> list[dict[str, Any]]:
        """Every report that was published."""
        return [json.loads(p) for t, p in self.link.published if t == self.topics.reported]

    def state(self, name: str = "m") -> dict[str, Any]:
        """A model in the last report."""
        found: dict[str, Any] = self.reporter.report.document()["models"][name]
        return found


def live(main: Callable[[Plant], Awaitable[None]], plant: Plant, *more: Any) -> None:
    """Run `main` on the device, and then each of `more` after a restart in order."""

    async def once(part: Callable[[Plant], Awaitable[None]]) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                await plant.start(tasks)
                await part(plant)
                raise _DoneError
        except* _DoneError:
            pass
        finally:
            await plant.stop()

    try:
        for part in (main, *more):
            passing(once(part), plant.clock)
    finally:
        plant.box.close()
        plant.engine.close()


class _DoneError(Exception):
    """The story is told; whatever runs is cancelled."""
