"""The cloud's side of control, in each dialect: what a contract over all of them needs of it."""

import json
import queue
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from agent.adapters.aws import ThingLink, ThingTopics
from agent.adapters.azure import HubLink, HubLogin, HubTopics, Identity
from agent.adapters.mqtt.link import MqttLink
from agent.app.choices import SystemClock
from agent.config import Mqtt
from agent.core.topics import Topics
from tests.world import edge_hub, iot_core
from tests.world.broker import Broker
from tests.world.site import arrived
from tests.world.waiting import eventually

DEVICE = "dev-1"


class NativeSide:
    """Our own topics on a Mosquitto that keeps what it was told."""

    bytes_max = None  # of one message

    def __init__(self, folder):
        self.topics = Topics("edge", DEVICE)
        self.broker = Broker(persistent=True)
        self.scores, self.events = [], []
        self._reported, self._answers = None, queue.Queue()
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, "cloud", protocol=mqtt.MQTTv311, clean_session=False
        )

    def __enter__(self):
        self.broker.start()
        self._client.on_message = self._on_message
        self._client.on_connect = lambda client, *_: client.subscribe(f"edge/{DEVICE}/#", 1)
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", self.broker.port)
        agreed = threading.Event()
        self._client.on_subscribe = lambda *_: agreed.set()
        self._client.loop_start()
        eventually(agreed.is_set, what="the cloud hears")
        return self

    def __exit__(self, *_):
        self._client.disconnect()
        self._client.loop_stop()
        self.broker.close()

    def link(self):
        mqtt_settings = Mqtt(url=self.broker.url, reconnect_s_max=1)
        topics = self.topics
        return MqttLink(
            mqtt_settings, client_id=DEVICE, subscriptions=[topics.desired, topics.commands]
        )

    def desire(self, document):
        raw = json.dumps(document).encode()
        arrived(self._client.publish(self.topics.desired, raw, 1, retain=True), 10)

    def reported(self):
        return self._reported

    def command(self, name, args):
        body = {"id": f"c-{name}", "expires": 4e9, "args": args}
        self._client.publish(self.topics.command(name), json.dumps(body).encode(), 1)
        return self._answers.get(timeout=20)

    def restart(self):
        self.broker.restart()
        eventually(self._client.is_connected, 20)

    def _on_message(self, _client, _userdata, message):
        last = message.topic.split("/")
        document = json.loads(message.payload)
        if last[2] == "scores":
            self.scores.append(document)
        elif last[2] == "events":
            self.events.append(document)
        elif last[2] == "answer":
            self._answers.put(document)
        elif last[2] == "reported":
            self._reported = document


class AzureSide:
    """A module of IoT Edge."""

    bytes_max = edge_hub.MESSAGE_BYTES_MAX

    def __init__(self, folder):
        self.topics = Topics("edge", DEVICE)
        self.hub = edge_hub.EdgeHub(folder)
        self.scores, self.events = [], []
        self.hub.told = self._told

    def __enter__(self):
        self.hub.__enter__()
        return self

    def __exit__(self, *exc):
        self.hub.__exit__(*exc)
        assert self.hub.broken == []

    def link(self, *, life_s=3600.0):
        identity = Identity.of_module(self.hub.environ)
        clock = SystemClock()
        login = HubLogin(identity, life_s=life_s)
        outputs = HubTopics(identity)
        settings = Mqtt(
            url=f"mqtts://{identity.gateway}:{self.hub.port}",
            username=identity.username,
            version=4,
            reconnect_s_max=1,
        )
        line = MqttLink(
            settings,
            client_id=identity.client_id,
            subscriptions=outputs.subscriptions,
            login=login,
            retains=False,
        )
        return HubLink(line, topics=self.topics, outputs=outputs, login=login, clock=clock)

    def desire(self, document):
        gone = [
            name for name in self.hub.desired.get("models", {}) if name not in document["models"]
        ]
        models = {**dict.fromkeys(gone), **document["models"]}
        self.hub.desire({**document, "models": models})

    def reported(self):
        return self.hub.reported or None

    def command(self, name, args):
        code, document = self.hub.call(name, args)
        assert document["code"] == code
        return document

    def restart(self):
        self.hub.restart()

    def _told(self, bag, document):
        assert bag["$.ct"] == "application/json"
        (self.scores if bag["$.on"] == "scores" else self.events).append(document)


class AwsSide:
    """A thing of IoT Core."""

    bytes_max = iot_core.MESSAGE_BYTES_MAX

    def __init__(self, folder):
        self.topics = Topics("edge", DEVICE)
        self.core = iot_core.IotCore(folder)
        self.scores, self.events, self._answers = [], [], queue.Queue()
        self.core.told = self._told

    def __enter__(self):
        self.core.__enter__()
        return self

    def __exit__(self, *exc):
        self.core.__exit__(*exc)
        assert self.core.broken == []

    def link(self):
        thing = ThingTopics(iot_core.THING, iot_core.SHADOW)
        own = self.core.certificates
        settings = Mqtt(
            url=f"mqtts://localhost:{self.core.port}",
            version=4,
            reconnect_s_max=1,
            ca_file=str(own.ca_file),
            cert_file=str(own.client_cert_file),
            key_file=str(own.client_key_file),
        )
        line = MqttLink(
            settings,
            client_id=iot_core.THING,
            subscriptions=[*thing.subscriptions, self.topics.commands],
            retains=False,
        )
        return ThingLink(line, topics=self.topics, thing=thing, clock=SystemClock())

    def desire(self, document):
        gone = [
            name for name in self.core.desired.get("models", {}) if name not in document["models"]
        ]
        models = {**dict.fromkeys(gone), **document["models"]}
        self.core.desire({**document, "models": models})

    def reported(self):
        return self.core.reported or None

    def command(self, name, args):
        body = {"id": f"c-{name}", "expires": 4e9, "args": args}
        self.core.say(self.topics.command(name), body)
        return self._answers.get(timeout=20)

    def restart(self):
        self.core.restart()

    def _told(self, topic, document):
        kind = topic.split("/")[2]
        if kind == "answer":
            self._answers.put(document)
        elif kind in ("scores", "events"):
            getattr(self, kind).append(document)
