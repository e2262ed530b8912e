"""One model as the reports show it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.core.accelerators import Placement
from agent.core.health import Counts, ModelHealth, Version
from agent.core.latency import Latency
from agent.core.names import ModelRef
from agent.core.rollout import Blame, Phase, Rollout
from agent.runtime.models import Model


@dataclass(frozen=True, slots=True)
class Moment:
    """What belongs to the lane, at one moment.  `last_score` is ISO 8601; `lost`: its worker is;
    `waits_s`: how long the oldest reading on its way has waited for a score.
    """

    counts: Counts = field(default_factory=Counts)
    next_seq: int = 0
    last_score: str = ""
    latency: Latency = field(default_factory=Latency)
    lost: bool = False
    waits_s: float = 0.0


def portrait(model: Model, seen: Moment, refusal: str, receipt: Mapping[str, Any]) -> ModelHealth:
    """`refusal` says why its wish cannot be taken, `receipt` is that of its last change."""
    rollout, works = model.driver.now, model.works
    active = _version(model, rollout.active)
    broken = model.guard.broken
    return ModelHealth(
        stream=model.stream,
        state=_state(rollout, active, refusal, unwell=seen.lost or bool(broken)),
        phase=str(rollout.phase),
        progress=works.progress if rollout.phase is not Phase.STEADY else 1.0,
        why=works.room.doing(rollout.candidate)
        or model.driver.weather
        or rollout.reason
        or _waits(rollout)
        or refusal
        or model.trouble
        or broken
        or _fallback(active),
        warnings=works.warnings,
        active=active,
        known_good=_version(model, rollout.known_good),
        candidate=_version(model, rollout.candidate),
        quarantined=rollout.quarantined,
        counts=seen.counts,
        last_reject=dict(model.scoring.last_reject),
        next_seq=seen.next_seq,
        latency_ms={"p50": seen.latency.quantile(0.5), "p99": seen.latency.quantile(0.99)},
        last_score=seen.last_score,
        waits_s=seen.waits_s,
        rss_bytes=works.room.rss_bytes(),
        swaps=works.swaps,
        rollbacks=works.rollbacks,
        deaths=sum(seat.deaths for seat in works.room.seats.values()),
        receipt=receipt,
        evidence=works.clerk.seen_in(rollout.phase),
        trail=works.clerk.trail,
    )


def _version(model: Model, ref: ModelRef | None) -> Version | None:
    if ref is None:
        return None
    package = model.works.packages.get(ref.digest)
    seat = model.works.room.seats.get(ref)
    return Version(
        ref.release,
        ref.digest,
        version=package.version if package is not None else "",
        provider=seat.session.provider if seat is not None else "",
        wanted=seat.session.wanted if seat is not None else "",
        fallback=seat.session.fallback if seat is not None else "",
        placement=seat.session.placement if seat is not None else Placement(),
    )


def _waits(rollout: Rollout) -> str:
    """A wish that may have to wait for long, where hardly anything comes, is not kept secret."""
    if rollout.waiting is None or rollout.phase is not Phase.PROBATION:
        return ""
    wished = rollout.waiting.ref or "that it is retired"
    return (
        f"{wished} is wished for by now and waits until {rollout.candidate} has ended its"
        " probation; `rollback` ends that now"
    )


def _fallback(active: Version | None) -> str:
    if active is None or active.provider == active.wanted or not active.provider:
        return ""
    why = f": {active.fallback}" if active.fallback else ""
    return f"runs on {active.provider} and not on {active.wanted}{why}"


def _state(rollout: Rollout, active: Version | None, refusal: str, *, unwell: bool) -> str:
    if rollout.phase is not Phase.STEADY:
        return "Transitioning"
    if active is None:
        if rollout.blame is Blame.MISFIT:
            return "Unschedulable"
        return "Failed" if rollout.reason or refusal else "Transitioning"
    if rollout.blame is Blame.MISFIT:
        return "Unschedulable"
    if unwell or not active.provider or active.provider != active.wanted:
        return "Unhealthy"
    return "Healthy"
