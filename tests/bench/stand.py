"""The test stand: a broker, someone who scores, sensors and a sink, each a process of its own."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.world import zoo
from tests.world.broker import Broker
from tests.world.site import Site
from tests.world.waiting import eventually

SCORES = "edge/+/scores/+"
# A line for each packet would be most of the broker's work; what it has to send should not wait.
QUIET = ("log_type none", "set_tcp_nodelay true")


@dataclass(frozen=True, slots=True)
class Lap:
    """One run of a load.  Rates in readings a second, CPU in µs a reading, ages in ms."""

    rate: float
    cpu_us: float
    cores: float
    p50: float
    p99: float
    lost: int


class Child:
    """A module of this folder as a process that answers lines."""

    def __init__(self, module: str, *args: object) -> None:
        command = [sys.executable, "-m", f"tests.bench.{module}", *map(str, args)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def say(self, text: object = "") -> None:
        assert self.process.stdin
        print(text, file=self.process.stdin, flush=True)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def child(module: str, *args: object) -> Iterator[Child]:
    it = Child(module, *args)
    try:
        yield it
    finally:
        it.close()


@contextmanager
def quiet_broker() -> Iterator[Broker]:
    with Broker(extra=QUIET) as broker:
        yield broker


@contextmanager
def agent(broker: Broker, folder: Path, qos: int, **batch: float) -> Iterator[int]:
    """The agent with the 8-32-16-1 MLP from its first second; gives its pid."""
    folder.mkdir(parents=True)
    stream = {"name": "s", "topic": "plant/+", "key": "{1}", "time": "ts", "qos": qos}
    if batch:
        stream["batch"] = batch
    models = [{"name": "m", "stream": "s", "path": str(zoo.mlp(folder / "m", name="m"))}]
    settings = {"report": {"interval": "60s"}}
    site = Site(broker, folder, streams=[stream], models=models, hears=(), **settings)
    with site:
        site.start()
        eventually(lambda: site.model("m").get("active"), 30, "the model scores")
        eventually(lambda: "data_connection_up" in site.log(), 30, "the sensors are heard")
        yield site.process.pid


@contextmanager
def naive(broker: Broker, folder: Path, qos: int) -> Iterator[int]:
    model = zoo.mlp(folder, name="m") / "model.onnx"
    with child("naive", broker.url, model, qos) as it:
        yield it.process.pid


def cpu_s(pid: int) -> float:
    """Of a process and all its children."""
    root = psutil.Process(pid)
    total = 0.0
    for process in (root, *root.children(recursive=True)):
        times = process.cpu_times()
        total += times.user + times.system
    return total


def lap(
    broker: Broker, sink: Child, pid: int, *, qos: int, rate: float, number: int, readings: int = 1
) -> Lap:
    """`number` messages at `rate` a second through whoever scores as `pid`."""
    with child("sensors", broker.url, qos, rate, number, readings) as sensors:
        began, before = time.monotonic(), cpu_s(pid)
        sink.say(number * readings)
        sensors.say()
        sensors.line()
        told = json.loads(sink.line())
        used = cpu_s(pid) - before
    rows = told["rows"]
    seconds = told["ended"] - began
    return Lap(
        rate=rows / seconds,
        cpu_us=used / max(1, rows) * 1e6,
        cores=used / seconds,
        p50=told["p50"],
        p99=told["p99"],
        lost=number * readings - rows,
    )


def by_mosquitto_sub(broker: Broker, *, qos: int, number: int) -> float:
    """Messages a second that mosquitto_sub takes from the same load."""
    listen = ["mosquitto_sub", "-p", str(broker.port), "-V", "mqttv5", "-q", str(qos)]
    with child("sensors", broker.url, qos, 0, number) as sensors:
        subscriber = subprocess.Popen(
            [*listen, "-t", "plant/+", "-C", str(number)], stdout=subprocess.DEVNULL
        )
        time.sleep(0.5)
        began = time.monotonic()
        sensors.say()
        subscriber.wait(120)
        return number / (time.monotonic() - began)
