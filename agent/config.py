"""Settings: `agent.toml` and the environment, read once, checked whole, frozen (interface.md §3).

EDGE_AGENT__SECTION__KEY sets any key, too (lists and tables: JSON).  `_file`: where a secret lies.
"""

import os
import platform
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator

from agent.core.acceleration import Accelerators
from agent.core.clouds import Aws, Azure
from agent.core.errors import RefusedError
from agent.core.fields import Address, Name, Part, Seconds, first_complaint
from agent.core.names import is_id
from agent.core.settings import overlay, setter
from agent.core.topics import is_filter

ENV_PREFIX = "EDGE_AGENT__"
SCHEMES = ("mqtt", "mqtts", "ws", "wss")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
IOT_EDGE = ("IOTEDGE_WORKLOADURI", "EdgeHubConnectionString")  # set for modules, or by developers


def _device_id() -> str:
    name = os.environ.get("IOTEDGE_DEVICEID") or platform.node().split(".")[0] or "device"
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)[:64]


class Device(Part):
    """Who this device is.  The id is the host's name, or IOTEDGE_DEVICEID, unless told."""

    id: Name = Field(default_factory=_device_id)
    groups: tuple[Name, ...] = ()
    key_file: str = ""  # PEM, Ed25519 or ECDSA P-256: what its receipts are signed with


class Mqtt(Part):
    """The broker: control, telemetry and MQTT streams."""

    url: str = "mqtt://127.0.0.1:1883"
    root: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")] = "edge"
    username: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    version: Annotated[int, Field(ge=4, le=5)] = 5
    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = 30
    reconnect_s_first: Annotated[float, Field(ge=0.1, le=600)] = 1.0
    reconnect_s_spread: Annotated[float, Field(ge=0, le=600)] = 60.0  # after the broker was away
    reconnect_s_max: Annotated[float, Field(ge=1, le=3600)] = 120.0
    packet_bytes_max: Annotated[int, Field(ge=4096, le=256 * 2**20)] = 1024 * 1024
    inflight_max: Annotated[int, Field(ge=1, le=65535)] = 2000
    embedded_bind: Address = "127.0.0.1:1883"  # where the embedded broker listens

    @field_validator("url")
    @classmethod
    def _url(cls, url: str) -> str:
        if url == "embedded":
            return url
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES or not parts.hostname or parts.port == 0:
            msg = f"{url!r} is no broker; write mqtt://host:1883, mqtts, ws, wss or embedded"
            raise ValueError(msg)
        if parts.password:
            msg = "a password does not belong in the URL; name the file it is in: password_file"
            raise ValueError(msg)
        return url

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if bool(self.cert_file) != bool(self.key_file):
            msg = "cert_file and key_file go together"
            raise ValueError(msg)
        return self


class StoreSection(Part):
    """Where everything durable lies, and how much of it there may be."""

    dir: Annotated[str, Field(pattern=r"^[^\x00]+$")] = "/var/lib/edge-agent"
    outbox_mb: Annotated[float, Field(ge=1, le=1_048_576)] = 64
    outbox_ttl: Seconds = 0.0  # what has waited longer is given up, and told; 0: nothing is
    commit_ms: Annotated[float, Field(ge=0, le=1000)] = 2.0  # between two commits, under load
    models_mb: Annotated[float, Field(ge=1, le=1_048_576)] = 2048
    ring_mb: Annotated[float, Field(ge=1, le=65_536)] = 32  # of readings, to score again

    @field_validator("dir")
    @classmethod
    def _dir(cls, folder: str) -> str:
        try:
            return str(Path(folder).absolute())  # workers stand elsewhere
        except OSError:
            msg = f"{folder!r} is named from a folder that is gone; name it from the root: /…"
            raise ValueError(msg) from None


class Repository(Part):
    """Where packages come from, and what makes them believed."""

    url: str = "mqtt:"
    root_file: str = ""
    trust: Literal["tuf", "none"] = "tuf"  # none: unsigned packages are installed, and shown
    ca_file: str = ""  # of an https repository, where the system does not know its CA
    refresh: Annotated[Seconds, Field(ge=60)] = 86400.0  # how often its signatures are asked for
    expiry_grace: Seconds = 0.0  # how long past their end signatures still let something in

    @field_validator("url")
    @classmethod
    def _url(cls, url: str) -> str:
        if not re.match(r"^(mqtt:$|https?://[^/]|file:/)", url):
            msg = f"{url!r} is no repository; write mqtt:, https://… or file:///…"
            raise ValueError(msg)
        if url.startswith("http://") and urlsplit(url).hostname not in LOOPBACK:
            msg = "a repository on another machine is read over https://, not http://"
            raise ValueError(msg)
        return url


class Http(Part):
    """The local endpoint."""

    bind: Address = "127.0.0.1:8080"
    token_file: str = ""
    hosts: tuple[str, ...] = ()  # further names this endpoint may be called by

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.bind.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.address[0] in LOOPBACK


class Report(Part):
    """When the agent tells how it is."""

    interval: Seconds = 60.0
    receipt: Seconds = 2.0  # of latency after a swap, before its receipt goes out
    dead: Seconds = 120.0  # not live for so long: the process ends, to be restarted; 0: never


class Engine(Part):
    """How versions are held: in worker processes, or inline on devices too small for that."""

    isolation: Literal["process", "inline"] = "process"
    start_s_max: Annotated[float, Field(gt=0)] = 30.0  # of an empty worker
    load_s_max: Annotated[float, Field(gt=0)] = 600.0
    run_s_max: Annotated[float, Field(gt=0)] = 10.0  # a run longer than this is a hang
    shadow_share: Annotated[float, Field(gt=0, le=16)] = 0.25  # of a core, for one nobody hears
    golden_s: Annotated[float, Field(ge=0.1)] = 10.0  # between proofs of the live session
    deaths_max: Annotated[int, Field(ge=1, le=100)] = 3  # of one version's worker within deaths_s
    deaths_s: Annotated[float, Field(gt=0)] = 300.0
    domains: tuple[str, ...] = ()  # operator sets models may use beside ONNX's and onnxruntime's


class BatchLimits(Part):
    """How far a micro-batch may grow: by rows, and by waiting."""

    rows_max: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    wait_ms: Annotated[float, Field(ge=0, le=60_000)] = 0.0


class Stream(Part):
    """One stream of readings: where it comes from and what its payloads look like."""

    name: Name
    source: Literal["mqtt", "file", "http", "input"] = "mqtt"  # input: of a module on IoT Edge
    topic: str = ""  # or the name of the input
    path: str = ""  # of the file to tail
    key: str = ""  # "{3}": level of the topic (from 0), or the name of a field; empty: one sensor
    format: Literal["json", "ndjson", "csv", "float32", "cbor", "msgpack", "sparkplug"] = "json"
    time: str = ""
    fields: dict[str, str] = Field(default_factory=dict)
    columns: tuple[str, ...] = ()  # csv without a header, and float32: what the columns are called
    units: dict[str, str] = Field(default_factory=dict)
    qos: Literal[0, 1] = 1
    on_overload: Literal["block", "drop_oldest", "sample"] = "block"  # more than can be scored
    leaving: bool = False  # unsubscribe, and score what the broker still holds for us: scaling in
    late: Seconds = 0.0
    time_s_max_ahead: Annotated[float, Field(gt=0)] = 86400.0  # an event further ahead is absurd
    payload_bytes_max: Annotated[int, Field(ge=16, le=64 * 2**20)] = 1024 * 1024
    keys_max: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    batch: BatchLimits = BatchLimits()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.source == "mqtt" and not self.topic:
            msg = f"stream {self.name} comes from MQTT and needs a topic"
            raise ValueError(msg)
        if self.source == "input" and not is_id(self.topic):
            msg = f"stream {self.name} comes from an input; its name, as topic, is missing or none"
            raise ValueError(msg)
        if self.source == "file" and not self.path:
            msg = f"stream {self.name} comes from a file and needs a path"
            raise ValueError(msg)
        if self.topic and not is_filter(self.topic):
            msg = f"{self.topic!r} is no topic filter: + and # stand alone in a level, # comes last"
            raise ValueError(msg)
        if self.key.startswith("{") and self.source not in ("mqtt", "input"):
            msg = f"stream {self.name} has no topic to take its key {self.key} from; name a field"
            raise ValueError(msg)
        if self.format == "float32" and not (self.columns or self.fields):
            msg = f"stream {self.name} is raw float32 and needs columns, the names of its values"
            raise ValueError(msg)
        if self.format == "sparkplug" and (self.source != "mqtt" or self.is_shared):
            msg = f"stream {self.name} is Sparkplug and needs all of an MQTT topic, births included"
            raise ValueError(msg)
        return self

    @property
    def is_shared(self) -> bool:
        """Whether other agents take a part of it: `$share/GROUP/FILTER`."""
        return self.topic.startswith("$share/")


class FactoryModel(Part):
    """A package on this device, run before any desired document was seen."""

    name: Name
    stream: str
    path: str


class Config(Part):
    """Everything that may be set, whole."""

    control: Literal["native", "azure", "aws"] = "native"  # azure by itself within IoT Edge
    device: Device = Field(default_factory=Device)
    mqtt: Mqtt = Mqtt()
    azure: Azure = Azure()
    aws: Aws = Aws()
    store: StoreSection = StoreSection()
    repository: Repository = Repository()
    http: Http = Http()
    report: Report = Report()
    engine: Engine = Engine()
    accelerators: Accelerators = Accelerators()
    stream: tuple[Stream, ...] = ()
    model: tuple[FactoryModel, ...] = ()

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        names = [s.name for s in self.stream]
        for name in names:
            if names.count(name) > 1:
                msg = f"the stream {name} is there twice"
                raise ValueError(msg)
        for model in self.model:
            if model.stream not in names:
                msg = f"model {model.name} wants the stream {model.stream!r}, which is not there"
                raise ValueError(msg)
        if self.control != "azure" and any(s.source == "input" for s in self.stream):
            msg = 'source = "input" is an input of an IoT Edge module, and control is not azure'
            raise ValueError(msg)
        if not self.http.is_loopback and not self.http.token_file:
            msg = f"http.bind {self.http.bind} is open to others and needs http.token_file"
            raise ValueError(msg)
        return self


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The settings in the file at `path` (None: none), overlaid by the environment.

    Raises:
        RefusedError: they cannot be taken; the text names the key.
    """
    document: dict[str, Any] = {}
    if path is not None:
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RefusedError(f"cannot read {path}: {error.strerror or error}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RefusedError(f"{path} is not TOML: {error}") from error
    overlay(document, environ, ENV_PREFIX)
    if any(environ.get(name) for name in IOT_EDGE):
        document.setdefault("control", "azure")
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        said = first_complaint(error)
        where = setter(said.partition(":")[0].split("."), environ, ENV_PREFIX)
        raise RefusedError(f"{where or path or 'environment'}: {said}") from error
