"""The main job as a module of IoT Edge, and a day of its life."""

import base64
import json
import threading

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.e2e.test_control import served
from tests.world import zoo
from tests.world.edge_hub import DEVICE, HUB, MODULE
from tests.world.edge_site import INPUT, EdgeSite
from tests.world.main_job import reading, swapped_in, taken_back
from tests.world.waiting import eventually

SLOW = {"probation": {"windows": 300, "time": "1s"}}  # three seconds of readings


@pytest.fixture
def site(tmp_path):
    with EdgeSite(tmp_path) as site:
        yield site.start()
    assert site.hub.broken == []


def test_a_version_arrives_is_swapped_in_and_reports_back(site, tmp_path):
    swapped_in(site, tmp_path)
    assert site.book("m").rows[0][0] == "p1"  # the sending module is the key
    assert site.command("ping", {})["code"] == 200
    assert site.command("rollback", {"model": "nobody"})["code"] == 404


def test_a_bad_version_is_taken_back_and_never_tried_again(site, tmp_path):
    taken_back(site, tmp_path)


class Sensors:
    """Two streams that never stop: one at the module's input, one at the plant's own broker."""

    def __init__(self, site, pause_s=0.01):
        self.sent, self._site, self._pause_s = 0, site, pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(60)

    def _run(self):
        while not self._stop.wait(self._pause_s):
            raw = json.dumps(reading(self.sent)).encode()
            self._site.hub.send(INPUT, [raw], sender="p1", wait=False)
            self._site.plant.publish("plant/p1", raw, 1)
            self.sent += 1

    def more(self, number, seconds=30):
        """Wait until `number` more were sent."""
        until = self.sent + number
        eventually(lambda: self.sent >= until, seconds)


@pytest.fixture
def two_streams(tmp_path, broker):
    streams = [
        {"name": "s", "source": "input", "topic": INPUT, "key": "{2}", "time": "ts"},
        {"name": "t", "topic": "plant/+", "key": "{1}", "time": "ts"},
    ]
    settings = {"mqtt": {"url": broker.url, "reconnect_s_max": 1.0}, "azure": {"token": "4s"}}
    with EdgeSite(tmp_path, streams=streams, **settings) as site:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, "plant", protocol=mqtt.MQTTv311)
        client.max_inflight_messages_set(1000)
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        site.plant = client
        yield site.start()
        client.disconnect()
        client.loop_stop()


@pytest.mark.soak
def test_a_day_in_the_life(two_streams, tmp_path):
    """[azure-1.2] [azure-1.3] [azure-2.4] [azure-5.1]"""
    site, hub = two_streams, two_streams.hub
    packages = [site.add(zoo.mlp(tmp_path / f"v{n}", bias=n, name="m")) for n in range(5)]
    other = site.add(zoo.mlp(tmp_path / "n", name="n"))
    for name, release, stream in (("m", packages[0], "s"), ("n", other, "t")):
        site.desire(name, release, stream=stream)
        site.committed(name, release, 30)

    with Sensors(site) as sensors:
        # morning: tokens come and go
        eventually(lambda: len(set(hub.passwords)) >= 3, 20, "two renewals")
        assert hub.refused == 0
        # the hub is restarted, and connections break
        hub.restart()
        sensors.more(100)
        hub.drop()
        sensors.more(100)
        hub.restart()
        eventually(lambda: hub.is_connected, 20)
        # the twin jumps: one change is lost, the next shows it
        hub.desire({"revision": 10, "models": {"m": {"release": packages[1]}}}, lost=True)
        hub.desire({"something": "else"})
        site.committed("m", packages[1], 30)
        # a deployment is changed while it rolls out
        hub.desire({"revision": 11, "models": {"m": {"release": packages[2], "rollout": SLOW}}})
        eventually(lambda: site.model("m").get("phase") == "probation", 20)
        hub.desire(
            {
                "revision": 12,
                "models": {"m": {"release": packages[3], "rollout": {"probation": None}}},
            }
        )
        site.committed("m", packages[3], 30)
        # nobody signs for a while: the token ends, and the link with it
        hub.workload.failing = True
        eventually(lambda: not hub.is_connected, 20, "the token is over")
        sensors.more(50)
        hub.workload.failing = False
        eventually(lambda: hub.is_connected, 20, "and is renewed")
        # away for a day, and killed on the way; what is desired meanwhile is found at the end
        hub.down()
        sensors.more(200)
        site.kill()
        sensors.more(50)
        site.start()
        sensors.more(100)
        hub.desire({"revision": 13, "models": {"m": {"release": packages[4]}}})
        hub.up()
        site.committed("m", packages[4], 60)
        sensors.more(100)

    for name in ("m", "n"):
        assert site.scored(name, sensors.sent, 60).check() == sensors.sent
        eventually(lambda name=name: site.model(name)["counts"]["in"] == sensors.sent, 10)
        counts = site.model(name)["counts"]
        assert counts["scored"] == sensors.sent
        assert counts["pending"] == counts["expired"] == 0
    eventually(lambda: hub.reported["models"]["m"]["active"]["release"] == packages[4], 10)
    assert hub.broken == []
    assert hub.refused == 0
    print(f"{sensors.sent} readings a stream, {hub.connections} connections,")
    print(f"{len(set(hub.passwords))} tokens, {site.book('m').repeated} rows told twice")


def test_a_developers_module_fetches_its_packages_over_the_plants_broker(tmp_path, broker):
    with (
        EdgeSite(tmp_path, repository="mqtt", mqtt={"url": broker.url}) as site,
        served(site, "--mqtt", broker.url),
    ):
        key = base64.b64encode(site.hub.workload.key).decode()
        whole = f"HostName={HUB};DeviceId={DEVICE};ModuleId={MODULE};SharedAccessKey={key}"
        site.environ = {
            "EdgeHubConnectionString": f"{whole};GatewayHostName=127.0.0.1",
            "EdgeModuleCACertificateFile": str(site.hub.certificates.ca_file),
            "EDGE_AGENT__AZURE__PORT": str(site.hub.port),
        }
        site.start()
        site.deploy(zoo.external(tmp_path / "v1", name="m"))
        site.readings(reading(n) for n in range(20))
        assert site.scored("m", 20).check() == 20
        assert key not in site.log()
        assert site.hub.broken == []
