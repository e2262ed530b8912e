"""What Prometheus reads is what the report says, in names it will still understand tomorrow."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from agent.adapters.web.metrics import STATES, render
from agent.core.health import Counts, HealthReport, ModelHealth, StreamHealth, Version
from agent.core.rollout import Phase

DIGEST = "sha256:" + "a" * 64


def read(report: HealthReport) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample, by name and labels, as Prometheus' own parser sees it."""
    families = text_string_to_metric_families(render(report).decode())
    found = [s for family in families for s in family.samples]
    samples = {(s.name, tuple(sorted(s.labels.items()))): s.value for s in found}
    assert len(samples) == len(found), "a series is there twice"
    return samples


def key(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return f"edge_agent_{name}", tuple(sorted(labels.items()))


def model(**more: object) -> HealthReport:
    return HealthReport("pump-7", models={"m": ModelHealth("s", **more)})  # type: ignore[arg-type]


def test_readiness_and_the_outbox_are_told():
    outbox = {"records": 3, "bytes": 400, "gaps": 7, "unheard": 5, "disk_errors": 2}
    got = read(HealthReport("pump-7", ready=True, broker="connection refused", outbox=outbox))
    assert got[key("ready")] == 1
    assert got[key("live")] == 1
    assert got[key("broker_connected")] == 0
    assert (got[key("outbox_records")], got[key("outbox_bytes")]) == (3, 400)
    assert got[key("outbox_gaps_total")] == 7
    assert got[key("outbox_unheard_total")] == 5
    assert got[key("outbox_disk_errors_total")] == 2


def test_the_account_of_a_model_can_be_checked_from_outside():
    """[http-1.6]"""
    counts = Counts(1000, 990, {"range": 2, "missing": 1}, 0, 7)
    got, labels = read(model(counts=counts)), {"model": "m", "stream": "s"}
    rejected = sum(v for (name, _), v in got.items() if name == "edge_agent_model_rejected_total")
    out = got[key("model_scored_total", **labels)] + rejected
    out += got[key("model_expired_total", **labels)] + got[key("model_pending", **labels)]
    assert got[key("model_readings_total", **labels)] == out == 1000
    assert got[key("model_conserved", **labels)] == 1
    assert read(model(counts=Counts(5, 4)))[key("model_conserved", **labels)] == 0


def test_a_provider_that_was_not_wanted_is_a_series_of_its_own():
    """[http-1.7]"""
    fallen = read(model(active=Version(7, DIGEST, "7", "cpu", "cuda")))
    labels = {"model": "m", "stream": "s"}
    assert fallen[key("model_provider_fallback", **labels)] == 1
    assert fallen[key("model_provider", provider="cpu", wanted="cuda", **labels)] == 1
    fine = read(model(active=Version(7, DIGEST, "7", "cpu", "cpu")))
    assert fine[key("model_provider_fallback", **labels)] == 0


def test_latency_is_in_seconds_by_quantile_and_absent_while_unknown():
    got = read(model(latency_ms={"p50": 1.5, "p99": math.nan}))
    assert got[key("model_latency_seconds", model="m", stream="s", quantile="0.5")] == 0.0015
    assert key("model_latency_seconds", model="m", stream="s", quantile="0.99") not in got


@pytest.mark.parametrize("phase", list(Phase))
def test_exactly_one_phase_and_one_state_hold(phase):
    got = read(model(phase=phase.value, state="Unhealthy"))
    phases = {dict(k[1])["phase"]: v for k, v in got.items() if k[0] == "edge_agent_model_phase"}
    states = {dict(k[1])["state"]: v for k, v in got.items() if k[0] == "edge_agent_model_state"}
    assert [name for name, on in phases.items() if on] == [phase.value]
    assert [name for name, on in states.items() if on] == ["Unhealthy"]
    assert set(states) == set(STATES)


def test_times_are_unix_times_and_a_time_that_is_none_is_no_number():
    streams = {
        "s": StreamHealth(last_reading="2026-11-21T00:00:00Z"),
        "t": StreamHealth(last_reading="?"),
    }
    got = read(HealthReport("d", streams=streams))
    assert got[key("stream_last_reading_timestamp_seconds", stream="s")] == 1795219200
    assert math.isnan(got[key("stream_last_reading_timestamp_seconds", stream="t")])


def test_gaps_in_the_numbers_of_a_stream_are_counted():
    """[streams-3.6]"""
    got = read(HealthReport("d", streams={"s": StreamHealth(seq_gaps=3)}))
    assert got[key("stream_seq_gaps_total", stream="s")] == 3


def test_names_follow_the_habits_of_the_field():
    """[http-1.5]"""
    report = HealthReport(
        "d",
        models={"m": ModelHealth("s", counts=Counts(1, 0, {"range": 1}), latency_ms={"p99": 1.0})},
        streams={"s": StreamHealth(1, {"malformed": 1})},
    )
    for family in text_string_to_metric_families(render(report).decode()):
        assert family.documentation.endswith("."), family.name
        for sample in family.samples:
            assert sample.name.startswith("edge_agent_")
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name
            assert not sample.name.endswith(("_ms", "_mb", "_percent")), sample.name


@given(text=st.text(max_size=40), why=st.text(max_size=40))
def test_no_text_of_the_report_breaks_the_format(text, why):
    """[http-1.8]"""
    report = HealthReport(
        text,
        broker=why,
        models={text: ModelHealth(why, counts=Counts(rejected={why: 2}))},
        streams={text: StreamHealth(3, {why: 1})},
    )
    try:
        (text + why).encode()
    except UnicodeEncodeError:
        return
    assert read(report)[key("stream_readings_total", stream=text)] == 3
