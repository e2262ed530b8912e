"""How the agent is: one immutable value, rendered the same by every face (interface.md §5.2).

`reported` on MQTT, `/state`, `/readyz`, `/metrics`, the page and `edge-agent status` all show a
HealthReport and nothing else, so they cannot disagree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.core import wording
from agent.core.accelerators import Placement
from agent.core.fields import finite

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Version:
    """A version and where it runs; provider and wanted are empty where it is not loaded."""

    release: int
    digest: str
    version: str = ""
    provider: str = ""
    wanted: str = ""
    fallback: str = ""  # why they differ
    placement: Placement = field(default_factory=Placement)

    def document(self) -> dict[str, Any]:
        """As `active`, `known_good` or `candidate` in the reported document."""
        full = {
            "version": self.version or str(self.release),
            "release": self.release,
            "digest": self.digest,
        }
        if self.provider:
            full |= {"provider": self.provider, "wanted": self.wanted or self.provider}
            full |= {"fallback": self.fallback, "placement": self.placement.document()}
        return full


@dataclass(frozen=True, slots=True)
class Counts:
    """The account of one stream and model: in = scored + rejected + expired + pending, exactly."""

    readings: int = 0
    scored: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    expired: int = 0
    pending: int = 0

    @property
    def balanced(self) -> bool:
        """Whether the law holds; if not it is a breach, and an event."""
        out = self.scored + sum(self.rejected.values()) + self.expired + self.pending
        return self.readings == out

    def document(self) -> dict[str, Any]:
        """As `counts` in the reported document."""
        return {
            "in": self.readings,
            "scored": self.scored,
            "rejected": dict(self.rejected),
            "expired": self.expired,
            "pending": self.pending,
        }


@dataclass(frozen=True, slots=True)
class ModelHealth:
    """One model: where its rollout stands, what it counted, how fast it is."""

    stream: str = ""
    state: str = "Transitioning"  # Transitioning | Healthy | Unhealthy | Unschedulable | Failed
    phase: str = "steady"
    progress: float = 0.0  # of the phase, 0 to 1
    why: str = ""
    warnings: Sequence[str] = ()  # about the stream, as the last candidate wants it
    active: Version | None = None
    known_good: Version | None = None
    candidate: Version | None = None
    quarantined: Sequence[str] = ()
    counts: Counts = Counts()
    last_reject: Mapping[str, str] = field(default_factory=dict)  # reason -> of the latest, why
    next_seq: int = 0
    latency_ms: Mapping[str, float] = field(default_factory=dict)  # p50, p99
    last_score: str = ""  # ISO 8601, UTC
    waits_s: float = 0.0  # the oldest reading on its way, for a score
    rss_bytes: int = 0
    swaps: int = 0
    rollbacks: int = 0
    deaths: int = 0  # of its workers
    receipt: Mapping[str, Any] = field(default_factory=dict)  # of the last swap or rollback
    evidence: Mapping[str, Any] | None = None  # of the phase in hand, while a version is tried
    trail: Sequence[Mapping[str, Any]] = ()  # of each phase this rollout, else the last, has left

    def document(self) -> dict[str, Any]:
        """As a member of `models` in the reported document."""
        return {
            "state": self.state,
            "phase": self.phase,
            "progress": round(self.progress, 3),
            "why": self.why,
            "warnings": list(self.warnings),
            "stream": self.stream,
            "active": self.active.document() if self.active else None,
            "known_good": self.known_good.document() if self.known_good else None,
            "candidate": self.candidate.document() if self.candidate else None,
            "quarantined": list(self.quarantined),
            "counts": self.counts.document(),
            "last_reject": dict(self.last_reject),
            "next_seq": self.next_seq,
            "latency_ms": {k: finite(round(v, 3)) for k, v in self.latency_ms.items()},
            "last_score": self.last_score,
            "rss_mb": round(self.rss_bytes / 2**20, 1),
            "swaps": self.swaps,
            "rollbacks": self.rollbacks,
            "worker_deaths": self.deaths,
            "evidence": wording.worded(self.evidence) if self.evidence else None,
            "trail": [wording.worded(evidence) for evidence in self.trail],
            "receipt": _receipt(self.receipt) if self.receipt else None,
        }


def _receipt(receipt: Mapping[str, Any]) -> dict[str, Any]:
    return {**receipt, "words": wording.receipt_lines(receipt)}


@dataclass(frozen=True, slots=True)
class StreamHealth:
    """One stream: what came in before any model saw it."""

    readings: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    last_reading: str = ""  # ISO 8601, UTC
    paused: bool = False
    trouble: str = ""
    last_reject: Mapping[str, str] = field(default_factory=dict)  # reason -> of the latest, why
    seq_gaps: int = 0  # how often the numbers of its messages did not go on

    def document(self) -> dict[str, Any]:
        """As a member of `streams` in the reported document."""
        return {
            "in": self.readings,
            "rejected": dict(self.rejected),
            "last_reject": dict(self.last_reject),
            "seq_gaps": self.seq_gaps,
            "last_reading": self.last_reading,
            "paused": self.paused,
            "trouble": self.trouble,
        }


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The whole agent at one moment."""

    device: str
    revision: int = 0  # of the desired document in force
    code: int = 200  # what became of the last desired document, as HTTP would say it
    why: str = ""
    live: bool = True
    ready: bool = False
    reasons: Sequence[str] = ()  # why it is not ready, or ready with a doubt; sentences
    version: str = ""
    started: str = ""  # ISO 8601, UTC
    uptime_s: float = 0.0
    rss_bytes: int = 0
    onnxruntime: str = ""
    providers: Sequence[str] = ()
    jail: str = ""
    trust: str = ""
    broker: str = ""  # why the link does not stand; empty if it does
    models: Mapping[str, ModelHealth] = field(default_factory=dict)
    streams: Mapping[str, StreamHealth] = field(default_factory=dict)
    outbox: Mapping[str, int] = field(default_factory=lambda: {"records": 0, "bytes": 0, "gaps": 0})
    groups: Sequence[str] = ()  # that the device is in; how `deploy --group` knows whom to follow
    signing: str = ""  # what receipts are signed with, or why they are not
    # Envelopes by model, the newest first.  Too many for every report: they have their own page.
    receipts: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The reported document."""
        return {
            "schema": SCHEMA,
            "device": self.device,
            "groups": list(self.groups),
            "revision": self.revision,
            "code": self.code,
            "why": self.why,
            "live": self.live,
            "ready": self.ready,
            "reasons": list(self.reasons),
            "agent": {
                "version": self.version,
                "started": self.started,
                "uptime_s": round(self.uptime_s),
                "rss_mb": round(self.rss_bytes / 2**20, 1),
                "onnxruntime": self.onnxruntime,
                "providers": list(self.providers),
                "jail": self.jail,
                "trust": self.trust,
                "broker": self.broker,
                "receipts": self.signing,
            },
            "models": {name: model.document() for name, model in self.models.items()},
            "streams": {name: stream.document() for name, stream in self.streams.items()},
            "outbox": dict(self.outbox),
        }

    def receipts_document(self, model: str = "") -> dict[str, Any]:
        """What is served at /receipts: the kept receipts of all models, or of `model`."""
        chosen = {model: self.receipts.get(model, ())} if model else self.receipts
        return {
            "schema": SCHEMA,
            "device": self.device,
            "signing": self.signing,
            "receipts": {
                name: [{**e, "words": wording.receipt_lines(e["receipt"])} for e in envelopes]
                for name, envelopes in chosen.items()
            },
        }
