"""AWS IoT Core: a gate with its laws before a real Mosquitto, and shadows, jobs and streams behind.

Laws kept: mutual TLS with SNI; client id is the thing; its topics and no others; QoS 0 and 1 (QoS 2
is never answered); 128 KB a message; eight filters at a time; shadows of 8 KB, versioned, with 409;
jobs with versions and states that only go on; streams in blocks by bitmap.  Messages come twice now
and then, without DUP.  What breaks a law is written down in `broken`.
"""

import base64
import json
import re
import ssl
import struct
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from agent.core.mirrors import merge
from tests.world.broker import Broker, Certificates, free_port
from tests.world.gate import BrokenRule, Gate, RefusedConnection, Rules, packet
from tests.world.hostile import PUBLISH
from tests.world.waiting import eventually

THING, SHADOW = "dev-1", "edge-model-agent"
MESSAGE_BYTES_MAX = 128 * 1024
SHADOW_BYTES_MAX = 8 * 1024
FILTERS_MAX = 8
TWICE_EACH = 5  # every so many messages comes twice
ENDED = ("SUCCEEDED", "FAILED", "TIMED_OUT", "REJECTED", "REMOVED", "CANCELED")
DETAIL_KEY = re.compile(r"^[a-zA-Z0-9:_-]{1,128}$")


class CoreLaws(Rules):
    def __init__(self, core):
        self.core, self.count = core, 0

    def entered(self, visitor):
        said = visitor.entrance
        if not said.peer:
            raise RefusedConnection(5, "no client certificate")
        if said.client_id != THING:
            raise RefusedConnection(5, "not its thing")
        if "localhost" not in self.core.names:
            self._broken("no SNI")

    def published(self, visitor, topic, payload, qos, retain):
        if qos > 1:
            return False
        if retain:
            self._broken(f"retain on {topic}")
        if len(payload) > MESSAGE_BYTES_MAX:
            self._broken(f"{len(payload)} bytes on {topic}")
        own = topic.startswith((f"$aws/things/{THING}/", f"edge/{THING}/"))
        if not own or (not topic.startswith("$aws") and topic.count("/") > 7):
            self._broken(f"published on {topic}")
        return True

    def allows(self, visitor, topic_filter, qos):
        visitor.asked = getattr(visitor, "asked", 0) + 1
        if visitor.asked > FILTERS_MAX:
            self.core.broken.append("more than eight filters")
        return topic_filter.startswith((f"$aws/things/{THING}/", f"edge/{THING}/command/"))

    def down(self, visitor, head, body):
        self.count += 1
        head &= ~0x08
        packets = [packet(head, body)]
        if self.count % TWICE_EACH == 0 and head & 0x06:
            at = 2 + struct.unpack_from("!H", body)[0]
            mid = struct.unpack_from("!H", body, at)[0] | 0x8000
            again = body[:at] + struct.pack("!H", mid) + body[at + 2 :]
            packets.append(packet(PUBLISH | (head & 0x0F), again))
        return packets

    def acked(self, visitor, mid):
        return not mid[0] & 0x80  # of what was sent twice, Mosquitto knows one

    def _broken(self, why):
        self.core.broken.append(why)
        raise BrokenRule(why)


class IotCore:
    """A context manager."""

    def __init__(self, folder):
        self.certificates = Certificates(folder, host="localhost")
        self.broken, self.names = [], set()
        self.shadow = None  # state, once there is one
        self.version = 0
        self.jobs = {}  # id -> execution, in order
        self.updates = []  # what the thing said of jobs
        self.streams = {}  # id -> files
        self.mute = False  # deltas are lost
        self.throttled = 0  # updates of the shadow that are answered with 429
        self.told = lambda topic, document: None
        self.port = free_port()
        self.broker = Broker(persistent=True)
        self._gate = self._client = None

    @property
    def settings(self):
        """The `[aws]` section."""
        return {
            "endpoint": "localhost",
            "port": self.port,
            "thing": THING,
            "ca_file": str(self.certificates.ca_file),
            "cert_file": str(self.certificates.client_cert_file),
            "key_file": str(self.certificates.client_key_file),
        }

    def __enter__(self):
        self.broker.start()
        own = self.certificates
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own.cert_file, own.key_file)
        context.load_verify_locations(own.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
        context.sni_callback = lambda _socket, name, _context: self.names.add(name)
        self._gate = Gate(self.port, self.broker.port, CoreLaws(self), context)
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, "cloud", protocol=mqtt.MQTTv311, clean_session=False
        )
        self._client.on_message = self._on_message
        self._client.on_connect = lambda client, *_: client.subscribe(
            [(f"$aws/things/{THING}/#", 1), (f"edge/{THING}/#", 1)]
        )
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
        self.broker.close()

    def down(self):
        self._gate.shut()

    def up(self):
        self._gate.open()

    def restart(self):
        self.down()
        self.broker.restart()
        eventually(self._client.is_connected, 20)
        self.up()

    # ---- what the cloud's users do ----

    @property
    def desired(self):
        return (self.shadow or {}).get("desired", {})

    @property
    def reported(self):
        return (self.shadow or {}).get("reported", {}).get("report")

    def desire(self, patch):
        self._update({"state": {"desired": patch}, "clientToken": "operator"})

    def create_job(self, name, document):
        assert len(json.dumps(document)) <= 32_768
        now = int(time.time())
        self.jobs[name] = {
            "jobId": name,
            "status": "QUEUED",
            "queuedAt": now,
            "lastUpdatedAt": now,
            "versionNumber": 1,
            "executionNumber": 1,
            "jobDocument": document,
        }
        self._notify_next()

    def cancel(self, name):
        self.jobs[name]["status"] = "CANCELED"
        self.jobs[name]["versionNumber"] += 1
        self._notify_next()

    def status(self, name):
        return self.jobs[name]["status"]

    def say(self, topic, document):
        self._publish(topic, document)

    # ---- what it answers ----

    def _on_message(self, _client, _userdata, message):
        topic = message.topic
        if topic.startswith("edge/"):
            if "/command/" not in topic:
                self.told(topic, json.loads(message.payload))
            return
        parts = topic.removeprefix(f"$aws/things/{THING}/").split("/")
        document = json.loads(message.payload) if message.payload else {}
        if parts[0] == "shadow" and parts[1:3] == ["name", SHADOW] and len(parts) == 4:
            self._shadow(parts[3], document)
        elif parts[0] == "jobs" and len(parts) == 3 and parts[2] in ("get", "update"):
            self._job(topic, parts[1], parts[2], document)
        elif parts[0] == "streams" and parts[2] in ("describe", "get"):
            self._stream(parts[1], parts[2], document)

    def _shadow(self, kind, document):
        if kind == "get":
            if self.shadow is None:
                self._reject(f"{self._here}/get", document, 404, "No shadow exists")
            else:
                self._accept(f"{self._here}/get", document, state=self.shadow, version=self.version)
        elif kind == "update":
            self._update(document)

    @property
    def _here(self):
        return f"$aws/things/{THING}/shadow/name/{SHADOW}"

    def _update(self, document):
        topic = f"{self._here}/update"
        state = document.get("state") or {}
        whole = merge(self.shadow or {}, state)
        if self.throttled and document.get("clientToken") != "operator":
            self.throttled -= 1
            self._reject(topic, document, 429, "Too many requests")
        elif document.get("version", self.version) != self.version:
            self._reject(topic, document, 409, "Version conflict")
        elif len(json.dumps(whole)) > SHADOW_BYTES_MAX:
            self.broken.append("a shadow of more than 8 KB")
            self._reject(topic, document, 413, "Payload too large")
        elif _depth(state) > 8:
            self.broken.append("a shadow that is too deep")
            self._reject(topic, document, 400, "JSON contains too many levels of nesting")
        else:
            self.shadow, self.version = whole, self.version + 1
            self._accept(topic, document, state=state, version=self.version)
            delta = _delta(whole.get("desired", {}), whole.get("reported", {}))
            if delta and not self.mute:
                told = {"state": delta, "version": self.version, "timestamp": int(time.time())}
                self._publish(f"{topic}/delta", told)

    def _next(self):
        open_ = [job for job in self.jobs.values() if job["status"] not in ENDED]
        going = [job for job in open_ if job["status"] == "IN_PROGRESS"]
        return (going or open_ or [None])[0]

    def _notify_next(self):
        job = self._next()
        told = {"timestamp": int(time.time()), **({"execution": job} if job else {})}
        self._publish(f"$aws/things/{THING}/jobs/notify-next", told)

    def _job(self, topic, name, kind, document):
        if kind == "get":
            job = self._next() if name == "$next" else self.jobs.get(name)
            more = {"execution": job} if job else {}
            self._accept(topic, document, **more)
            return
        job = self.jobs.get(name)
        state = {k: job[k] for k in ("status", "versionNumber")} if job else {}
        status, details = document.get("status"), document.get("statusDetails", {})
        if job is None:
            self._reject(topic, document, "ResourceNotFound", name)
        elif job["status"] in ENDED:
            self._reject(topic, document, "TerminalStateReached", "", executionState=state)
        elif document.get("expectedVersion", job["versionNumber"]) != job["versionNumber"]:
            self._reject(topic, document, "VersionMismatch", "", executionState=state)
        elif status not in ("IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED"):
            self._reject(topic, document, "InvalidStateTransition", "", executionState=state)
        elif not all(DETAIL_KEY.match(k) and v.isprintable() for k, v in details.items()):
            self.broken.append(f"status details {details}")
            self._reject(topic, document, "InvalidRequest", "statusDetails")
        else:
            self.updates.append((name, status, details))
            job["status"], job["versionNumber"] = status, job["versionNumber"] + 1
            job["statusDetails"] = details
            self._accept(topic, document)
            if status in ENDED:
                self._notify_next()

    def _stream(self, name, kind, document):
        files = self.streams.get(name)
        here = f"$aws/things/{THING}/streams/{name}"
        token = document.get("c")
        if files is None:
            self._publish(f"{here}/rejected/json", {"o": "ResourceNotFound", "m": name, "c": token})
        elif kind == "describe":
            sizes = [{"f": n, "z": len(raw)} for n, raw in files.items()]
            self._publish(f"{here}/description/json", {"c": token, "s": 1, "d": "", "r": sizes})
        else:
            length, offset, number = document["l"], document["o"], document["n"]
            raw = files[document["f"]]
            bits = int.from_bytes(bytes.fromhex(document["b"].removeprefix("0x")), "little")
            wanted = [offset + i for i in range(bits.bit_length()) if bits >> i & 1][:number]
            if not 256 <= length <= 131_072 or length * len(wanted) > 128 * 1024:
                self.broken.append(f"{len(wanted)} blocks of {length} bytes at once")
            for block in wanted:
                part = raw[block * length : (block + 1) * length]
                body = base64.b64encode(part).decode()
                told = {"c": token, "f": document["f"], "l": len(part), "i": block, "p": body}
                self._publish(f"{here}/data/json", told)

    def _accept(self, topic, asked, **more):
        more = {**more, "timestamp": int(time.time()), "clientToken": asked.get("clientToken")}
        self._publish(f"{topic}/accepted", more)

    def _reject(self, topic, asked, code, message, **more):
        told = {"code": code, "message": message, "clientToken": asked.get("clientToken"), **more}
        self._publish(f"{topic}/rejected", told)

    def _publish(self, topic, document):
        raw = json.dumps(document).encode()
        if len(raw) > MESSAGE_BYTES_MAX:
            self.broken.append(f"{len(raw)} bytes to the thing on {topic}")
        self._client.publish(topic, raw, 1)


def _delta(desired, reported):
    """The desired members that are reported otherwise."""
    found = {}
    for key, value in desired.items():
        other = reported.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            if inner := _delta(value, other):
                found[key] = inner
        elif value != other:
            found[key] = value
    return found


def _depth(value):
    if isinstance(value, dict):
        return 1 + max((_depth(inner) for inner in value.values()), default=0)
    if isinstance(value, list):
        return max((_depth(inner) for inner in value), default=0)
    return 0
