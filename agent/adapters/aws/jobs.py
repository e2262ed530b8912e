"""Jobs as deploy orders: taken, written into the shadow's desired state, followed to their end.

A job's document holds `models` as a desired document does; a null retires a model.  What it orders
becomes the shadow's desired state, so that there is one place where wishes are; what becomes of it
is read out of the reports.  A job that is cancelled is no longer followed; what it wished stays.
"""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from agent.adapters.aws.asking import Asking, RejectedError
from agent.adapters.aws.shadow import Shadow
from agent.adapters.aws.topics import ThingTopics
from agent.core.errors import RefusedError, UnavailableError
from agent.core.wire import parse_desired
from agent.ports import Clock

SETTLE_S = 30.0  # a model that has not moved by then will not move
AGAIN_S = 2.0
DETAIL_CHARACTERS_MAX = 1000
OPEN = ("QUEUED", "IN_PROGRESS")

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Job:
    """One execution, as IoT Core told of it, and how far it has come here."""

    id: str
    number: int
    version: int
    status: str
    document: dict[str, Any]
    revision: int | None = None  # in which its models are desired
    since: float = 0.0  # monotonic; when it was
    moved: set[str] = field(default_factory=set)  # models that were seen on their way
    told: tuple[str, str] = ("", "")  # status and detail, as last accepted


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a report says of a job; `status` is IN_PROGRESS until it is over."""

    status: str
    detail: str


class Jobs:
    """Follows one job at a time, the next one IoT Core has for us.  `current` is it."""

    def __init__(
        self,
        asking: Asking,
        topics: ThingTopics,
        shadow: Shadow,
        clock: Clock,
        *,
        renewed: Callable[[], None],
    ) -> None:
        self._asking = asking
        self._topics = topics
        self._shadow = shadow
        self._clock = clock
        self._renewed = renewed
        self._news = asyncio.Event()
        self._report: Mapping[str, Any] = {}
        self.current: Job | None = None

    def reported(self, document: Mapping[str, Any]) -> None:
        """This is how the agent is now."""
        self._report = document
        self._news.set()

    def notified(self, execution: Mapping[str, Any] | None) -> None:
        """IoT Core tells what is next; None that nothing is.

        Notifications may overtake each other: that nothing is next is asked for before it ends a
        job that is followed.
        """
        job = None if not execution else _job(execution)
        if job is None and self.current is not None:
            self._renewed()
        else:
            self._follow(job)

    async def ask(self) -> None:
        """Ask what is next, as at each connect.  Raises UnavailableError."""
        known = self.current
        try:
            answer = await self._asking.ask(f"{self._topics.jobs}/$next/get", {})
        except RejectedError as error:
            raise UnavailableError(str(error)) from error
        execution = answer.get("execution")
        job = _job(execution) if isinstance(execution, dict) else None
        if job is None and self.current is not known:
            self._renewed()  # one was notified while this was asked
        else:
            self._follow(job)

    def _follow(self, job: Job | None) -> None:
        known = self.current
        same = job and known and (job.id, job.number) == (known.id, known.number)
        if job is not None and known is not None and same:
            known.version = max(known.version, job.version)
        else:
            self.current = job
        self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            job = self.current
            if job is None:
                continue
            try:
                await self._advance(job)
            except UnavailableError as error:
                log.info("job waits", job=job.id, why=str(error))
                self._renewed()  # read again what may have changed meanwhile
                await asyncio.sleep(AGAIN_S)
                self._news.set()

    async def _advance(self, job: Job) -> None:
        try:
            wish = json.dumps({"schema": 1, "revision": 0, "models": _wished(job)})
            parse_desired(wish.encode())
        except RefusedError as error:
            await self._tell(job, Outcome("REJECTED", str(error)))
            return
        if job.revision is None:
            if job.status == "QUEUED":
                await self._tell(job, Outcome("IN_PROGRESS", "taken"))
                if self.current is not job:
                    return
            try:
                job.revision = await self._shadow.wish(job.document["models"])
            except RejectedError as error:
                await self._tell(job, Outcome("REJECTED", str(error)))
                return
            job.since = self._clock.monotonic()
            self._renewed()
            return
        outcome = judged(job, self._report, settled=self._clock.monotonic() - job.since > SETTLE_S)
        await self._tell(job, outcome)

    async def _tell(self, job: Job, outcome: Outcome) -> None:
        now = (outcome.status, outcome.detail)
        if now == job.told:
            return
        body = {
            "status": outcome.status,
            "statusDetails": {"detail": _plain(outcome.detail)},
            "expectedVersion": job.version,
            "executionNumber": job.number,
        }
        try:
            await self._asking.ask(f"{self._topics.jobs}/{job.id}/update", body)
        except RejectedError as error:
            state = error.document.get("executionState")
            status = state.get("status") if isinstance(state, dict) else None
            if error.document.get("code") == "VersionMismatch" and status in OPEN:
                job.version = int(state["versionNumber"])  # type: ignore[index]
                raise UnavailableError(str(error)) from error
            log.warning("job is over", job=job.id, why=str(error))  # cancelled, or timed out
            if self.current is job:
                self.current = None
            return
        job.version += 1
        job.told = now
        if outcome.status != "IN_PROGRESS" and self.current is job:
            log.info("job ended", job=job.id, status=outcome.status, detail=outcome.detail)
            self.current = None


def judged(job: Job, report: Mapping[str, Any], *, settled: bool) -> Outcome:
    """What `report` says of `job`; `settled`: what has not moved by now will not."""
    if job.revision is None or report.get("revision", -1) < job.revision:
        return Outcome("IN_PROGRESS", "taken")
    details, ends = [], set()
    for name, wish in job.document["models"].items():
        model = report.get("models", {}).get(name)
        if wish is None:
            ends.add("SUCCEEDED" if model is None else "IN_PROGRESS")
            continue
        status, detail = _one(job, name, wish["release"], model or {}, settled=settled)
        if status != "SUCCEEDED" and name not in job.moved and _is_refused(name, model, report):
            status, detail = "REJECTED", f"{name}: {report.get('why')}"
        ends.add(status)
        details.append(detail)
    for status in ("IN_PROGRESS", "REJECTED", "FAILED"):
        if status in ends:
            return Outcome(status, "; ".join(details))
    return Outcome("SUCCEEDED", "; ".join(details))


def _one(
    job: Job, name: str, release: int, model: Mapping[str, Any], *, settled: bool
) -> tuple[str, str]:
    good, candidate = model.get("known_good") or {}, model.get("candidate") or {}
    phase, why = model.get("phase", ""), str(model.get("why") or "")
    if candidate.get("release") == release or phase not in ("", "steady"):
        job.moved.add(name)
        return "IN_PROGRESS", f"{name}: {phase} {round(10 * model.get('progress', 0)) * 10} %"
    if phase == "steady" and good.get("release") == release:
        return "SUCCEEDED", f"{name}: release {release} is committed"
    if why.startswith("waiting"):
        return "IN_PROGRESS", f"{name}: {why}"
    if name in job.moved or settled or f"{name}:{release}" in why:
        status = "REJECTED" if model.get("state") == "Unschedulable" else "FAILED"
        return status, f"{name}: {why or 'it was not taken'}"
    return "IN_PROGRESS", f"{name}: taken"


def _is_refused(name: str, model: Mapping[str, Any] | None, report: Mapping[str, Any]) -> bool:
    """Whether the refusal that `report` speaks of is that of `name`."""
    if report.get("code", 200) < 400:
        return False
    why = str(report.get("why"))
    named = re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", why) is not None
    return named or (model or {}).get("why") == why


def _job(execution: Mapping[str, Any]) -> Job | None:
    document = execution.get("jobDocument")
    if not isinstance(execution.get("jobId"), str) or execution.get("status") not in OPEN:
        return None
    return Job(
        id=execution["jobId"],
        number=int(execution.get("executionNumber", 1)),
        version=int(execution.get("versionNumber", 1)),
        status=execution["status"],
        document=document if isinstance(document, dict) else {},
    )


def _wished(job: Job) -> dict[str, Any]:
    models = job.document.get("models")
    if not isinstance(models, dict) or not models:
        raise RefusedError('a job names the models it orders: {"models": {"m": {"release": 7}}}')
    return {name: wish for name, wish in models.items() if wish is not None}


def _plain(detail: str) -> str:
    return "".join(c if c.isprintable() else " " for c in detail)[:DETAIL_CHARACTERS_MAX]
