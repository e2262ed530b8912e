"""interface.md §5 and §6 as a stranger meets them: plain paho and plain HTTP, field by field."""

import json
import re
import threading
import time

import httpx
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.world import zoo
from tests.world.site import DEVICE, Site
from tests.world.waiting import eventually

REPORTED = {
    "schema": int,
    "device": str,
    "revision": int,
    "code": int,
    "why": str,
    "live": bool,
    "ready": bool,
    "reasons": list,
    "agent": dict,
    "models": dict,
    "outbox": dict,
}
AGENT = {
    "version": str,
    "started": str,
    "uptime_s": int,
    "rss_mb": float,
    "onnxruntime": str,
    "providers": list,
    "jail": str,
}
MODEL = {
    "state": str,
    "phase": str,
    "progress": float,
    "why": str,
    "active": dict,
    "known_good": dict,
    "candidate": type(None),
    "quarantined": list,
    "counts": dict,
    "latency_ms": dict,
    "last_score": str,
    "rss_mb": float,
}
SCORES = ["schema", "model", "release", "stream", "epoch", "seq", "key", "time", "score"]


class Ear:
    """Everything under `edge/`, as it comes: (topic, qos, retain, payload, correlation)."""

    def __init__(self, url):
        self.heard = []
        self._lock = threading.Lock()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, "stranger", protocol=mqtt.MQTTv5)
        self.client.on_message = self._hear
        self._port = int(url.rsplit(":", 1)[1])

    def __enter__(self):
        self.client.connect("127.0.0.1", self._port)
        self.client.loop_start()
        eventually(self.client.is_connected, 10)
        self.client.subscribe("edge/#", 1)
        return self

    def __exit__(self, *_):
        self.client.disconnect()
        self.client.loop_stop()

    def _hear(self, _client, _userdata, message):
        correlation = getattr(message.properties, "CorrelationData", None)
        with self._lock:
            self.heard.append(
                (message.topic, message.qos, message.retain, message.payload, correlation)
            )

    def on(self, topic):
        with self._lock:
            return [one for one in self.heard if one[0] == topic]

    def last(self, topic):
        heard = self.on(topic)
        return json.loads(heard[-1][3]) if heard else None


@pytest.fixture
def site(broker, tmp_path):
    with Site(broker, tmp_path) as site:
        yield site.start()


@pytest.fixture
def ear(broker):
    with Ear(broker.url) as ear:
        yield ear


def fields(document, wanted):
    assert {name: type(document.get(name)) for name in wanted} == wanted


def test_reported_and_state_are_the_same_document_with_the_promised_fields(site, ear, tmp_path):
    site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
    site.readings({"ts": 1.7e9 + n, **{f"f{i}": 0.1 for i in range(8)}} for n in range(10))
    eventually(lambda: site.model("m")["counts"]["scored"] == 10, 10)
    document = site.state()
    fields(document, REPORTED)
    fields(document["agent"], AGENT)
    model = document["models"]["m"]
    fields(model, MODEL)
    assert {"version", "release", "digest", "provider", "wanted"} <= model["active"].keys()
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", model["active"]["digest"])
    assert set(model["counts"]) == {"in", "scored", "rejected", "expired", "pending"}
    assert {"p50", "p99"} <= model["latency_ms"].keys()
    assert {"records", "bytes", "gaps"} <= document["outbox"].keys()
    reported = eventually(
        lambda: (
            said
            if (said := ear.last(f"edge/{DEVICE}/reported"))["models"]["m"]["counts"]["scored"]
            else None
        ),
        10,
    )
    assert reported.keys() == document.keys()
    assert reported["models"]["m"].keys() == model.keys()


def test_scores_are_columns_at_qos_1_and_not_retained(site, ear, tmp_path):
    release = site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
    site.readings({"ts": 1.7e9 + n, **{f"f{i}": 0.1 for i in range(8)}} for n in range(50))
    topic = f"edge/{DEVICE}/scores/m"
    eventually(lambda: sum(len(json.loads(m[3])["score"]) for m in ear.on(topic)) == 50, 10)
    rows = 0
    for _, qos, retain, payload, _ in ear.on(topic):
        said = json.loads(payload)
        assert (qos, retain) == (1, False)
        assert list(said)[: len(SCORES)] == SCORES
        assert (said["model"], said["release"], said["stream"]) == ("m", release, "s")
        assert said["seq"] == rows
        assert len(said["key"]) == len(said["time"]) == len(said["score"])
        rows += len(said["score"])


def test_status_is_retained_cleared_by_the_will_and_by_a_clean_goodbye(site, ear, broker):
    topic = f"edge/{DEVICE}/status"
    online = eventually(lambda: ear.last(topic), 20)
    assert (online["schema"], online["online"]) == (1, True)
    assert re.match(r"\d{4}-\d\d-\d\dT", online["since"])
    assert online["agent"]
    eventually(lambda: ear.on(f"edge/{DEVICE}/reported"), 10)
    site.kill()
    eventually(lambda: ear.last(topic) == {"schema": 1, "online": False}, 10)
    site.start()
    eventually(lambda: ear.last(topic)["online"], 20)
    assert site.stop() == 0
    eventually(lambda: not ear.last(topic)["online"], 5)
    with Ear(broker.url) as late:
        retained = eventually(lambda: late.on(topic), 5)
        assert retained[0][1:3] == (1, True)
        reported = eventually(lambda: late.on(f"edge/{DEVICE}/reported"), 5)
        assert reported[0][1:3] == (1, True)


def test_a_command_is_answered_where_it_asks_and_else_at_its_id(site, ear):
    eventually(lambda: ear.last(f"edge/{DEVICE}/status"), 20)
    body = {"id": "one", "expires": time.time() + 60, "args": {}}
    asked = Properties(PacketTypes.PUBLISH)
    asked.ResponseTopic, asked.CorrelationData = "edge/elsewhere", b"mine"
    ping = f"edge/{DEVICE}/command/ping"
    ear.client.publish(ping, json.dumps(body), qos=1, properties=asked)
    heard = eventually(lambda: ear.on("edge/elsewhere"), 10)[0]
    assert heard[4] == b"mine"
    assert json.loads(heard[3])["id"] == "one"
    ear.client.publish(ping, json.dumps(body | {"id": "two"}), qos=1)
    heard = eventually(lambda: ear.on(f"edge/{DEVICE}/answer/two"), 10)[0]
    assert heard[2] is False
    assert json.loads(heard[3])["code"] == 200


def test_a_wish_that_cannot_be_taken_is_answered_with_a_code_and_an_event(site, ear):
    eventually(lambda: ear.last(f"edge/{DEVICE}/status"), 20)
    site.publish(f"edge/{DEVICE}/desired", b'{"schema":1,"revi', retain=True)
    said = eventually(
        lambda: (r := ear.last(f"edge/{DEVICE}/reported")) and r["code"] == 400 and r, 10
    )
    assert said["why"]
    event = eventually(lambda: ear.last(f"edge/{DEVICE}/events"), 10)
    assert {"schema", "type", "time", "model", "why"} <= event.keys()
    assert event["type"] == "refusal"


def test_http_answers_what_it_promises(site):
    eventually(site.state, 20)
    with httpx.Client(base_url=f"http://{site.http}", timeout=5) as web:
        assert web.get("/livez").status_code == 200
        ready = web.get("/readyz")
        assert ready.status_code == 503
        assert len(ready.text.splitlines()) == 1
        assert "edge_agent" in web.get("/metrics").text
        assert web.get("/").headers["content-type"].startswith("text/html")
        with web.stream("GET", "/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
        assert web.get("/state", headers={"host": "evil.example"}).status_code >= 400
        assert web.get("/state", headers={"origin": "http://evil.example"}).status_code >= 400


@pytest.mark.parametrize("isolation", ["process", "inline"])
def test_a_factory_model_scores_before_anything_is_desired(broker, tmp_path, isolation):
    folder = zoo.mlp(tmp_path / "factory", name="m")
    models = [{"name": "m", "stream": "s", "path": str(folder)}]
    engine = {"isolation": isolation}
    with Site(broker, tmp_path / "site", models=models, engine=engine) as site:
        site.start()
        site.readings({"ts": 1.7e9 + n, **{f"f{i}": 0.1 for i in range(8)}} for n in range(5))
        assert site.scored("m", 5).check() == 5  # what comes before it is loaded is not lost either


def test_beyond_loopback_only_the_probes_answer_without_the_token(broker, tmp_path):
    token = tmp_path / "token"
    token.write_text("a-token-of-enough-length\n")
    token.chmod(0o600)
    with Site(broker, tmp_path / "site", http={"token_file": str(token)}) as site:
        site.http = site.http.replace("127.0.0.1", "0.0.0.0")  # what is tested
        site.settings["http"]["bind"] = site.http
        site.start()
        where = f"http://127.0.0.1:{site.http.rsplit(':', 1)[1]}"
        with httpx.Client(base_url=where, timeout=5) as web:

            def up():
                try:
                    return web.get("/livez").status_code == 200
                except httpx.HTTPError:
                    return False

            eventually(up, 20)
            assert web.get("/readyz").status_code == 503
            for path in ("/state", "/metrics", "/events", "/"):
                assert web.get(path).status_code == 401, path
            bearer = {"authorization": "Bearer a-token-of-enough-length"}
            assert web.get("/metrics", headers=bearer).status_code == 200
