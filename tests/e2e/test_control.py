"""Control on a real broker: wishes taken and refused, commands answered, brokers lost and found."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.repository import publishing
from agent.repository.signed import SignedPublisher
from tests.world import zoo
from tests.world.broker import Broker, Certificates, free_port
from tests.world.site import DEVICE, ROOT, Site
from tests.world.waiting import eventually

OWN = f"edge/{DEVICE}"


def readings(first, last):
    return [{"ts": 1_700_000_000 + n, **{f"f{i}": (n + i) % 7 for i in range(8)}}
            for n in range(first, last)]  # fmt: skip


class Operator:
    """Someone else at the broker: hears topics, sends what nobody else would."""

    def __init__(self, broker, *topics):
        self.heard = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, "operator", protocol=mqtt.MQTTv5)
        self._client.on_message = lambda _client, _userdata, message: self.heard.append(message)
        self._client.on_connect = lambda client, *_: client.subscribe([(t, 1) for t in topics])
        self._client.connect("127.0.0.1", broker.port)

    def __enter__(self):
        self._client.loop_start()
        eventually(self._client.is_connected)
        return self

    def __exit__(self, *_):
        self._client.disconnect()
        self._client.loop_stop()

    def say(self, topic, document, **more):
        body = json.dumps(document).encode()
        self._client.publish(topic, body, 1, **more).wait_for_publish(10)

    def last(self, topic):
        """The last document that came on `topic`."""
        bodies = [message.payload for message in self.heard if message.topic == topic]
        return json.loads(bodies[-1]) if bodies else None


@pytest.fixture
def site(broker, tmp_path):
    with Site(broker, tmp_path) as site:
        yield site.start()


def listening(site):
    """Wait for its first report, which comes once it has subscribed."""
    before = len(site.reports)
    eventually(lambda: len(site.reports) > before, 20, "it reports")


# ---- the connection ------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
def test_both_protocols_tell_who_is_there_and_who_has_gone(broker, tmp_path, version):
    """[control-2.2] [control-2.3]"""
    topics = (f"{OWN}/status", f"{OWN}/reported")
    with (
        Site(broker, tmp_path, mqtt={"version": version}) as site,
        Operator(broker, *topics) as operator,
    ):

        def online():
            return (operator.last(topics[0]) or {}).get("online")

        site.start()
        first = site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
        eventually(lambda: online() is True)
        assert operator.last(topics[0])["since"]
        site.readings(readings(0, 50))
        assert site.scored("m", 50).check() == 50
        assert site.command("ping", {})["code"] == 200
        eventually(lambda: site.reported["models"]["m"]["counts"]["scored"] == 50, 10)
        assert site.reported["models"]["m"]["active"]["release"] == first
        assert site.stop() == 0
        eventually(lambda: online() is False, 5, "it says goodbye")
        site.start()
        eventually(lambda: online() is True, 20, "it is back")
        site.kill()
        eventually(lambda: online() is False, 5, "the broker speaks its will")
        site.start().ready()
        site.readings(readings(50, 100))
        assert site.scored("m", 100).check() == 100


def test_commands_are_answered_where_they_ask_and_never_when_retained(broker, tmp_path):
    """[control-3.2]"""
    where = "office/answers"
    with Site(broker, tmp_path) as site, Operator(broker, where, f"{OWN}/answer/+") as operator:

        def order(ident, name="ping", *, retain=False, expires=60.0, properties=None):
            body = {"id": ident, "expires": time.time() + expires, "args": {}}
            operator.say(f"{OWN}/command/{name}", body, retain=retain, properties=properties)

        order("stale", retain=True)
        site.start()
        listening(site)
        asked = Properties(PacketTypes.PUBLISH)
        asked.ResponseTopic, asked.CorrelationData = where, b"\x00\x01"
        order("c1", properties=asked)
        answer = eventually(lambda: [m for m in operator.heard if m.topic == where], 10)[0]
        assert json.loads(answer.payload)["id"] == "c1"
        assert answer.properties.CorrelationData == b"\x00\x01"

        order("c2")
        assert eventually(lambda: operator.last(f"{OWN}/answer/c2"), 10)["code"] == 200
        order("c3", expires=-5.0)
        assert eventually(lambda: operator.last(f"{OWN}/answer/c3"), 10)["code"] == 410
        order("c4", name="dance")
        assert eventually(lambda: operator.last(f"{OWN}/answer/c4"), 10)["code"] == 404
        order("c2")  # comes twice, is done once
        order("live", retain=True)
        order("c5")
        assert eventually(lambda: operator.last(f"{OWN}/answer/c5"), 10)["code"] == 200
        assert site.log().count("retained command ignored") >= 2
        assert operator.last(f"{OWN}/answer/stale") is operator.last(f"{OWN}/answer/live") is None
        assert [m.topic for m in operator.heard].count(f"{OWN}/answer/c2") == 1


# ---- wishes --------------------------------------------------------------------------------------


def test_a_wish_that_cannot_be_taken_is_refused_in_a_sentence_and_changes_nothing(site, tmp_path):
    """[control-1.1] [control-1.2]"""
    good = site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
    other = site.add(zoo.mlp(tmp_path / "v2", bias=1.0, name="m"))
    whole = {"schema": 1, "revision": 50, "models": {"m": {"release": other}}}
    bad = {
        "truncated": (json.dumps(whole).encode()[:-20], 400),
        "not an object": (b"[1, 2]", 400),
        "twice": (b'{"revision": 50, "revision": 51, "models": {}}', 400),
        "no revision": (b'{"models": {}}', 400),
        "no number": (json.dumps(whole | {"revision": "51"}).encode(), 400),
        "a bar": (
            json.dumps(
                whole | {"models": {"m": {"release": other, "rollout": {"canary": {"share": 7}}}}}
            ).encode(),
            400,
        ),
        "newer schema": (json.dumps(whole | {"schema": 2}).encode(), 400),
        "going down": (json.dumps(whole | {"revision": 0}).encode(), 409),
        "too large": (json.dumps(whole | {"x": "y" * 300_000}).encode(), 413),
    }
    seen = set()
    for what, (raw, code) in bad.items():
        site.publish(f"{OWN}/desired", raw, retain=True)
        told = eventually(
            lambda: site.reported["why"] not in seen and site.reported["why"] and site.reported,
            10,
            what,
        )
        seen.add(told["why"])
        assert told["code"] == code, (what, told["why"])
        assert re.match(r"\w.{15,300}$", told["why"]), what
        assert told["revision"] == 1, what
        assert told["models"]["m"]["active"]["release"] == good, what
        assert told["models"]["m"]["phase"] == "steady", what
    refused = lambda: [event["type"] for event in site.events].count("refusal")  # noqa: E731
    eventually(lambda: refused() == len(bad), 10, "an event each")
    site.readings(readings(0, 50))
    books = site.scored("m", 50)
    assert {row[3] for row in books.rows.values()} == {good}

    site.desire("m", 99)
    told = eventually(lambda: site.reported["code"] == 404 and site.reported, 10)
    assert "99" in told["why"]
    assert told["models"]["m"]["active"]["release"] == good

    site.desire("m", other)
    site.committed("m", other)
    eventually(lambda: (site.reported["code"], site.reported["why"]) == (200, ""), 10)


@pytest.mark.parametrize("anchor", ["another repository's", "none"])
def test_nothing_is_installed_that_the_devices_own_root_does_not_vouch_for(
    broker, tmp_path, monkeypatch, anchor
):
    """[control-1.4]"""
    strange = publishing.init(tmp_path / "strange", SignedPublisher())
    root = "" if anchor == "none" else str(strange.folder / "root.json")
    monkeypatch.setenv("EDGE_AGENT__REPOSITORY__ROOT_FILE", root)
    with Site(broker, tmp_path) as site:
        site.start()
        site.desire("m", site.add(zoo.mlp(tmp_path / "v1", name="m")))
        told = eventually(
            lambda: site.reported and site.reported["code"] >= 400 and site.reported, 20
        )
        assert ("root_file" if anchor == "none" else "sign") in told["why"], told["why"]
        assert not (told["models"].get("m") or {}).get("active")
        kinds = ("refusal", "trust")
        refusals = lambda: [e["why"] for e in site.events if e["type"] in kinds]  # noqa: E731
        eventually(lambda: refusals() == [told["why"]], 10, f"one event: {told['why']}")


def test_a_groups_wish_is_overlaid_by_the_devices_own_and_what_nobody_wants_retires(site, tmp_path):
    """[control-1.3]"""
    one, two = (site.add(zoo.mlp(tmp_path / f"m{n}", bias=n, name="m")) for n in (1, 2))
    shared = site.add(zoo.mlp(tmp_path / "g", name="g"))

    def group(revision, **models):
        body = {"schema": 1, "revision": revision, "models": models}
        site.publish("edge/group/line/desired", json.dumps(body).encode(), retain=True)

    group(7, g={"release": shared}, m={"release": one})
    site.committed("g", shared)
    site.committed("m", one)
    site.desire("m", two)
    site.committed("m", two)
    assert site.model("g")["active"]["release"] == shared
    site.readings(readings(0, 30))
    site.scored("m", 30)
    site.scored("g", 30)

    group(8)
    eventually(lambda: not site.model("g").get("active"), 20, "g is retired")
    assert site.model("m")["active"]["release"] == two
    site.readings(readings(30, 60))
    assert site.scored("m", 60).check() == 60
    assert len(site.book("g").rows) == 30


def test_rollback_goes_back_and_retry_lets_a_version_try_again(site, tmp_path):
    one = site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
    two = site.deploy(zoo.mlp(tmp_path / "v2", bias=1.0, name="m"))
    assert site.command("rollback", {"model": "x"})["code"] == 404
    answer = site.command("rollback", {"model": "m"})
    assert (answer["code"], answer["from"], answer["to"]) == (200, two, one)
    eventually(lambda: site.model("m")["active"]["release"] == one, 20)
    model = site.settled("m")
    assert "command" in model["why"]
    assert model["quarantined"]
    site.desire("m", two)
    site.readings(readings(0, 30))
    assert {row[3] for row in site.scored("m", 30).rows.values()} == {one}
    assert site.command("retry", {"model": "m"})["code"] == 200
    site.committed("m", two)
    assert not site.model("m")["quarantined"]


HANGUP = getattr(signal, "SIGHUP", None)


@pytest.mark.skipif(
    HANGUP is None or signal.getsignal(HANGUP) is signal.SIG_IGN, reason="nobody is told of it here"
)
def test_when_its_terminal_goes_it_stops_in_order(broker, tmp_path):
    with Site(broker, tmp_path) as site:
        site.start()
        listening(site)
        site.process.send_signal(HANGUP)
        assert site.process.wait(20) == 0


# ---- where packages come from --------------------------------------------------------------------


@contextlib.contextmanager
def served(site, *options):
    """`edge-agent repo serve` as a process, once it says that it serves."""
    command = [sys.executable, "-m", "agent", "repo", "serve", "--repo", site.folder / "repo"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([*command, *options], env=env, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline().startswith(b"serving")
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0


def test_a_package_of_several_files_comes_in_chunks_over_mqtt(broker, tmp_path):
    with Site(broker, tmp_path, repository="mqtt") as site, served(site, "--mqtt", broker.url):
        site.start()
        site.deploy(zoo.external(tmp_path / "v1", name="m"))
        site.deploy(zoo.big(tmp_path / "big", size_mb=4, name="big"), name="big")
        site.readings(readings(0, 20))
        assert site.scored("m", 20).check() == 20


def test_a_package_comes_over_https(broker, tmp_path, monkeypatch):
    certificates, port = Certificates(tmp_path), free_port()
    monkeypatch.setenv("EDGE_AGENT__REPOSITORY__CA_FILE", str(certificates.ca_file))
    tls = ["--cert", certificates.cert_file, "--key", certificates.key_file]
    url = f"https://127.0.0.1:{port}/"
    with (
        Site(broker, tmp_path, repository=url) as site,
        served(site, "--http", f"127.0.0.1:{port}", *tls),
    ):
        site.start()
        site.deploy(zoo.external(tmp_path / "v1", name="m"))
        site.readings(readings(0, 20))
        assert site.scored("m", 20).check() == 20


# ---- brokers and agents that come and go ---------------------------------------------------------


def test_without_a_broker_it_scores_and_tells_when_one_comes(tmp_path):
    """[control-4.1] [control-4.2]"""
    log = tmp_path / "log.ndjson"
    stream = {"name": "s", "source": "file", "path": str(log), "format": "ndjson", "time": "ts"}

    def write(first, last):
        with log.open("a") as lines:
            lines.writelines(json.dumps(one) + "\n" for one in readings(first, last))

    def counted(rows):
        return eventually(lambda: site.model("m").get("counts", {}).get("scored") == rows, 20)

    with Broker() as broker, Site(broker, tmp_path, streams=[stream]) as site:
        site._client.reconnect_delay_set(1, 1)
        site.start()
        release = site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
        write(0, 100)
        site.scored("m", 100)
        broker.stop()
        write(100, 200)
        counted(200)
        site.stop()
        write(200, 300)
        site.start()
        counted(300)
        state = site.state()
        assert state["models"]["m"]["active"]["release"] == release
        assert state["outbox"]["records"] > 0
        os.kill(site.process.pid, signal.SIGSTOP)  # until the consumer listens again
        heard = site.agreed
        broker.start()
        eventually(lambda: site.agreed > heard, 20)
        os.kill(site.process.pid, signal.SIGCONT)
        books = site.scored("m", 300, 40)
        assert books.check() == 300
        assert [row[1] for _, row in sorted(books.rows.items())] == [
            1_700_000_000.0 + n for n in range(300)
        ]
        heard = site.agreed
        broker.restart()
        eventually(lambda: site.agreed > heard, 20)
        second = site.add(zoo.mlp(tmp_path / "v2", bias=1.0, name="m"))
        site.desire("m", second)
        site.committed("m", second)
