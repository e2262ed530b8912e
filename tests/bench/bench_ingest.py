"""How fast readings come in: the bulk source beside mosquitto_sub, from one broker under one load.

    python -m tests.bench.bench_ingest            # all of it, a few minutes
    python -m tests.bench.bench_ingest 50000 1    # messages per run, runs

Through the broker both are fed by the same publisher; mosquitto_sub prints to /dev/null.  "wire" is
the source alone, fed encoded packets by a script: what the client itself can take.  Ratios are what
to read: everything shares one machine.
"""

import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from agent.adapters.mqtt.bulk import MqttSource
from agent.config import Mqtt
from tests.world.broker import Broker
from tests.world.driving import drive, stands
from tests.world.hostile import Hostile, Wire, publish

TOPIC = "plant/1/pump/+/telemetry"


def blast(url: str, version: int, qos: int, number: int) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "tests.world.blaster",
        url,
        str(version),
        str(qos),
        str(number),
    ]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout
    assert child.stdout.readline() == "ready\n"
    return child


def fire(child: subprocess.Popen[str]) -> float:
    assert child.stdin
    child.stdin.write("\n")
    child.stdin.flush()
    return time.perf_counter()


def end(child: subprocess.Popen[str]) -> None:
    child.communicate("\n", timeout=60)


def by_source(broker: Broker, version: int, qos: int, number: int) -> tuple[float, float]:
    settings = Mqtt(url=broker.url, version=version, inflight_max=2000)
    source = MqttSource(settings, client_id="bench", streams=[("s", TOPIC, qos)])
    drive(source, stands(source))
    child = blast(broker.url, version, qos, number)
    began_cpu = time.process_time()
    began = fire(child)
    seconds = receive(source, number, began)
    cpu = time.process_time() - began_cpu
    end(child)
    source.close()
    return number / seconds, cpu / number * 1e6


def receive(source: MqttSource, number: int, began: float) -> float:
    seen = 0

    def enough(bursts: list) -> bool:
        nonlocal seen
        seen += sum(len(b.payloads) for b in bursts)
        bursts.clear()
        return seen >= number

    drive(source, enough, 60)
    assert seen == number, f"{seen} of {number} came"
    return time.perf_counter() - began


def by_mosquitto_sub(broker: Broker, version: int, qos: int, number: int) -> tuple[float, float]:
    name = "mqttv5" if version == 5 else "mqttv311"
    listen = ["mosquitto_sub", "-p", str(broker.port), "-V", name, "-q", str(qos), "-t", TOPIC]
    child = blast(broker.url, version, qos, number)
    subscriber = subprocess.Popen([*listen, "-C", str(number)], stdout=subprocess.DEVNULL)
    time.sleep(0.5)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = fire(child)
    subscriber.wait(60)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    end(child)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return number / seconds, cpu / number * 1e6


def by_wire(version: int, qos: int, number: int) -> tuple[float, float]:
    properties = b"" if version == 5 else None
    topics = [b"plant/1/pump/%d/telemetry" % i for i in range(16)]
    packets = [
        publish(topics[i % 16], b"x" * 100, mid=qos and i % 65535 + 1, properties=properties)
        for i in range(10_000)
    ]
    data = b"".join(packets)

    def script(wire: Wire, _: int) -> None:
        wire.let_in()
        wire.subscribed()
        for _ in range(number // len(packets)):
            wire.send(data)
        while wire.sock.recv(1 << 20):
            pass

    with Hostile(script) as broker:
        settings = Mqtt(url=broker.url, version=version)
        source = MqttSource(settings, client_id="bench", streams=[("s", TOPIC, qos)])
        began_cpu, began = time.process_time(), time.perf_counter()
        seconds = receive(source, number, began)
        cpu = time.process_time() - began_cpu
        source.close()
    return number / seconds, cpu / number * 1e6


def median(measure: Callable[[], tuple[float, float]], runs: int) -> tuple[float, float]:
    rates, costs = zip(*(measure() for _ in range(runs)), strict=True)
    return statistics.median(rates), statistics.median(costs)


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    have_sub = shutil.which("mosquitto_sub") is not None
    print(
        f"{'':10} {'source/s':>10} {'µs':>6}   {'mosq_sub/s':>10} {'µs':>6}   {'ratio':>6}   wire/s"
    )
    for version in (4, 5):
        for qos in (0, 1):
            with Broker() as broker:
                load = (broker, version, qos, number)
                ours, our_cost = median(lambda load=load: by_source(*load), runs)
                theirs, their_cost = (
                    median(lambda load=load: by_mosquitto_sub(*load), runs) if have_sub else (0, 0)
                )
            wire, _ = median(lambda v=version, q=qos: by_wire(v, q, number), runs)
            ratio = f"{ours / theirs:6.2f}" if theirs else "   n/a"
            print(
                f"v{version} QoS {qos}   {ours:10,.0f} {our_cost:6.2f}   "
                f"{theirs:10,.0f} {their_cost:6.2f}   {ratio}   {wire:,.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
