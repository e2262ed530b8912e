"""A plant in a test: a real Mosquitto, a signed repository, one agent as a process, sensors, and a
consumer that keeps the books of what the agent published.

Everything real; only the plant is small.  The consumer checks what a consumer can: that `seq` runs
without a gap, and that what comes twice is the same.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import paho.mqtt.client as mqtt
import urllib3
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.repository import publishing
from agent.repository.layout import Repository
from agent.repository.signed import SignedPublisher
from tests.world.broker import free_port
from tests.world.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
DEVICE = "dev-1"


class Rows(dict):
    """A dict that may be walked while another thread adds to it: what is there by then is seen."""

    def __iter__(self):
        return iter(list(super().keys()))

    def keys(self):
        return list(super().keys())

    def values(self):
        return list(super().values())

    def items(self):
        return list(super().items())


class Books:
    """What a consumer of scores has seen of one model, by `seq`."""

    def __init__(self):
        self.rows = Rows()  # seq -> (key, time, score, release)
        self.arrived = []  # seq in order of arrival
        self.repeated = 0
        self.contradicted = []
        self.labels = {}
        self.superseding = Rows()  # seq of a row that takes the place of another -> seq of that one

    def take(self, document):
        first = document["seq"]
        if (old := document.get("supersedes")) is not None:
            for i in range(old["rows"]):
                self.superseding[first + i] = old["seq"] + i
        for i, (key, when, score) in enumerate(
            zip(document["key"], document["time"], document["score"], strict=True)
        ):
            seq, row = first + i, (key, when, score, document["release"])
            if seq in self.rows:
                self.repeated += 1
                if self.rows[seq] != row:
                    self.contradicted.append((seq, self.rows[seq], row))
            self.arrived.append(seq)
            if "label" in document:
                self.labels[seq] = document["label"][i]
            self.rows[seq] = row  # last: it is what others wait for

    def corrected(self):
        """The rows by seq, with those that were superseded as they are now."""
        all_of_them, superseding = dict(self.rows), dict(self.superseding)  # more come meanwhile
        rows = {seq: row for seq, row in all_of_them.items() if seq not in superseding}
        newer = {old: new for new, old in sorted(superseding.items())}
        return rows | {old: all_of_them[new] for old, new in newer.items() if new in all_of_them}

    def check(self):
        """No gap, nothing said twice in two ways; returns how many rows there are, those that take
        the place of others not counted.
        """
        assert not self.contradicted, self.contradicted[:3]
        assert sorted(self.rows) == list(range(len(self.rows))), "seq has a gap"
        return self.first_hand

    @property
    def first_hand(self):
        """How many rows there are that take the place of no other."""
        return len(self.rows) - len(self.superseding)


class Site:
    """A context manager.  `settings` goes over the agent's configuration, section by section."""

    def __init__(
        self,
        broker,
        folder,
        *,
        streams=None,
        models=(),
        repository="file",
        trust="tuf",
        hears=("scores/+", "events", "reported"),
        **settings,
    ):
        self.broker, self.folder = broker, Path(folder)
        self._hears = hears
        self.repository, self.trust = repository, trust
        self.http = f"127.0.0.1:{free_port()}"
        self.streams = streams or [{"name": "s", "topic": "plant/+", "key": "{1}", "time": "ts"}]
        self.models = list(models)
        self.settings = settings
        self.environ = {}  # of the agent, over this process's own
        self.python = sys.executable  # what runs the agent
        self.program = "agent"  # or what runs it and does something to it
        self.books, self.events, self.reported = {}, [], None
        self.reports = []
        self.process = None
        self.revision = 0
        self.wanted = {}
        self._lock = threading.Lock()
        once_more = urllib3.Retry(1, connect=0)  # where a kept connection is just being closed
        self._pool = urllib3.PoolManager(timeout=5, retries=once_more)
        self._repo = publishing.init(self.folder / "repo", SignedPublisher())
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, "consumer", protocol=mqtt.MQTTv5)
        self._client.on_message = self._on_message
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self.agreed = 0  # of the consumer's subscriptions, again each time that it connects
        self._was_listening = False
        self._client.max_queued_messages_set(0)
        self._client.max_inflight_messages_set(1000)

    def __enter__(self):
        port = int(self.broker.url.rsplit(":", 1)[1])
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = 3600  # what comes while we are away is kept for us
        self._client.connect("127.0.0.1", port, clean_start=False, properties=session)
        self._client.loop_start()
        eventually(lambda: self.agreed or (not self._hears and self._client.is_connected()), 10)
        return self

    def __exit__(self, *_):
        self.stop()
        self._client.disconnect()
        self._client.loop_stop()
        self._pool.clear()

    # ---- the agent ----

    def config(self):
        """Write agent.toml and return its path."""
        url = {"file": f"file://{self._repo.folder}", "mqtt": "mqtt:"}.get(
            self.repository, self.repository
        )
        sections = {
            "device": {"id": DEVICE, "groups": ["line"]},
            "mqtt": {"url": self.broker.url, "reconnect_s_max": 1.0},
            "store": {"dir": str(self.folder / "store")},
            "repository": {
                "url": url,
                "root_file": str(self._repo.folder / "root.json"),
                "trust": self.trust,
            },
            "http": {"bind": self.http},
            "report": {"interval": "1s", "receipt": "0.2s"},
            "engine": {},
        }
        for name, more in self.settings.items():
            sections[name] = {**sections.get(name, {}), **more}
        lines = []
        for name, section in sections.items():
            lines += [f"[{name}]", *(f"{k} = {_toml(v)}" for k, v in section.items())]
        for name, tables in (("stream", self.streams), ("model", self.models)):
            for table in tables:
                lines += [f"[[{name}]]", *(f"{k} = {_toml(v)}" for k, v in table.items())]
        path = self.folder / "agent.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def start(self, *, ready=False):
        """Start the agent as a process."""
        log = (self.folder / "agent.log").open("ab")
        env = {**os.environ, "PYTHONPATH": str(ROOT), **self.environ}
        command = [self.python, "-m", self.program, "run", "--config", str(self.config())]
        self.process = subprocess.Popen(
            command, stdout=log, stderr=log, env=env, start_new_session=True
        )
        log.close()
        if ready:
            self.ready()
        return self

    def stop(self):
        """End it in order; returns its exit status."""
        if self.process is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self.process = None
        return status

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait(10)
        self.process = None

    def log(self):
        return (self.folder / "agent.log").read_text(errors="replace")

    def state(self):
        """/state, or None while nobody answers."""
        try:
            answer = self._pool.request("GET", f"http://{self.http}/state")
            return answer.json() if answer.status == 200 else None
        except urllib3.exceptions.HTTPError:
            return None

    def asks_no_more(self):
        """Close the connections that questions are asked over; the next question opens one."""
        self._pool.clear()

    def ready(self, seconds=30):
        """Wait until /readyz says so."""

        def asked():
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                return self._pool.request("GET", f"http://{self.http}/readyz").status == 200
            return False

        return eventually(asked, seconds, "the agent is ready")

    def listens(self, seconds=30):
        """Wait until it has heard of the sensors' broker: it may be ready, and scores be committed,
        before.  Once is enough: from then on the broker keeps what comes while it is away.
        """
        if self._was_listening or self.process is None:
            return
        if any(stream.get("source", "mqtt") == "mqtt" for stream in self.streams):
            eventually(lambda: "data_connection_up" in self.log(), seconds, "it listens")
        self._was_listening = True

    def model(self, name):
        """The model's part of /state."""
        return ((self.state() or {}).get("models") or {}).get(name) or {}

    # ---- the control plane ----

    def add(self, package, *, again=True):
        """Add a package folder to the repository; returns its release."""
        repo = Repository.open(self._repo.folder)
        return publishing.add(repo, package, SignedPublisher(), again=again).package.ref.release

    def desire(self, name, release, *, stream="s", rollout=None, raw=None):
        """Publish the desired document with this wish in it (or `raw` bytes)."""
        self.revision += 1
        self.wanted[name] = {"release": release, "stream": stream, "rollout": rollout or {}}
        body = (
            raw
            or json.dumps({"schema": 1, "revision": self.revision, "models": self.wanted}).encode()
        )
        self.publish(f"edge/{DEVICE}/desired", body, retain=True)

    def deploy(self, package, *, name="m", seconds=60, **more):
        """Add, desire and wait until it is the known good; returns its release."""
        release = self.add(package)
        self.desire(name, release, **more)
        self.committed(name, release, seconds)
        return release

    def committed(self, name, release, seconds=60):
        """Wait until `release` has survived its probation, and its stream can be sent to."""

        def done():
            model = self.model(name)
            good = model.get("known_good") or {}
            return good.get("release") == release and model.get("phase") == "steady"

        eventually(done, seconds, f"{name}:{release} committed; {self.model(name)}")
        self.listens()

    def settled(self, name, seconds=60):
        """Wait until the rollout of `name` is over, and has a why; its part of /state."""

        def done():
            model = self.model(name)
            return model if model.get("phase") == "steady" and model.get("why") else None

        return eventually(done, seconds, f"{name} settled with a why; {self.model(name)}")

    def command(self, name, args, seconds=10):
        """Send a command and wait for the answer."""
        ident = f"c{time.time_ns()}"
        self._answer = None
        self._client.subscribe(f"edge/{DEVICE}/answer/{ident}", 1)
        body = {"id": ident, "expires": time.time() + 60, "args": args}
        self.publish(f"edge/{DEVICE}/command/{name}", json.dumps(body).encode())
        return eventually(lambda: self._answer, seconds, f"an answer to {name}")

    # ---- sensors and consumers ----

    def hear(self, part, seconds=10):
        """Subscribe to `part` of the device's topics, too; returns when the broker has agreed."""
        before = self.agreed
        self._client.subscribe(f"edge/{DEVICE}/{part}", 1)
        eventually(lambda: self.agreed > before, seconds, f"the broker's word on {part}")

    def publish(self, topic, payload, *, qos=1, retain=False, wait=True):
        """One message; waits for the broker to have it unless told not to."""
        told = self._client.publish(topic, payload, qos=qos, retain=retain)
        if wait:
            arrived(told, 10)
        return told

    def readings(self, documents, *, topic="plant/p1"):
        """Publish readings as JSON, QoS 1; returns when the broker has them all.

        Waits for the agent to listen, which it may do later than it is ready.
        """
        self.listens()
        told = [self.publish(topic, json.dumps(d).encode(), wait=False) for d in documents]
        for one in told:
            arrived(one, 30)

    def scored(self, name, rows, seconds=30):
        """Wait until the consumer has `rows` rows of `name`, not counting those that take the place
        of others; returns the books.
        """
        books = self.book(name)
        eventually(
            lambda: books.first_hand >= rows, seconds, f"{rows} rows of {name}; {books.first_hand}"
        )
        return books

    def book(self, name):
        with self._lock:
            return self.books.setdefault(name, Books())

    def _on_connect(self, client, _userdata, _flags, _reason, _properties):
        if self._hears:
            client.subscribe([(f"edge/{DEVICE}/{part}", 1) for part in self._hears])

    def _on_subscribe(self, *_):
        self.agreed += 1

    def _on_message(self, _client, _userdata, message):
        parts = message.topic.split("/")
        document = json.loads(message.payload)
        if parts[2] == "scores":
            self.book(parts[3]).take(document)
        elif parts[2] == "events":
            self.events.append(document)
        elif parts[2] == "answer":
            self._answer = document
        else:
            self.reported = document
            self.reports.append(document)


def arrived(told, seconds):
    """Wait until the broker has what was published; without a connection it goes with the next."""
    if told.rc == mqtt.MQTT_ERR_NO_CONN:
        told.rc = mqtt.MQTT_ERR_SUCCESS
    told.wait_for_publish(seconds)


def _toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return json.dumps(value)
