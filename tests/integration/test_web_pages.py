"""The endpoint over a real socket: every face shows the one report, and only while it is fresh."""

import json
import re
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import agent
from agent.adapters.web import WebFaces
from agent.config import Http
from agent.core.errors import RefusedError
from agent.core.health import Counts, HealthReport, ModelHealth, Version
from tests.world.asking import ask
from tests.world.waiting import eventually

DASHBOARD = Path(agent.__file__).parent / "dashboard"
PAGES = ("/livez", "/readyz", "/metrics", "/state", "/receipts", "/")
DIGEST = "sha256:" + "a" * 64
REPORT = HealthReport(
    "pump-7",
    ready=True,
    models={
        "pump-anomaly": ModelHealth(
            "pump",
            active=Version(7, DIGEST, "7", "cpu", "cuda"),
            counts=Counts(1000, 990, {"range": 3}, 0, 7),
            latency_ms={"p50": 1.1, "p99": float("nan")},
        )
    },
)


@pytest.fixture(scope="module")
def faces() -> Iterator[WebFaces]:
    """One endpoint for all: each test shows it the report it needs."""
    faces = WebFaces(Http(bind="127.0.0.1:0"), stale_s=300.0)
    faces.start()
    yield faces
    faces.stop()


def test_before_the_first_report_it_is_neither_live_nor_ready():
    """[http-1.2]"""
    faces = WebFaces(Http(bind="127.0.0.1:0"))
    faces.start()
    try:
        for page in ("/livez", "/readyz", "/state", "/metrics"):
            heard = ask(faces.port, page)
            assert heard.status == 503, page
            assert "has not been heard yet" in heard.text
    finally:
        faces.stop()


def test_live_only_while_the_agents_loop_is_heard_from():
    """[http-1.1] [http-1.3]"""
    faces = WebFaces(Http(bind="127.0.0.1:0"), stale_s=2.0)
    faces.start()
    try:
        faces.show(REPORT)
        assert ask(faces.port, "/livez").status == 200
        assert ask(faces.port, "/readyz").status == 200
        silent = eventually(lambda: (h := ask(faces.port, "/livez")).status == 503 and h)
        assert re.fullmatch(r"the agent's loop was last heard from \d+ s ago\n", silent.text)
        ready = ask(faces.port, "/readyz")  # a stale "ready" is not true any more
        assert ready.status == 503
        assert ready.text.startswith("not ready: the agent's loop was last heard from")
        faces.show(REPORT)
        assert ask(faces.port, "/livez").status == 200
    finally:
        faces.stop()


def test_an_agent_that_says_it_is_not_live_is_believed(faces):
    """[http-1.1]"""
    faces.show(HealthReport("d", live=False, ready=True, reasons=("the writer is stuck",)))
    heard = ask(faces.port, "/livez")
    assert (heard.status, heard.text) == (503, "the writer is stuck\n")
    assert ask(faces.port, "/readyz").status == 503


@pytest.mark.parametrize(
    ("ready", "reasons", "status", "line"),
    [
        (True, (), 200, "ready\n"),
        (True, ("m runs on cpu, wanted cuda",), 200, "ready: m runs on cpu, wanted cuda\n"),
        (False, ("no golden", "broker\nis away"), 503, "not ready: no golden; broker is away\n"),
        (False, (), 503, "not ready\n"),
    ],
)  # fmt: skip
def test_readyz_is_one_line_of_reasons(faces, ready, reasons, status, line):
    """[http-1.3]"""
    faces.show(HealthReport("d", ready=ready, reasons=reasons))
    heard = ask(faces.port, "/readyz")
    assert (heard.status, heard.text) == (status, line)


def test_state_is_the_reported_document_and_nothing_else(faces):
    """[http-1.4]"""
    faces.show(REPORT)
    heard = ask(faces.port, "/state")
    assert heard.headers["content-type"] == "application/json"
    assert json.loads(heard.text) == json.loads(json.dumps(REPORT.document()))


def test_metrics_are_in_the_format_scrapers_ask_for(faces):
    """[http-1.5]"""
    faces.show(REPORT)
    heard = ask(faces.port, "/metrics")
    assert heard.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'edge_agent_model_scored_total{model="pump-anomaly",stream="pump"} 990.0\n' in heard.text


def test_odd_text_in_a_report_breaks_no_page(faces):
    """[http-1.8]"""
    odd = "\ud800 \x00 <script>\r\nSet-Cookie: x"
    faces.show(HealthReport("d", ready=True, reasons=(odd,), why=odd))
    assert ask(faces.port, "/readyz").text.count("\n") == 1
    assert json.loads(ask(faces.port, "/state").text)["why"] == odd


def test_the_page_needs_nothing_from_elsewhere_and_writes_text_only(faces):
    """[http-2.1] [http-2.2]"""
    page = ask(faces.port, "/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for name in re.findall(r'(?:src|href)="(/[^"]+\.[a-z]+)"', page.text):
        assert ask(faces.port, name).status == 200, name
    sources = {p.name: p.read_text(encoding="utf-8") for p in DASHBOARD.iterdir()}
    assert {"index.html", "app.js", "style.css"} <= set(sources)
    for name, text in sources.items():
        assert not re.search(
            r"//[a-z0-9-]+\.[a-z]{2,}", text.replace("//www.w3.org/2000/svg", "")
        ), name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text
        ), name
        assert not re.search(r"<script>|<style|\sstyle=|\son[a-z]+=\"", text), (
            name
        )  # as the policy says
        for module in re.findall(r'from "(/[^"]+)"', text):
            assert ask(faces.port, module).headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize("page", [*PAGES, "/app.js", "/nothing", "/events"])
def test_every_answer_carries_the_security_headers(faces, page):
    """[http-4.6] [http-4.2]"""
    faces.show(REPORT)
    method = "HEAD" if page == "/events" else "GET"
    for headers in ({}, {"Host": "evil.example"}):
        heard = ask(faces.port, page, headers, method=method).headers
        policy = heard["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert heard["x-content-type-options"] == "nosniff"
        assert heard["referrer-policy"] == "no-referrer"
        assert heard["cache-control"] == "no-store"
        assert not any(name.startswith("access-control-") for name in heard)
        assert "server" not in heard


@pytest.mark.parametrize("page", PAGES)
def test_head_is_get_without_the_body(faces, page):
    """[http-1.9]"""
    faces.show(REPORT)
    head, get = ask(faces.port, page, method="HEAD"), ask(faces.port, page)
    assert (head.status, head.text) == (get.status, "")
    assert head.headers["content-length"] == get.headers["content-length"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_nothing_can_be_changed(faces, method):
    """[http-1.9]"""
    heard = ask(faces.port, "/state", method=method)
    assert (heard.status, heard.headers["allow"]) == (405, "GET, HEAD")


def test_what_is_not_here_is_not_found(faces):
    for path in ("/nothing", "/index.html", "/../agent.toml", "/%2e%2e/agent.toml", "/livez/"):
        assert ask(faces.port, path).status in (404, 307), path


def test_an_address_that_is_taken_is_refused_with_a_sentence(faces):
    """[http-4.12]"""
    second = WebFaces(Http(bind=f"127.0.0.1:{faces.port}"))
    with pytest.raises(RefusedError, match=rf"http.bind 127.0.0.1:{faces.port} cannot be had"):
        second.start()


def test_an_open_address_without_a_token_is_refused():
    """[http-4.4]"""
    with pytest.raises(RefusedError, match="token_file"):
        WebFaces(Http(bind="0.0.0.0:0"))


def test_stopping_gives_back_the_port_and_the_thread():
    """[http-4.13]"""
    before = set(threading.enumerate())
    faces = WebFaces(Http(bind="127.0.0.1:0"))
    faces.start()
    faces.stop()
    faces.stop()
    assert set(threading.enumerate()) == before
    again = WebFaces(Http(bind=f"127.0.0.1:{faces.port}"))
    again.start()
    again.stop()


def test_it_answers_while_another_thread_burns_the_processor(faces):
    """[http-1.10]"""
    faces.show(REPORT)
    over = threading.Event()

    def burn() -> None:
        while not over.is_set():
            sum(i * i for i in range(1000))

    burner = threading.Thread(target=burn)
    burner.start()
    try:
        took = []
        for _ in range(20):
            began = time.perf_counter()
            assert ask(faces.port, "/readyz").status == 200
            took.append(time.perf_counter() - began)
    finally:
        over.set()
        burner.join()
    assert statistics.median(took) < 1.0  # one may have waited for this machine


KEPT = {
    "receipt": {
        "number": 2,
        "kind": "swap",
        "to": {"release": 2},
        "evidence": [{"phase": "shadow"}],
    },
    "signature": {"keyid": "k", "scheme": "ed25519", "sig": "00"},
}


def test_receipts_are_served_with_their_signatures_and_words(faces):
    """[http-1.11]"""
    faces.show(
        HealthReport("d", models={"n": ModelHealth()}, receipts={"m": (KEPT,)}, signing="none: x")
    )
    told = json.loads(ask(faces.port, "/receipts").text)
    assert (told["schema"], told["device"], told["signing"]) == (1, "d", "none: x")
    words = ["swap none → 2", "shadow: "]
    assert told["receipts"] == {"m": [KEPT | {"words": words}]}
    assert json.loads(ask(faces.port, "/receipts/m").text) == told
    assert json.loads(ask(faces.port, "/receipts/n").text)["receipts"] == {"n": []}
    assert ask(faces.port, "/receipts/x").status == 404
    assert ask(faces.port, "/receipts/m/1").status == 404


def test_the_page_has_no_words_of_its_own_for_evidence(faces):
    """[http-2.3]"""
    evidence = {"phase": "shadow", "windows": 3, "wanted": 4, "errors": 0}
    shown = ModelHealth(evidence=evidence, trail=[evidence], receipt=KEPT["receipt"])
    faces.show(HealthReport("d", models={"m": shown}))
    model = json.loads(ask(faces.port, "/state").text)["models"]["m"]
    words = "shadow: 3 of 4 windows, 0 errors"
    assert model["evidence"]["words"] == model["trail"][0]["words"] == words
    assert model["receipt"]["words"] == ["swap none → 2", "shadow: "]
    scripts = "".join(p.read_text(encoding="utf-8") for p in DASHBOARD.glob("*.js"))
    for word in ("agree", "score distance", "of windows", "saturated"):
        assert word not in scripts
    assert "words" in scripts
