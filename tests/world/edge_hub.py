"""IoT Edge's hub and the cloud behind it: a gate with its laws before a real Mosquitto.

Laws kept: MQTT 3.1.1 over TLS; client id, user name and signature of the one identity; one
connection; its topics and no others; QoS 0 and 1; no retain; 256 KB a message; a connection ends
with its token; twins of 32 KB with fit keys and values.  What breaks a law is thrown out, and
written down in `broken`.  Messages at inputs wait for a module that is away, changes of the twin do
not, and no message says that it comes again.
"""

import base64
import hashlib
import hmac
import json
import ssl
import threading
import time
import unicodedata
from urllib.parse import parse_qs, quote, unquote

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from tests.world.broker import Broker, Certificates, free_port
from tests.world.gate import BrokenRule, Gate, RefusedConnection, Rules, packet
from tests.world.site import arrived
from tests.world.waiting import eventually
from tests.world.workload import Workload

HUB = "plant.azure-devices.net"
DEVICE, MODULE = "dev-1", "scorer"
MESSAGE_BYTES_MAX = 262_144
TWIN_BYTES_MAX = 32 * 1024
SUBSCRIPTIONS_MAX = 5


class HubLaws(Rules):
    def __init__(self, hub):
        self.hub = hub

    def entered(self, visitor):
        hub, said = self.hub, visitor.entrance
        user = said.username.split("/?")
        if said.level != 4:
            raise RefusedConnection(1, "MQTT 3.1.1 only")
        if said.client_id != f"{DEVICE}/{MODULE}" or user[0] != f"{HUB}/{DEVICE}/{MODULE}":
            raise RefusedConnection(2, "not that identity")
        if "api-version" not in parse_qs(user[1] if len(user) > 1 else ""):
            raise RefusedConnection(4, "no api-version")
        if not said.tls:
            raise RefusedConnection(5, "no TLS")
        if said.will and said.will[3]:
            self._broken("a retained will")
        left_s = hub.token_left_s(said.password)
        if left_s is None or left_s <= 0:
            hub.refused += 1
            raise RefusedConnection(5, "the signature is bad or over")
        hub.passwords.append(said.password)
        return left_s

    def published(self, visitor, topic, payload, qos, retain):
        if qos > 1:
            self._broken(f"QoS {qos}")
        if retain:
            self._broken(f"retain on {topic}")
        if len(payload) + len(topic.encode()) > MESSAGE_BYTES_MAX:
            self._broken(f"{len(payload)} bytes on {topic}")
        whole = f"devices/{DEVICE}/modules/{MODULE}/messages/events/"
        known = (
            "$iothub/twin/GET/?$rid=",
            "$iothub/twin/PATCH/properties/reported/?$rid=",
            "$iothub/methods/res/",
            whole,
        )
        if not topic.startswith(known):
            self._broken(f"published on {topic}")
        return True

    def allows(self, visitor, topic_filter, qos):
        if len(visitor.filters) >= SUBSCRIPTIONS_MAX:
            return False
        return topic_filter in (
            "$iothub/twin/res/#",
            "$iothub/twin/PATCH/properties/desired/#",
            "$iothub/methods/POST/#",
            f"devices/{DEVICE}/modules/{MODULE}/inputs/#",
            f"devices/{DEVICE}/modules/{MODULE}/#",
        )

    def down(self, visitor, head, body):
        return [packet(head & ~0x08, body)]  # edgeHub does not say that it sends again

    def acked(self, visitor, mid):
        return not self.hub.loses_acks

    def _broken(self, why):
        self.hub.broken.append(why)
        raise BrokenRule(why)


class EdgeHub:
    """A context manager.  The module's environment is `environ`; the cloud's side is the rest."""

    def __init__(self, folder):
        self.certificates = Certificates(folder)
        self.broken, self.passwords, self.refused = [], [], 0
        self.desired, self.desired_version = {}, 0
        self.reported, self.reported_version = {}, 0
        self.patches = []
        self.loses_acks = False  # of what was at an input
        self.throttled = 0  # answers about the twin that will be 429
        self.telemetry = []  # (properties, document) of what came upstream
        self.told = lambda properties, document: None
        self.port = free_port()
        self.broker = Broker(persistent=True)
        self.workload = Workload(
            MODULE, bundle=self.certificates.ca.cert_pem.bytes().decode(), generation="gen/1"
        )
        self.workload.generation = quote("gen/1", safe="")
        self._answers, self._lock = {}, threading.Lock()
        self._count = 0
        self._gate = None
        self._client = None

    @property
    def environ(self):
        return {
            "IOTEDGE_WORKLOADURI": self.workload.uri,
            "IOTEDGE_DEVICEID": DEVICE,
            "IOTEDGE_MODULEID": MODULE,
            "IOTEDGE_IOTHUBHOSTNAME": HUB,
            "IOTEDGE_GATEWAYHOSTNAME": "127.0.0.1",
            "IOTEDGE_MODULEGENERATIONID": "gen/1",
            "IOTEDGE_APIVERSION": "2022-08-03",
            "IOTEDGE_AUTHSCHEME": "sasToken",
            "EDGE_AGENT__AZURE__PORT": str(self.port),
        }

    @property
    def connections(self):
        return self._gate.entered

    @property
    def overstayed(self):
        """Connections that ended with their token."""
        return self._gate.overstayed

    @property
    def is_connected(self):
        return any("$iothub/methods/POST/#" in v.heard for v in list(self._gate.visitors))

    def __enter__(self):
        self.broker.start()
        self.workload.__enter__()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificates.cert_file, self.certificates.key_file)
        self._gate = Gate(self.port, self.broker.port, HubLaws(self), context)
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, "cloud", protocol=mqtt.MQTTv311, clean_session=False
        )
        self._client.on_message = self._on_message
        self._client.on_connect = self._on_connect
        self._client.max_inflight_messages_set(1000)
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", self.broker.port)
        agreed = threading.Event()
        self._client.on_subscribe = lambda *_: agreed.set()
        self._client.loop_start()
        eventually(agreed.is_set, what="the cloud hears")
        self._gate.open()
        return self

    def __exit__(self, *_):
        self._gate.close()
        self._client.disconnect()
        self._client.loop_stop()
        self.workload.__exit__()
        self.broker.close()

    # ---- its life ----

    def down(self):
        """The hub is gone; what it had stored stays."""
        self._gate.shut()

    def up(self):
        self._gate.open()

    def restart(self):
        """A new container of the hub on its old store."""
        self.down()
        self.broker.restart()
        eventually(self._client.is_connected, 20, "the cloud is back at the broker")
        self.up()

    def drop(self):
        """End the module's connection, without a word."""
        self._gate.throw_out(f"{DEVICE}/{MODULE}")

    def token_left_s(self, token):
        """Seconds that a token is still good for; None if its signature is not."""
        parts = parse_qs(token.removeprefix("SharedAccessSignature "), strict_parsing=False)
        try:
            scope, expires = parts["sr"][0], int(parts["se"][0])
        except (KeyError, ValueError):
            return None
        encoded = quote(f"{HUB}/devices/{DEVICE}/modules/{MODULE}", safe="")
        text = f"{encoded}\n{expires}".encode()
        good = base64.b64encode(hmac.new(self.workload.key, text, hashlib.sha256).digest()).decode()
        if scope != unquote(encoded) or not hmac.compare_digest(parts["sig"][0], good):
            return None
        return expires - time.time()

    # ---- the cloud ----

    def desire(self, patch, *, lost=False):
        """Merge `patch` into the desired properties; `lost`: nobody tells the module."""
        self.desired = _merged(self.desired, patch)
        self.desired_version += 1
        if self.is_connected and not lost:
            topic = f"$iothub/twin/PATCH/properties/desired/?$version={self.desired_version}"
            self._publish(topic, {**patch, "$version": self.desired_version})

    def call(self, method, payload=None, seconds=30, rid=None):
        """Call a direct method; (status, payload)."""
        assert eventually(lambda: self.is_connected, seconds, "the module is connected")
        self._count += 1
        rid = rid or f"r{self._count}"
        self._answers.pop(rid, None)
        self._publish(f"$iothub/methods/POST/{method}/?$rid={rid}", payload)
        return eventually(lambda: self._answers.get(rid), seconds, f"an answer to {method}")

    def send(self, name, payloads, *, sender="sensor", wait=True):
        """Messages for an input of the module, in order; stored while it is away."""
        bag = f"%24.cdid={DEVICE}&%24.cmid={sender}"
        topic = f"devices/{DEVICE}/modules/{MODULE}/inputs/{name}/{bag}"
        told = [self._client.publish(topic, payload, 1) for payload in payloads]
        for one in told if wait else ():
            arrived(one, 30)

    def _publish(self, topic, document):
        raw = b"" if document is None else json.dumps(document).encode()
        self._client.publish(topic, raw, 1)

    def _on_connect(self, client, *_):
        topics = (
            "$iothub/twin/GET/#",
            "$iothub/twin/PATCH/properties/reported/#",
            "$iothub/methods/res/#",
            f"devices/{DEVICE}/modules/{MODULE}/messages/events/#",
        )
        client.subscribe([(topic, 1) for topic in topics])

    def _on_message(self, _client, _userdata, message):
        topic = message.topic
        if "/messages/events/" in topic:
            pairs = topic.partition("/messages/events/")[2].split("&")
            bag = {unquote(k): unquote(v) for k, _, v in (p.partition("=") for p in pairs)}
            document = json.loads(message.payload)
            self.telemetry.append((bag, document))
            self.told(bag, document)
        elif topic.startswith("$iothub/methods/res/"):
            status, _, rid = topic.removeprefix("$iothub/methods/res/").partition("/?$rid=")
            self._answers[rid] = (int(status), json.loads(message.payload))
        else:
            rid = topic.partition("?$rid=")[2]
            code, version, body = self._twin(topic, message.payload)
            more = f"&$version={version}" if version else ""
            self._publish(f"$iothub/twin/res/{code}/?$rid={rid}{more}", body)

    def _twin(self, topic, payload):
        if self.throttled:
            self.throttled -= 1
            return 429, 0, None
        if topic.startswith("$iothub/twin/GET/"):
            whole = {
                "desired": {**self.desired, "$version": self.desired_version},
                "reported": {**self.reported, "$version": self.reported_version},
            }
            return 200, 0, whole
        patch = json.loads(payload)
        merged = _merged(self.reported, patch)
        if why := _unfit(patch) or (len(json.dumps(merged)) > TWIN_BYTES_MAX and "too large"):
            self.broken.append(f"reported: {why}")
            return 400, 0, {"message": why}
        self.patches.append(patch)
        self.reported, self.reported_version = merged, self.reported_version + 1
        return 204, self.reported_version, None


def _merged(document, patch):
    merged = dict(document)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            before = merged.get(key)
            merged[key] = _merged(before if isinstance(before, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def _unfit(value, depth=0):
    """Why a twin does not take `value`; None if it does."""
    if depth > 10:
        return "too deep"
    if isinstance(value, dict):
        for key, inner in value.items():
            bad = any(c in ".$ " or unicodedata.category(c) == "Cc" for c in key)
            if bad or len(key.encode()) > 1024:
                return f"the key {key!r}"
            if why := _unfit(inner, depth + 1):
                return why
    elif isinstance(value, list):
        return next(filter(None, (_unfit(inner, depth + 1) for inner in value)), None)
    elif isinstance(value, str):
        return "a long text" if len(value.encode()) > 4096 else None
    elif isinstance(value, int) and not isinstance(value, bool):
        return "an integer" if abs(value) > 4503599627370495 else None
    return None
