"""Sessions, engines, sources, links and faces that do what a test says, when it says so."""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.core.accelerators import Placement
from agent.core.errors import UnavailableError
from agent.core.health import HealthReport
from agent.core.manifest import Manifest
from agent.core.names import ModelRef
from agent.core.preflight import Measures
from agent.ports import Answer, Array, Burst, GoldenResult, Message, TensorSpec, WorkerLostError

Run = Callable[[Sequence[Array]], Sequence[Array]]


def last_of_first(inputs: Sequence[Array]) -> Sequence[Array]:
    """y = the first feature of the newest reading, whatever the window: a score names its row."""
    x = inputs[0]
    return [np.ascontiguousarray(x.reshape(len(x), -1, x.shape[-1])[:, -1, :1])]


class ScriptedSession:
    """The `Session` port over a socket pair.  Answers when told, or at once (`quick`)."""

    wanted = provider = "cpu"
    fallback = ""
    placement = Placement()
    device_lost = False
    load_ms = 1.0

    def __init__(
        self,
        ref: ModelRef,
        *,
        features: int = 1,
        inputs: Sequence[TensorSpec] | None = None,
        outputs: Sequence[TensorSpec] | None = None,
        jobs_max: int = 2,
        run: Run = last_of_first,
        quick: bool = False,
        window: int | None = None,
    ) -> None:
        self.ref = ref
        shape = (None, features) if window is None else (None, window, features)
        self.inputs = inputs or [TensorSpec("x", "float32", shape)]
        self.outputs = outputs or [TensorSpec("y", "float32", (None, 1))]
        self.jobs_max = jobs_max
        self.quick = quick
        self.taken: deque[tuple[int, list[Array]]] = deque()  # not answered yet
        self.seen: list[list[Array]] = []  # every job's inputs, as they came
        self.golden_result = GoldenResult(ok=True, samples=1)
        self.measures = Measures()
        self.revivals: list[Exception] = []  # what the next calls of `revive` raise
        self.served = self.kills = self.revived = 0
        self.closed = False
        self.dead = ""
        self.rss = 1000
        self._run = run
        self._answers: list[Answer] = []
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)

    # ---- in the test's hand ----

    def answer(self, jobs: int = 1, *, error: str = "") -> None:
        """The oldest `jobs` are done, or have failed with `error`."""
        for _ in range(min(jobs, len(self.taken))):
            job, inputs = self.taken.popleft()
            outputs = () if error else self._run(inputs)
            self._answers.append(Answer(job, outputs, 1.0, error))
            self._ring()

    def die(self, why: str = "the worker died") -> None:
        """What was not answered is gone; the next collect or submit says so."""
        self.dead = why
        self.taken.clear()
        self._ring()

    # ---- the port ----

    def fileno(self) -> int:
        return self._reader.fileno()

    def submit(self, job: int, inputs: Sequence[Array]) -> None:
        if self.dead:
            raise WorkerLostError(self.dead)
        assert len(self.taken) < self.jobs_max, "more jobs are out than may be"
        copies = [np.array(x) for x in inputs]
        self.taken.append((job, copies))
        self.seen.append(copies)
        if self.quick:
            self.answer()

    def collect(self) -> Sequence[Answer]:
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass
        answers, self._answers = self._answers, []
        if self.dead and not answers:
            raise WorkerLostError(self.dead)
        if self.dead:
            self._ring()
        return answers

    def golden(self) -> GoldenResult:
        return self.golden_result

    def measure(self) -> Measures:
        return self.measures

    def serve(self) -> None:
        self.served += 1

    def revive(self) -> None:
        if self.closed:
            raise UnavailableError("the session is closed")
        if self.revivals:
            raise self.revivals.pop(0)
        self.dead = ""
        self.revived += 1

    def distrust(self, why: str) -> None:
        self.distrusted = why
        self.device_lost = True
        self.kill()

    def kill(self) -> None:
        self.kills += 1
        self.die("killed, it took too long")

    def close(self) -> None:
        self.closed = True
        self._reader.close()
        self._writer.close()

    def pid(self) -> int | None:
        return None

    def rss_bytes(self) -> int:
        return self.rss

    def _ring(self) -> None:
        self._writer.send(b"\0")


class ScriptedEngine:
    """The `Engine` port: scripted sessions, made as the manifest wants them.

    `fails` is raised first, one a load; `made` has every session by release, the newest last.
    """

    def __init__(self, *, quick: bool = True) -> None:
        self.quick = quick
        self.fails: list[Exception] = []
        self.made: dict[int, list[ScriptedSession]] = {}
        self.loads: list[tuple[int, bool]] = []  # release, background
        self.dress: Callable[[ScriptedSession], None] = lambda session: None

    def load(
        self, ref: ModelRef, folder: Path, manifest: Manifest, *, background: bool
    ) -> ScriptedSession:
        self.loads.append((ref.release, background))
        if self.fails:
            raise self.fails.pop(0)
        window = None if manifest.window is None else manifest.window.length
        features = len(manifest.features.names)
        session = ScriptedSession(ref, features=features, window=window, quick=self.quick)
        self.dress(session)
        self.made.setdefault(ref.release, []).append(session)
        return session

    def session(self, release: int) -> ScriptedSession:
        """The newest of `release`."""
        return self.made[release][-1]

    def open(self) -> list[int]:
        """The releases that hold a session now."""
        return sorted(s.ref.release for made in self.made.values() for s in made if not s.closed)

    def close(self) -> None:
        """Whatever a test has left open."""
        for made in self.made.values():
            for session in made:
                session.close()

    def doing(self, ref: ModelRef) -> str:
        return ""

    def providers(self) -> Sequence[str]:
        return ["cpu"]

    def jail(self) -> str:
        return "none"

    def version(self) -> str:
        return "1.31"


class ListSource:
    """The `Source` port: bursts a test has put in, read when the lane reads."""

    def __init__(self, stream: str = "s") -> None:
        self.name = f"list {stream}"
        self.stream = stream
        self.bursts: deque[Burst] = deque()
        self.reads = 0
        self.accepted: list[object] = []
        self.resumed: bytes | None = None
        self.ailing = ""
        self.closed = False
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)

    def put(
        self,
        *payloads: bytes,
        token: object = None,
        mark: bytes | None = None,
        arrived: float = 0.0,
    ) -> None:
        """One burst has come, at `arrived` (monotonic)."""
        self.bursts.append(Burst(self.stream, payloads, arrived, None, token, mark))
        self._writer.send(b"\0")

    def fileno(self) -> int | None:
        return None if self.closed else self._reader.fileno()

    def wants_write(self) -> bool:
        return False

    def read(self, readings_max: int) -> Sequence[Burst]:
        assert not self.closed
        self.reads += 1
        with contextlib.suppress(BlockingIOError):
            self._reader.recv(1)
        return [self.bursts.popleft()] if self.bursts else []

    def accept(self, tokens: Sequence[object]) -> None:
        self.accepted += tokens

    def resume(self, mark: bytes) -> None:
        self.resumed = mark

    def tick(self, now: float) -> float:
        return now + 60.0

    def trouble(self) -> str:
        return self.ailing

    def close(self) -> None:
        self.closed = True
        self._reader.close()
        self._writer.close()


class ScriptedLink:
    """The `Link` port.  `refuse` says what becomes of a publish; None: the broker has it."""

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes]] = []  # what the broker has, in order
        self.correlations: list[bytes | None] = []
        self.refuse: Callable[[str, bytes], Exception | None] = lambda topic, payload: None
        self.heard: Callable[[str], bool] = lambda topic: True
        self.ailing = ""
        self.inbox: asyncio.Queue[Message] = asyncio.Queue()
        self.up = asyncio.Event()
        self.up.set()

    async def messages(self) -> AsyncIterator[Message]:
        while True:
            yield await self.inbox.get()

    async def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, correlation: bytes | None = None
    ) -> bool:
        await asyncio.sleep(0)  # as a real one, it is not done at once
        if (error := self.refuse(topic, payload)) is not None:
            raise error
        self.published.append((topic, payload))
        self.correlations.append(correlation)
        return self.heard(topic)

    async def connected(self) -> None:
        await self.up.wait()

    def trouble(self) -> str:
        return self.ailing

    async def run(self) -> None:
        await asyncio.Event().wait()


class RecordingFaces:
    """The `Faces` port: keeps what it was shown and told."""

    def __init__(self) -> None:
        self.shown: list[HealthReport] = []
        self.told: list[Mapping[str, Any]] = []

    def show(self, report: HealthReport) -> None:
        self.shown.append(report)

    def tell(self, event: Mapping[str, Any]) -> None:
        self.told.append(event)
