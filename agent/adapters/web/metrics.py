"""A HealthReport in the words of Prometheus.  Renders; measures nothing.

Names follow its habits: `edge_agent_` in front, base units, `_total` on what only rises.  The set
of label values is bounded by the models, streams and reasons there are.
"""

import math
from collections.abc import Iterator, Sequence
from datetime import datetime

from prometheus_client import generate_latest
from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)

from agent.core.health import HealthReport, ModelHealth, Version
from agent.core.rollout import Phase

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATES = ("Transitioning", "Healthy", "Unhealthy", "Unschedulable", "Failed")
QUANTILES = {"p50": "0.5", "p99": "0.99"}

MODEL = ("model", "stream")
Sample = tuple[Sequence[str], float]


def render(report: HealthReport) -> bytes:
    """The text exposition of `report`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(report))
    return bytes(generate_latest(registry))


class _Collector:
    def __init__(self, report: HealthReport) -> None:
        self._report = report

    def collect(self) -> Iterator[Metric]:
        yield from _agent(self._report)
        yield from _streams(self._report)
        yield from _versions(self._report)
        yield from _placement(self._report)
        yield from _rollouts(self._report)
        yield from _accounts(self._report)
        yield from _performance(self._report)


def _agent(report: HealthReport) -> Iterator[Metric]:
    about = {
        "device": report.device,
        "version": report.version,
        "onnxruntime": report.onnxruntime,
        "providers": ",".join(report.providers),
        "jail": report.jail,
        "trust": report.trust,
    }
    yield InfoMetricFamily("edge_agent", "What runs here.", value=about)
    yield _gauge("live", "Whether the agent's loop turns.", [((), report.live)])
    yield _gauge("ready", "Whether it scores as it was told to.", [((), report.ready)])
    yield _gauge("uptime_seconds", "Since it started.", [((), report.uptime_s)])
    yield _gauge(
        "resident_memory_bytes", "Of the agent, without workers.", [((), report.rss_bytes)]
    )
    yield _gauge("broker_connected", "Whether the link stands.", [((), not report.broker)])
    yield _gauge("desired_revision", "Of the document in force.", [((), report.revision)])
    yield _gauge("desired_code", "What became of the last document.", [((), report.code)])
    outbox = report.outbox
    yield _gauge("outbox_records", "Waiting to go out.", [((), outbox.get("records", 0))])
    yield _gauge("outbox_bytes", "Waiting to go out.", [((), outbox.get("bytes", 0))])
    yield _counter("outbox_gaps", "Rows given up, and told.", [((), outbox.get("gaps", 0))])
    dead = outbox.get("dead_letters", 0)
    yield _counter("outbox_dead_letters", "Records the broker refused for good.", [((), dead)])
    errors = outbox.get("disk_errors", 0)
    yield _counter("outbox_disk_errors", "What the disk of the store said no to.", [((), errors)])
    unheard = outbox.get("unheard", 0)
    yield _counter("outbox_unheard", "Rows the broker took and gave to nobody.", [((), unheard)])


def _streams(report: HealthReport) -> Iterator[Metric]:
    streams, label = report.streams.items(), ("stream",)
    yield _counter(
        "stream_readings",
        "Readings that came in, before any model saw them.",
        [((name,), s.readings) for name, s in streams],
        label,
    )
    yield _counter(
        "stream_rejected",
        "Readings that no model could be given.",
        [((name, why), n) for name, s in streams for why, n in s.rejected.items()],
        ("stream", "reason"),
    )
    yield _counter(
        "stream_seq_gaps",
        "How often the numbers of its messages did not go on (Sparkplug).",
        [((name,), s.seq_gaps) for name, s in streams],
        label,
    )
    yield _gauge(
        "stream_last_reading_timestamp_seconds",
        "When the last reading came.",
        [((name,), _timestamp(s.last_reading)) for name, s in streams if s.last_reading],
        label,
    )
    yield _gauge("stream_paused", "By command.", [((n,), s.paused) for n, s in streams], label)
    yield _gauge(
        "stream_trouble",
        "Whether no readings can come just now.",
        [((name,), bool(s.trouble)) for name, s in streams],
        label,
    )


def _versions(report: HealthReport) -> Iterator[Metric]:
    loaded = [
        (
            (*key, role, version.version or str(version.release), version.digest),
            float(version.release),
        )
        for key, model in _models(report)
        for role, version in _roles(model)
    ]
    yield _gauge(
        "model_release",
        "The release in each role: active, known_good, candidate.",
        loaded,
        (*MODEL, "role", "version", "digest"),
    )
    active = [(key, m.active) for key, m in _models(report) if m.active and m.active.provider]
    yield _gauge(
        "model_provider",
        "1 for the provider the active version runs on, beside the one that was wanted.",
        [((*key, v.provider, v.wanted or v.provider), 1.0) for key, v in active],
        (*MODEL, "provider", "wanted"),
    )
    yield _gauge(
        "model_provider_fallback",
        "Whether the active version runs on another provider than was wanted.",
        [(key, v.wanted not in ("", v.provider)) for key, v in active],
        MODEL,
    )


def _placement(report: HealthReport) -> Iterator[Metric]:
    """Where active versions really run."""
    active = [(key, m.active.placement) for key, m in _models(report) if m.active]
    yield _gauge(
        "model_nodes_ratio",
        "Share of the active version's graph that a provider runs.",
        [((*key, name), share) for key, p in active for name, share in p.nodes.items()],
        (*MODEL, "provider"),
    )
    yield _gauge(
        "model_time_ratio",
        "Share of the active version's time that a provider takes, when it was loaded.",
        [((*key, name), share) for key, p in active for name, share in p.time.items()],
        (*MODEL, "provider"),
    )
    yield _gauge(
        "model_trial_seconds",
        "Of one row on a provider that was tried for the active version, and proved itself.",
        [
            ((*key, trial.provider), trial.sample_ms / 1e3)
            for key, p in active
            for trial in p.trials
            if not trial.why
        ],
        (*MODEL, "provider"),
    )


def _rollouts(report: HealthReport) -> Iterator[Metric]:
    models = list(_models(report))
    yield _gauge(
        "model_state",
        "1 for the state the model is in.",
        [((*key, state), m.state == state) for key, m in models for state in STATES],
        (*MODEL, "state"),
    )
    yield _gauge(
        "model_phase",
        "1 for the phase its rollout is in.",
        [((*key, phase.value), m.phase == phase) for key, m in models for phase in Phase],
        (*MODEL, "phase"),
    )
    yield _gauge(
        "model_phase_progress_ratio",
        "Of the phase, 0 to 1.",
        [(key, m.progress) for key, m in models],
        MODEL,
    )
    yield _gauge(
        "model_quarantined",
        "Versions that are never to be tried again.",
        [(key, len(m.quarantined)) for key, m in models],
        MODEL,
    )
    swaps = [(key, m.swaps) for key, m in models]
    yield _counter("model_swaps", "Versions swapped in.", swaps, MODEL)
    backs = [(key, m.rollbacks) for key, m in models]
    yield _counter("model_rollbacks", "Swaps undone.", backs, MODEL)
    deaths = [(key, m.deaths) for key, m in models]
    yield _counter("model_worker_deaths", "Workers that died.", deaths, MODEL)


def _accounts(report: HealthReport) -> Iterator[Metric]:
    """The law: readings = scored + rejected + expired + pending."""
    counts = [(key, m.counts) for key, m in _models(report)]
    readings = [(key, c.readings) for key, c in counts]
    yield _counter("model_readings", "Readings the model was to score.", readings, MODEL)
    scored = [(key, c.scored) for key, c in counts]
    yield _counter("model_scored", "Readings it scored.", scored, MODEL)
    yield _counter(
        "model_rejected",
        "Readings it did not take, by reason.",
        [((*key, why), n) for key, c in counts for why, n in c.rejected.items()],
        (*MODEL, "reason"),
    )
    expired = [(key, c.expired) for key, c in counts]
    yield _counter("model_expired", "Readings that no window wanted in time.", expired, MODEL)
    pending = [(key, c.pending) for key, c in counts]
    yield _gauge("model_pending", "Readings not yet accounted for.", pending, MODEL)
    yield _gauge(
        "model_conserved",
        "Whether readings = scored + rejected + expired + pending holds exactly.",
        [(key, c.balanced) for key, c in counts],
        MODEL,
    )


def _performance(report: HealthReport) -> Iterator[Metric]:
    models = list(_models(report))
    latency = Metric("edge_agent_model_latency_seconds", "From arrival to score.", "summary")
    for key, model in models:
        for name, value in model.latency_ms.items():
            if name in QUANTILES and math.isfinite(value):
                labels = dict(zip(MODEL, key, strict=True)) | {"quantile": QUANTILES[name]}
                latency.add_sample("edge_agent_model_latency_seconds", labels, value / 1000)
    yield latency
    yield _gauge(
        "model_last_score_timestamp_seconds",
        "When it last scored.",
        [(key, _timestamp(m.last_score)) for key, m in models if m.last_score],
        MODEL,
    )
    memory = [(key, m.rss_bytes) for key, m in models]
    yield _gauge("model_resident_memory_bytes", "Of its workers.", memory, MODEL)


def _models(report: HealthReport) -> Iterator[tuple[tuple[str, str], ModelHealth]]:
    for name, model in report.models.items():
        yield (name, model.stream), model


def _roles(model: ModelHealth) -> Iterator[tuple[str, Version]]:
    for role in ("active", "known_good", "candidate"):
        version: Version | None = getattr(model, role)
        if version is not None:
            yield role, version


def _gauge(name: str, about: str, samples: Sequence[Sample], labels: Sequence[str] = ()) -> Metric:
    return _fill(GaugeMetricFamily(f"edge_agent_{name}", about, labels=labels), samples)


def _counter(
    name: str, about: str, samples: Sequence[Sample], labels: Sequence[str] = ()
) -> Metric:
    return _fill(CounterMetricFamily(f"edge_agent_{name}", about, labels=labels), samples)


def _fill(family: GaugeMetricFamily | CounterMetricFamily, samples: Sequence[Sample]) -> Metric:
    for values, sample in samples:
        family.add_metric(list(values), float(sample))
    return family


def _timestamp(text: str) -> float:
    """Seconds since 1970 of an ISO 8601 time; NaN, which Prometheus knows, if it is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return math.nan
