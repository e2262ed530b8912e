"""Tells how the agent is: builds one HealthReport, gives it to every face, publishes it on change.

Counts change with every reading and are no news; what a person would act on is.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import psutil
import structlog

from agent import __version__
from agent.core.errors import RefusedError, UnavailableError
from agent.core.health import HealthReport, ModelHealth, StreamHealth
from agent.core.rollout import Phase
from agent.core.topics import Topics
from agent.ports import Clock, Engine, Faces, Link, Outbox
from agent.runtime.archive import Archive
from agent.runtime.lane import Lane
from agent.runtime.models import Models
from agent.runtime.portraits import Moment, portrait
from agent.runtime.proving import Prover
from agent.runtime.wishes import Wishes

logger = structlog.get_logger(__name__)

LOOK_S = 1.0
WAITS_S_MAX = 20.0  # for a score, before it is said
SNAPSHOT_S_MAX = 4.0  # a lane that takes longer to answer is not live
SETTLE_S = 0.05  # changes that come together are told together


class Reporter:
    """`report` is the last one built."""

    def __init__(
        self,
        *,
        device: str,
        groups: Sequence[str],
        topics: Topics,
        models: Models,
        wishes: Wishes,
        prover: Prover,
        lane: Lane,
        engine: Engine,
        outbox: Outbox,
        link: Link,
        faces: Faces,
        clock: Clock,
        interval_s: float,
        trust: str,
        archive: Archive,
        news: asyncio.Event,
        doubts: Callable[[], Sequence[str]] = lambda: (),
        unheard: Callable[[], int] = lambda: 0,
    ) -> None:
        self.report = HealthReport(device)
        self._device = device
        self._groups = groups
        self._topics = topics
        self._models = models
        self._wishes = wishes
        self._prover = prover
        self._lane = lane
        self._engine = engine
        self._outbox = outbox
        self._link = link
        self._faces = faces
        self._clock = clock
        self._interval_s = interval_s
        self._trust = trust
        self._archive = archive
        self._doubts = doubts  # for a person to see to, although it is ready
        self._unheard = unheard  # score rows that the broker gave to nobody
        self._changed = news  # set by whoever has something new
        self._started = clock.wall()
        self._began = clock.monotonic()
        self._providers: Sequence[str] = ()
        self._version = ""  # of onnxruntime, as far as is known yet
        self._process = psutil.Process()

    def document(self) -> Mapping[str, Any]:
        """The reported document as it was last built."""
        return self.report.document()

    async def run(self) -> None:
        """Until cancelled: show every second, publish on change and each interval."""
        told, told_at = "", float("-inf")
        # An engine that has met no worker yet starts one to ask, and the loop has other work.
        self._providers = tuple(await asyncio.to_thread(self._engine.providers))
        self._version = self._engine.version()
        while True:
            self.report = await self._build()
            self._faces.show(self.report)
            news = _news(self.report)
            due = self._clock.monotonic() - told_at >= self._interval_s
            if (news != told or due) and await self._publish():
                told, told_at = news, self._clock.monotonic()
            self._changed.clear()
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._changed.wait()
                await asyncio.sleep(SETTLE_S)
            except TimeoutError:
                pass

    async def _publish(self) -> bool:
        body = json.dumps(self.report.document(), ensure_ascii=False, allow_nan=False).encode()
        try:
            await self._link.publish(self._topics.reported, body, retain=True)
        except UnavailableError:
            return False
        except RefusedError as error:
            logger.error("report refused by the broker", why=str(error))  # noqa: TRY400
        return True

    async def _build(self) -> HealthReport:
        now = self._clock.monotonic()
        try:
            future = asyncio.wrap_future(self._lane.call(lambda: self._snapshot(now)))
            async with asyncio.timeout(SNAPSHOT_S_MAX):
                counts, streams = await future
            live, why = True, ""
        except (TimeoutError, RuntimeError):
            live, why = False, "the scoring lane does not answer"
            counts = {}
            streams = dict(self.report.streams)
        models = {
            name: portrait(
                model,
                counts.get(name) or Moment(),
                self._wishes.refusals.get(name, ""),
                self._archive.newest(name),
            )
            for name, model in self._models.rows.items()
        }
        reasons = self._reasons(models, streams)
        if not live:
            reasons.insert(0, why)
        disk = self._outbox.trouble()
        return HealthReport(
            device=self._device,
            groups=self._groups,
            revision=self._wishes.revision,
            code=self._wishes.code,
            why=self._wishes.why,
            live=live,
            ready=live and not reasons,
            reasons=(*reasons, *self._doubts(), *filter(None, [disk.why])),
            version=__version__,
            started=_iso(self._started),
            uptime_s=now - self._began,
            rss_bytes=self._process.memory_info().rss,
            onnxruntime=self._version,
            providers=self._providers,
            jail=self._engine.jail(),
            trust=self._trust,
            broker=self._link.trouble(),
            models=models,
            streams=streams,
            outbox={
                **self._outbox.depth(),
                "unheard": self._unheard(),
                "disk_errors": disk.errors,
            },
            signing=self._archive.signing,
            receipts=self._archive.envelopes(),
        )

    def _snapshot(self, now: float) -> tuple[dict[str, Moment], dict[str, StreamHealth]]:
        """On the lane's thread: what belongs to it, at one moment."""
        trouble = {n: s.trouble() for s, names in self._lane.sources.items() for n in names}
        models = {}
        for scoring in self._lane.scorings():
            account, seat = scoring.account, scoring.slot.seat
            models[scoring.model] = Moment(
                account.counts(),
                account.next_seq,
                _iso(account.last_score),
                scoring.recent.whole(now),
                lost=seat is not None and seat.lost,
                waits_s=scoring.waits_s(now),
            )
        streams = {
            name: intake.health(trouble.get(name, ""), _iso(intake.last_reading))
            for name, intake in self._lane.intakes.items()
        }
        return models, streams

    def _reasons(
        self, models: Mapping[str, ModelHealth], streams: Mapping[str, StreamHealth]
    ) -> list[str]:
        """Why the agent is not ready, in sentences; none if it is."""
        reasons = []
        if not models:
            reasons.append("no model is desired yet")
        for name, model in models.items():
            if model.active is None:
                if model.phase != Phase.STEADY or model.why or self._wishes.wants(name):
                    why = model.why or self._wishes.refusals.get(name) or _in_words(model.phase)
                    reasons.append(f"{name} has no active version: {why}")
            elif not model.active.provider:
                reasons.append(f"{name}:{model.active.release} is not loaded: {model.why}")
            elif model.state == "Unhealthy" and not model.counts.balanced:
                reasons.append(f"{name}: the account of its readings does not balance")
            if model.waits_s > WAITS_S_MAX:
                told = f"readings have waited {model.waits_s:.0f} s for a score"
                reasons.append(f"{name}: {told}, {model.counts.pending} are pending")
            if wrong := self._prover.why_not(name):
                reasons.append(f"{name}: {wrong}")
            scoring = self._models.rows[name].scoring
            if scoring.slot.seat is not None and scoring.slot.seat.lost:
                reasons.append(f"{name}: its worker is gone and being brought back")
        for name, why in self._wishes.refusals.items():
            if name not in models:
                reasons.append(f"{name}: {why}")
        wanted = {model.stream for model in models.values()}
        for name, stream in streams.items():
            if stream.paused:
                reasons.append(f"the stream {name} is paused")
            elif stream.trouble and name in wanted:
                reasons.append(f"the stream {name} gets no readings: {stream.trouble}")
        return reasons


def _news(report: HealthReport) -> str:
    """The part of a report whose change is news."""
    document: dict[str, Any] = report.document()
    for part in ("uptime_s", "rss_mb"):
        document["agent"].pop(part)
    document.pop("outbox")
    document.pop("streams")
    for model in document["models"].values():
        for part in ("counts", "latency_ms", "last_reject", "last_score", "rss_mb", "next_seq"):
            model.pop(part)
        model["progress"] = round(model["progress"], 1)
        if model["evidence"]:
            model["evidence"] = {k: model["evidence"].get(k) for k in ("phase", "verdict")}
    return json.dumps(document, sort_keys=True)


def _iso(wall: float) -> str:
    if not wall:
        return ""
    return (
        datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def _in_words(phase: str) -> str:
    return "its rollout has not begun" if phase == Phase.STEADY else str(phase)
