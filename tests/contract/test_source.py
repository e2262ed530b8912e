"""What every source of readings keeps to: `agent.ports.Source`."""

import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.adapters.mqtt.bulk import MqttSource
from agent.adapters.tail import TailSource
from agent.config import Mqtt
from agent.ports import Source
from tests.world.blaster import Blaster
from tests.world.broker import Broker, Certificates, Embedded, free_port
from tests.world.driving import count, drive, payloads, stands

Lines = list[bytes]
KINDS = ["mqtt-5", "mqtt-3", "mqtts-5", "ws-5", "embedded-5", "embedded-3", "ndjson", "csv"]


class MqttWorld:
    """A broker; `source` connects to it, `feed` publishes."""

    def __init__(self, url: str, feed_url: str, version: int, *, plain: bool = False, ca: str = ""):
        self._settings = Mqtt(url=url, version=version, ca_file=ca, reconnect_s_max=1)
        self._feed = (feed_url, version)
        self._plain = plain

    def source(self) -> Source:
        return MqttSource(
            self._settings,
            client_id="d-data",
            streams=[("s", "plant/+/t", 1)],
            resends_plainly=self._plain,
        )

    def feed(self, lines: Lines) -> None:
        url, version = self._feed
        with Blaster(url, version=version) as blaster:
            blaster.publish("plant/1/t", lines)


class FileWorld:
    """A file; `feed` appends to it."""

    def __init__(self, path: Path, line_format: str):
        self._path = path
        self._format = line_format
        path.write_bytes(b"x,y\n" if line_format == "csv" else b"")

    def source(self) -> Source:
        return TailSource("s", self._path, self._format)

    def feed(self, lines: Lines) -> None:
        with self._path.open("ab") as file:
            file.writelines(line + b"\n" for line in lines)


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MqttWorld | FileWorld]:
    kind = request.param
    if kind in ("ndjson", "csv"):
        yield FileWorld(tmp_path / f"log.{kind}", kind)
        return
    scheme, level = kind.split("-")
    version = 5 if level == "5" else 4
    if scheme == "embedded":
        with Embedded() as embedded:
            url = embedded.url_of(version)
            yield MqttWorld(url, url, version, plain=True)
        return
    certificates = Certificates(tmp_path) if scheme == "mqtts" else None
    plain_port = free_port()
    extra = [f"listener {plain_port} 127.0.0.1"]  # sensors come by another door
    with Broker(tls=certificates, websockets=scheme == "ws", extra=extra) as broker:
        url = broker.ws_url if scheme == "ws" else broker.url
        ca = str(certificates.ca_file) if certificates else ""
        yield MqttWorld(url, f"mqtt://127.0.0.1:{plain_port}", version, ca=ca)


@pytest.fixture
def sources(world: MqttWorld | FileWorld) -> Iterator[Callable[[], Source]]:
    """Makes sources that stand, and closes what is left of them."""
    made: list[Source] = []

    def make(mark: bytes | None = None) -> Source:
        source = world.source()
        made.append(source)
        if mark:
            source.resume(mark)
        return source

    yield make
    for source in made:
        source.close()


def numbered(start: int, number: int) -> Lines:
    return [b'{"x":%d}' % i for i in range(start, start + number)]


def readings(bursts) -> Lines:
    """Payloads without the header lines that a csv source may give again."""
    return [p for p in payloads(bursts) if p != b"x,y"]


def came(lines: Lines) -> Callable:
    return lambda bursts: len(readings(bursts)) >= len(lines)


def test_readings_come_complete_and_in_order(world, sources):
    source = sources()
    drive(source, stands(source))
    lines = numbered(0, 3000)
    world.feed(lines)
    bursts = drive(source, came(lines))
    assert readings(bursts) == lines
    assert {b.stream for b in bursts} == {"s"}
    assert all(b.topics is None or len(b.topics) == len(b.payloads) for b in bursts)


def test_a_restart_with_its_mark_neither_repeats_nor_skips(world, sources):
    first = sources()
    drive(first, stands(first))
    lines = numbered(0, 90)  # the embedded broker sends 100 ahead at most
    world.feed(lines)
    bursts = drive(first, came(lines), accept=False, readings_max=10)
    assert readings(bursts) == lines
    durable = bursts[: len(bursts) // 2 + 1]  # committed; the rest and every PUBACK died with it
    kill(first)
    later = numbered(90, 50)
    world.feed(later)
    second = sources(durable[-1].mark)
    want = [*lines, *later][len(readings(durable)) :]
    again = drive(second, came(want), 20)
    again += drive(second, count(1), 0.3)  # and nothing more
    assert readings(again) == want


def test_without_a_mark_what_was_not_accepted_comes_again(world, sources):
    first = sources()
    drive(first, stands(first))
    lines = numbered(0, 40)
    world.feed(lines)
    drive(first, came(lines), accept=False)
    kill(first)
    second = sources()
    assert readings(drive(second, came(lines), 20)) == lines


def test_what_was_accepted_does_not_come_again(world, sources):
    first = sources()
    drive(first, stands(first))
    world.feed(numbered(0, 100))
    bursts = drive(first, came(numbered(0, 100)))
    drive(first, count(1), 0.2)
    first.close()
    second = sources(bursts[-1].mark)
    drive(second, stands(second))
    later = numbered(100, 10)
    world.feed(later)
    assert readings(drive(second, came(later))) == later


def test_select_on_its_fileno_tells_of_readings(world, sources):
    source = sources()
    drive(source, stands(source))
    drive(source, count(1), 0.2)  # quiet
    world.feed(numbered(0, 1))
    got: Lines = []
    deadline = time.monotonic() + 5
    while not got and time.monotonic() < deadline:
        ready, _, _ = select.select([source.fileno()], [], [], 5)
        assert ready, "nothing rang although a reading came"
        got = readings(source.read(100))
    assert got == numbered(0, 1)


def test_reading_stops_at_about_readings_max_and_rings_for_the_rest(world, sources):
    source = sources()
    drive(source, stands(source))
    lines = numbered(0, 60_000)
    world.feed(lines)
    seen = 0
    while seen < len(lines):
        ready, _, _ = select.select([source.fileno()], [], [], 10)
        assert ready
        bursts = source.read(10)
        source.accept([b.token for b in bursts])
        now = len(readings(bursts))
        assert now < len(lines)
        seen += now
    assert seen == len(lines)


def test_no_call_waits_even_where_nothing_is_to_be_had(world, sources):
    source = sources()
    for call in (
        lambda: source.tick(time.monotonic()),
        lambda: source.read(10),
        lambda: source.accept([]),
        source.fileno,
        source.wants_write,
        source.trouble,
    ):
        began = time.monotonic()
        call()
        assert time.monotonic() - began < 0.5


def test_it_says_when_it_wants_to_be_ticked_again(world, sources):
    source = sources()
    now = time.monotonic()
    drive(source, stands(source))
    assert now < source.tick(time.monotonic()) < time.monotonic() + 60


def test_before_it_stands_it_says_why_and_then_no_more(sources):
    source = sources()
    assert source.trouble()
    drive(source, stands(source))
    assert source.trouble() == ""


def test_closing_twice_is_no_harm(sources):
    source = sources()
    drive(source, stands(source))
    source.close()
    source.close()


def kill(source: Source) -> None:
    """As if the process had died: no DISCONNECT, no last acknowledgement."""
    client = getattr(source, "_client", None)
    if client is not None:
        client.hang_up()
    source.close()
