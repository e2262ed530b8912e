"""A real broker that goes, hangs or says no, and a hostile one for the data connection."""

import asyncio
import time
from pathlib import Path

import pytest

from agent.adapters.mqtt.bulk import MqttSource
from agent.adapters.mqtt.link import MqttLink
from agent.config import Mqtt
from agent.core.errors import RefusedError, UnavailableError
from tests.contract.test_link import run, standing, take
from tests.world.blaster import Blaster
from tests.world.broker import Broker, Certificates
from tests.world.driving import count, drive, payloads, stands
from tests.world.hostile import PUBACK, PUBLISH, Hostile, Wire, packet, publish, varint
from tests.world.waiting import eventually_async


def source(url: str, *, version: int = 5, streams=None, **more) -> MqttSource:
    settings = Mqtt(url=url, version=version, reconnect_s_max=1, **more)
    return MqttSource(settings, client_id="d-data", streams=streams or [("s", "t", 1)])


# ---- the link ----


@pytest.mark.parametrize("version", [5, 4])
@pytest.mark.parametrize("how", ["restart", "kill"])
def test_the_link_comes_back_after_the_broker_and_subscribes_again(broker, how, version):
    async def test() -> None:
        settings = Mqtt(url=broker.url, version=version, reconnect_s_max=1)
        async with standing(settings, subscriptions=["a"]) as link:
            if how == "kill":
                broker.kill()
                await eventually_async(lambda: "nothing listens" in link.trouble())
                broker.start()
            else:
                broker.restart()
            await eventually_async(lambda: not link.trouble() and link._up.is_set())
            await link.publish("a", b"again")
            (message,) = await take(link, 1)
            assert message.payload == b"again"

    run(test)


def test_a_publish_that_the_broker_did_not_live_to_acknowledge_is_told_so(broker):
    async def test() -> None:
        async with standing(Mqtt(url=broker.url, reconnect_s_max=1)) as link:
            broker.pause()
            waiting = asyncio.create_task(link.publish("a", b"x"))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            broker.kill()
            with pytest.raises(UnavailableError, match="lost before the broker had"):
                await waiting

    run(test)


def test_a_half_open_link_is_noticed_within_one_and_a_half_keepalives(broker):
    async def test() -> None:
        settings = Mqtt(url=broker.url, keepalive_s=5, reconnect_s_max=1)
        async with standing(settings) as link:
            broker.pause()
            began = time.monotonic()
            await eventually_async(link.trouble, 15)
            assert time.monotonic() - began < 1.5 * 5 + 2.5
            broker.unpause()
            await eventually_async(lambda: not link.trouble(), 20)

    run(test)


def test_the_password_is_read_at_every_connect(tmp_path):
    secret = tmp_path / "password"
    secret.write_text("wrong\n")

    async def test() -> None:
        with Broker(password=("pump", "right")) as broker:
            settings = Mqtt(
                url=broker.url, username="pump", password_file=str(secret), reconnect_s_max=1
            )
            link = MqttLink(settings, client_id="d")
            running = asyncio.create_task(link.run())
            await eventually_async(lambda: "check mqtt.username" in link.trouble())
            assert "'pump'" in link.trouble()
            assert "wrong" not in link.trouble()
            secret.write_text("right\n")
            await asyncio.wait_for(link.connected(), 10)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run(test)


def refused_certificate(kind: str, folder: Path) -> tuple[Certificates, str]:
    """What the broker shows, and the ca_file of a client that must not take it."""
    other = folder / "other"
    other.mkdir()
    if kind == "unknown authority":
        return Certificates(folder), str(Certificates(other).ca_file)
    if kind == "no authority given":
        return Certificates(folder), ""
    certificates = Certificates(folder, host="elsewhere.test")
    return certificates, str(certificates.ca_file)


@pytest.mark.parametrize("kind", ["unknown authority", "no authority given", "other name"])
def test_a_broker_with_the_wrong_certificate_gets_neither_password_nor_data(kind, tmp_path):
    shown, ca_file = refused_certificate(kind, tmp_path)
    secret = tmp_path / "password"
    secret.write_text("s3cret")

    async def test() -> None:
        with Broker(tls=shown) as broker:
            settings = Mqtt(
                url=broker.url, ca_file=ca_file, username="u", password_file=str(secret)
            )
            link = MqttLink(settings, client_id="d")
            running = asyncio.create_task(link.run())
            await eventually_async(lambda: "is not trusted" in link.trouble())
            data = MqttSource(settings, client_id="x", streams=[("s", "t", 1)])
            drive(data, lambda _: "is not trusted" in data.trouble())
            assert "is not trusted" in data.trouble()
            data.close()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert "New client connected" not in broker.log.read_text()

    run(test)


def renew(certs: Certificates, name: str) -> None:
    """Another client certificate, written in two steps."""
    made = certs.ca.issue_cert(name)
    certs.client_cert_file.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
    time.sleep(0.3)
    made.private_key_pem.write_to_path(certs.client_key_file)


def test_new_certificates_are_taken_into_use_by_a_planned_reconnect(tmp_path):
    """[delivery-6.6]"""
    certs = Certificates(tmp_path)
    files = {"cert_file": str(certs.client_cert_file), "key_file": str(certs.client_key_file)}
    with Broker(tls=certs, client_certs=True) as broker:
        data = source(broker.url, ca_file=str(certs.ca_file), **files)
        drive(data, stands(data))

        async def test() -> None:
            settings = Mqtt(url=broker.url, ca_file=str(certs.ca_file), reconnect_s_max=1, **files)
            async with standing(settings) as link:
                for n in range(3):
                    stood = broker.log.read_text(encoding="utf-8").count(" as d (")
                    await asyncio.to_thread(renew, certs, f"renewal-{n}@edge.test")

                    def again(stood: int = stood) -> bool:
                        said = broker.log.read_text(encoding="utf-8")
                        return said.count(" as d (") == stood + 1

                    await eventually_async(again, 10)
                    await asyncio.wait_for(link.connected(), 10)
                    await link.publish("t", b"%d" % n)

        run(test)
        began = broker.log.read_text(encoding="utf-8").count(" as d-data (")
        came = drive(data, lambda _: "new certificates" in data.trouble())
        came += drive(data, stands(data))
        assert broker.log.read_text(encoding="utf-8").count(" as d-data (") == began + 1
        came += drive(data, lambda more: len(payloads([*came, *more])) == 3)
        assert payloads(came) == [b"0", b"1", b"2"]
        data.close()


def test_a_client_certificate_lets_us_in(tmp_path):
    shown = Certificates(tmp_path)

    async def test() -> None:
        with Broker(tls=shown, client_certs=True) as broker:
            settings = Mqtt(
                url=broker.url,
                ca_file=str(shown.ca_file),
                cert_file=str(shown.client_cert_file),
                key_file=str(shown.client_key_file),
            )
            async with standing(settings) as link:
                await link.publish("t", b"x")

    run(test)


# ---- the data connection ----


@pytest.mark.parametrize("version", [5, 4])
@pytest.mark.parametrize("accept", [True, False])
def test_a_restarting_broker_costs_no_reading_and_repeats_none(version, accept):
    with Broker(persistent=True) as broker:
        data = source(broker.url, version=version)
        drive(data, stands(data))
        with Blaster(broker.url, version=version) as blaster:
            blaster.publish("t", [b"%d" % i for i in range(200)])
        bursts = drive(data, count(200), accept=accept)
        if accept:
            drive(data, count(1), 0.2)
        broker.restart()
        drive(data, lambda _: data.trouble(), 10)
        bursts += drive(data, stands(data), 10, accept=accept)
        data.accept([b.token for b in bursts])
        with Blaster(broker.url, version=version) as blaster:
            blaster.publish("t", [b"%d" % i for i in range(200, 300)])
        bursts += drive(data, count(100))
        bursts += drive(data, count(1), 0.3)
        assert payloads(bursts) == [b"%d" % i for i in range(300)]
        data.close()
        again = source(broker.url, version=version)
        assert payloads(drive(again, count(1), 1)) == [], "something was never acknowledged"
        again.close()


@pytest.mark.parametrize("version", [5, 4])
def test_accepting_after_a_reconnect_acknowledges_what_was_read_before_it(version):
    with Broker(persistent=True) as broker:
        data = source(broker.url, version=version)
        drive(data, stands(data))
        with Blaster(broker.url, version=version) as blaster:
            blaster.publish("t", [b"%d" % i for i in range(20)])
        bursts = drive(data, count(20), accept=False)
        broker.restart()
        drive(data, lambda _: data.trouble())
        assert drive(data, stands(data), accept=False) == []
        drive(data, count(1), 0.3, accept=False)
        assert data.repeats == 20
        data.accept([b.token for b in bursts])
        drive(data, count(1), 0.3)
        data.close()
        later = source(broker.url, version=version)
        assert payloads(drive(later, count(1), 1)) == []
        later.close()


def test_overlapping_streams_get_each_message_once(broker):
    data = source(broker.url, streams=[("all", "plant/#", 0), ("pump", "plant/+/pump", 1)])
    drive(data, stands(data))
    with Blaster(broker.url) as blaster:
        blaster.publish("plant/1/pump", [b"p1", b"p2"])
        blaster.publish("plant/1/fan", [b"f1"])
    bursts = drive(data, count(5))
    bursts += drive(data, count(1), 0.2)
    assert payloads(bursts, "all") == [b"p1", b"p2", b"f1"]
    assert payloads(bursts, "pump") == [b"p1", b"p2"]
    data.close()


def test_streams_that_overlap_in_part_are_refused_before_anything_is_dialled():
    with pytest.raises(RefusedError, match="overlap in part"):
        source("mqtt://127.0.0.1:1", streams=[("x", "a/+/c", 1), ("y", "a/b/+", 1)])


def test_the_filter_of_an_earlier_configuration_is_unsubscribed(broker):
    old = source(broker.url, streams=[("s", "plant/#", 1)])
    drive(old, stands(old))
    with Blaster(broker.url) as blaster:
        blaster.publish("plant/a", [b"1"])
    (burst,) = drive(old, count(1))
    drive(old, count(1), 0.1)
    old.close()
    new = source(broker.url, streams=[("s", "plant/b", 1)])
    new.resume(burst.mark)
    drive(new, stands(new))
    with Blaster(broker.url) as blaster:
        blaster.publish("plant/a", [b"not for us any more"])
        blaster.publish("plant/b", [b"for us"])
    assert payloads(drive(new, count(1))) == [b"for us"]
    assert new._sorter.strays == 0
    new.close()


@pytest.mark.parametrize("version", [5, 4])
def test_an_oversize_message_of_a_hostile_broker_costs_the_connection_and_little_memory(version):
    def script(wire: Wire, number: int) -> None:
        wire.let_in()
        wire.subscribed()
        properties = b"" if version == 5 else None
        wire.send(publish(b"t", b"good %d" % number, properties=properties))
        if number == 1:
            wire.send(bytes([PUBLISH]) + varint(200 * 2**20))
            while True:
                wire.send(bytes(65536))
        wire.packet()

    with Hostile(script) as broker:
        data = source(broker.url, version=version)
        bursts = drive(data, count(1))
        drive(data, lambda _: "packet_bytes_max" in data.trouble())
        assert "packet_bytes_max" in data.trouble()
        bursts += drive(data, count(1))
        assert payloads(bursts) == [b"good 1", b"good 2"]
        data.close()


@pytest.mark.parametrize(
    "poison",
    [
        publish(b"", b"no topic"),
        packet(0x34, b"\0\x01t\0\x01\0x"),
        packet(PUBLISH, b"\xff\xff"),
        packet(0x90, b""),
        packet(0xD0, b"longer than it may"),
        packet(0x00, b""),
        packet(0xE0, b"\x8d\0"),
    ],
    ids=["empty topic", "QoS 2", "lying length", "short SUBACK", "fat PINGRESP", "0", "DISCONNECT"],
)
def test_malformed_packets_cost_the_connection_and_what_came_before_is_kept(poison):
    def script(wire: Wire, number: int) -> None:
        wire.let_in()
        wire.subscribed()
        wire.send(publish(b"t", b"good", mid=number))
        if number == 1:
            wire.send(poison)
        wire.until(PUBACK)
        wire.packet()

    with Hostile(script) as broker:
        data = source(broker.url)
        bursts = drive(data, count(2))
        assert payloads(bursts) == [b"good", b"good"]
        data.close()


def test_readings_sent_before_the_broker_lets_us_in_are_not_believed():
    def script(wire: Wire, number: int) -> None:
        if number == 1:
            wire.packet()
            wire.send(publish(b"t", b"too early"))
            wire.packet()
        wire.let_in()
        wire.subscribed()
        wire.packet()

    with Hostile(script) as broker:
        data = source(broker.url)
        assert drive(data, lambda _: broker.connections == 2) == []
        data.close()


def test_a_half_open_data_connection_is_noticed_and_dialled_again(broker):
    data = source(broker.url, keepalive_s=5)
    drive(data, stands(data))
    broker.pause()
    drive(data, lambda _: data.trouble(), 12)
    assert "does not answer" in data.trouble()
    broker.unpause()
    drive(data, stands(data), 20)
    assert data.trouble() == ""
    data.close()


def test_a_stream_that_is_not_read_for_many_keepalives_keeps_its_connection(broker):
    """[delivery-6.1] Pings go out; what comes waits, and then comes whole and once."""
    settings = Mqtt(url=broker.url).model_copy(update={"keepalive_s": 1})  # less than may be set
    data = MqttSource(settings, client_id="dev.s", streams=[("s", "plant/+", 1)])
    drive(data, stands(data))
    with Blaster(broker.url) as blaster:
        blaster.publish("plant/a", [b"%d" % n for n in range(10)])
        until = time.monotonic() + 6
        while time.monotonic() < until:
            data.tick(time.monotonic())
            assert data.trouble() == ""
            time.sleep(0.05)
        blaster.publish("plant/a", [b"%d" % n for n in range(10, 20)])
    assert payloads(drive(data, count(20))) == [b"%d" % n for n in range(20)]
    assert broker.log.read_text(encoding="utf-8").count("as dev.s (") == 1
    data.close()


def test_a_message_larger_than_a_read_comes_whole(broker):
    data = source(broker.url, packet_bytes_max=8 * 2**20)
    drive(data, stands(data))
    big = bytes(range(256)) * 4 * 4096
    with Blaster(broker.url) as blaster:
        blaster.publish("t", [b"before", big, b"after"])
    assert payloads(drive(data, count(3))) == [b"before", big, b"after"]
    data.close()
