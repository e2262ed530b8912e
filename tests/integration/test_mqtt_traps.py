"""The six traps of paho (reliability.md §4.1) and other ways of a hostile broker, on the link."""

import asyncio
import resource
import struct
import threading

import pytest

from agent.adapters.mqtt.link import MqttLink
from agent.config import Mqtt
from agent.core.errors import RefusedError, UnavailableError
from tests.contract.test_link import run, standing, take
from tests.world.hostile import PUBACK, PUBLISH, Hostile, Wire, packet, publish, varint
from tests.world.waiting import eventually_async


def settings(broker: Hostile, **more) -> Mqtt:
    return Mqtt(url=broker.url, reconnect_s_max=1, **more)


def serve(wire: Wire) -> None:
    """A broker that lets in and takes everything."""
    wire.let_in()
    while True:
        wire.puback(wire.until(PUBLISH))


def test_trap_1_a_surprise_from_the_wire_costs_the_connection_and_not_the_thread():
    """Stock paho's loop thread dies with an exception, and is_connected() stays true."""

    def script(wire: Wire, number: int) -> None:
        wire.let_in()
        if number == 1:
            wire.send(packet(PUBACK, b"\0"))  # too short: paho raises struct.error
            wire.packet()
        serve_rest(wire)

    def serve_rest(wire: Wire) -> None:
        while True:
            wire.puback(wire.until(PUBLISH))

    async def test() -> None:
        with Hostile(script) as broker:
            link = MqttLink(settings(broker), client_id="d")
            running = asyncio.create_task(link.run())
            await eventually_async(lambda: broker.connections > 1)
            await asyncio.wait_for(link.connected(), 10)
            await link.publish("t", b"alive")
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run(test)


def test_trap_2_nothing_is_queued_while_the_link_is_down_and_nothing_sent_after():
    published: list[bytes] = []

    def script(wire: Wire, number: int) -> None:
        wire.let_in()
        if number == 1:
            return  # hang up
        while True:
            body = wire.until(PUBLISH)
            published.append(body)
            wire.puback(body)

    async def test() -> None:
        with Hostile(script) as broker:
            async with standing(settings(broker)) as link:
                refused = 0
                for _ in range(500):
                    try:
                        await link.publish("t", b"x")
                    except UnavailableError:
                        refused += 1
                    await asyncio.sleep(0)
                await asyncio.wait_for(link.connected(), 10)
                await link.publish("t", b"last")
                assert published[-1].endswith(b"last")
                assert len(published) == 501 - refused

    run(test)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (0x97, UnavailableError),
        (0x80, UnavailableError),
        (0x83, UnavailableError),
        (0x87, RefusedError),
        (0x90, RefusedError),
        (0x99, RefusedError),
    ],
)
def test_trap_3_an_acknowledgement_that_says_no_is_no_success(code, error):
    def script(wire: Wire, _: int) -> None:
        wire.let_in()
        wire.puback(wire.until(PUBLISH), code)
        wire.puback(wire.until(PUBLISH))
        wire.packet()

    async def test() -> None:
        with Hostile(script) as broker:
            async with standing(settings(broker)) as link:
                with pytest.raises(error, match="on t"):
                    await link.publish("t", b"x")
                await link.publish("t", b"x")

    run(test)


def test_trap_4_a_message_of_an_earlier_connection_is_not_acknowledged_on_a_later_one():
    acked: list[tuple[int, bytes]] = []
    handled = threading.Event()

    def script(wire: Wire, number: int) -> None:
        wire.let_in(session=number > 1)
        wire.subscribed()
        wire.send(publish(b"a", b"of connection %d" % number, mid=1))
        if number == 1:
            return
        handled.set()
        while True:
            acked.append((number, wire.until(PUBACK)[:2]))

    async def test() -> None:
        with Hostile(script) as broker:
            async with standing(settings(broker), subscriptions=["a"]) as link:
                got = []
                async for message in link.messages():
                    got.append(message.payload)
                    if len(got) == 1:  # while this one is handled, the link goes and comes back
                        await eventually_async(handled.is_set)
                        continue
                    assert acked == []
                    break
                assert got == [b"of connection 1", b"of connection 2"]

    run(test)


def test_trap_5_the_brokers_receive_maximum_is_kept_to():
    most = 0

    def script(wire: Wire, _: int) -> None:
        nonlocal most
        wire.let_in(properties=b"\x21\0\x02")  # Receive Maximum 2
        held: list[bytes] = []
        wire.sock.settimeout(0.3)
        while True:
            try:
                held.append(wire.until(PUBLISH))
                most = max(most, len(held))
            except TimeoutError:
                for body in held:
                    wire.puback(body)
                held.clear()

    async def test() -> None:
        with Hostile(script) as broker:
            async with standing(settings(broker)) as link:
                await asyncio.gather(*(link.publish("t", b"x") for _ in range(7)))
        assert most == 2

    run(test)


def test_the_brokers_maximum_packet_size_is_kept_to_and_only_the_big_message_is_refused():
    sizes: list[int] = []

    def script(wire: Wire, _: int) -> None:
        wire.let_in(properties=b"\x27" + struct.pack("!I", 1000))
        while True:
            body = wire.until(PUBLISH)
            sizes.append(len(body))
            wire.puback(body)

    async def test() -> None:
        with Hostile(script) as broker:
            async with standing(settings(broker)) as link:
                with pytest.raises(RefusedError, match="more than the broker takes") as refused:
                    await link.publish("t", b"x" * 2000)
                assert refused.value.code == 413
                await link.publish("t", b"x" * 900)
        assert max(sizes) < 1000

    run(test)


def test_a_broker_that_hangs_up_over_a_large_message_loses_us_that_message_only():
    def script(wire: Wire, number: int) -> None:
        wire.let_in()
        while True:
            body = wire.until(PUBLISH)
            if len(body) > 1000:
                wire.send(packet(0xE0, b"\x95\0"))
                wire.packet()
            wire.puback(body)

    async def test() -> None:
        with Hostile(script) as broker:
            async with standing(settings(broker)) as link:
                small = asyncio.create_task(link.publish("t", b"small"))
                with pytest.raises(RefusedError, match="too large"):
                    await link.publish("t", b"x" * 2000)
                await asyncio.gather(small, return_exceptions=True)
                await asyncio.wait_for(link.connected(), 10)

    run(test)


def test_trap_6_a_payload_bomb_is_cut_off_before_it_is_held():
    bomb = 200 * 2**20
    sent = 0

    def script(wire: Wire, number: int) -> None:
        nonlocal sent
        wire.let_in()
        if number > 1:
            while True:
                wire.puback(wire.until(PUBLISH))
        wire.send(bytes([PUBLISH]) + varint(bomb + 4) + b"\0\x01t\0")
        for _ in range(bomb // 65536):
            wire.send(bytes(65536))
            sent += 65536

    async def test() -> None:
        with Hostile(script) as broker:
            link = MqttLink(settings(broker), client_id="d")
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            running = asyncio.create_task(link.run())
            await eventually_async(lambda: broker.connections > 1)
            await asyncio.wait_for(link.connected(), 10)
            await link.publish("t", b"alive")
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert sent < 20 * 2**20
        assert grown < 10 * 1024, f"grown by {grown} KiB"

    run(test)


def test_connect_says_how_much_we_take_and_that_the_session_shall_live():
    seen: list[bytes] = []

    def script(wire: Wire, _: int) -> None:
        seen.append(wire.let_in())
        wire.until(PUBLISH)

    async def test() -> None:
        with Hostile(script) as broker:
            limits = settings(broker, packet_bytes_max=300_000)
            async with standing(limits, client_id="pump-7", will=("s", b"gone")):
                pass

    run(test)
    (body,) = seen
    assert not body[7] & 0x02, "a clean start would drop what waits for us"
    assert body[7] & 0x3C == 0x2C, "will, QoS 1, retained"
    assert b"\x11" + struct.pack("!I", 7 * 86400) in body, "session expiry"
    assert b"\x21" + struct.pack("!H", 16) in body, "receive maximum"
    assert b"\x27" + struct.pack("!I", 300_000) in body, "maximum packet size"
    assert b"pump-7" in body


def test_a_refused_subscription_is_said_and_the_link_stands():
    def script(wire: Wire, _: int) -> None:
        wire.let_in()
        wire.subscribed(0x87, 1)
        wire.until(PUBLISH)

    async def test() -> None:
        with Hostile(script) as broker:
            async with standing(settings(broker), subscriptions=["no", "yes"]) as link:
                assert "refused the subscription to no (Not authorized)" in link.trouble()

    run(test)


def test_three_takeovers_end_the_fight_and_name_the_id():
    def script(wire: Wire, _: int) -> None:
        wire.let_in()
        wire.send(packet(0xE0, b"\x8e\0"))
        wire.packet()

    async def test() -> None:
        with Hostile(script) as broker:
            link = MqttLink(settings(broker), client_id="pump-7")
            running = asyncio.create_task(link.run())
            await eventually_async(lambda: "another client uses" in link.trouble(), 15)
            assert "pump-7" in link.trouble()
            assert broker.connections == 3
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run(test)


def test_a_broker_that_never_answers_connect_is_left():
    """The deadline itself is told by the injected clock, so that nobody waits for it."""
    now = 0.0

    def script(wire: Wire, _: int) -> None:
        nonlocal now
        wire.packet()
        now += 11
        wire.packet()

    async def test() -> None:
        nonlocal now
        with Hostile(script) as broker:
            link = MqttLink(settings(broker), client_id="d", clock=lambda: now)
            running = asyncio.create_task(link.run())
            await eventually_async(lambda: "does not answer" in link.trouble())
            running.cancel()
            now += 100
            await asyncio.gather(running, return_exceptions=True)

    run(test)


def test_messages_flood_only_as_far_as_the_inbox_and_nothing_acknowledged_is_lost():
    """MQTT 3.1.1 has no Receive Maximum: what we cannot hold comes again on a new connection."""
    total = 600
    acked: set[int] = set()

    def script(wire: Wire, _: int) -> None:
        wire.let_in(session=True)
        wire.subscribed()
        left = [i for i in range(1, total + 1) if i not in acked]
        wire.send(b"".join(publish(b"a", b"%d" % i, mid=i, properties=None) for i in left))
        while True:
            acked.add(int.from_bytes(wire.until(PUBACK)[:2]))

    async def test() -> None:
        with Hostile(script) as broker:
            old = Mqtt(url=broker.url, version=4, reconnect_s_max=1)
            async with standing(old, subscriptions=["a"]) as link:
                got: set[bytes] = set()

                async def consume() -> None:
                    async for message in link.messages():
                        got.add(message.payload)
                        if len(got) == total:
                            return

                await asyncio.sleep(0.3)  # the flood comes before anybody reads
                await asyncio.wait_for(consume(), 30)
                assert broker.connections > 1

    run(test)


def test_answers_can_be_published_while_messages_are_handled():
    async def test() -> None:
        def script(wire: Wire, _: int) -> None:
            wire.let_in()
            wire.subscribed()
            wire.send(b"".join(publish(b"a", b"%d" % i, mid=i) for i in range(1, 17)))
            while True:
                wire.puback(wire.until(PUBLISH))

        with Hostile(script) as broker:
            async with standing(settings(broker), subscriptions=["a"]) as link:
                number = 0
                async for message in link.messages():
                    await asyncio.wait_for(link.publish("answer", message.payload), 5)
                    number += 1
                    if number == 16:
                        break

    run(test)


def test_a_response_topic_comes_with_its_correlation():
    async def test() -> None:
        properties = b"\x08\0\x05reply\x09\0\x03\0c\xff"

        def script(wire: Wire, _: int) -> None:
            wire.let_in()
            wire.subscribed()
            wire.send(publish(b"a", b"x", properties=properties))
            wire.packet()

        with Hostile(script) as broker:
            async with standing(settings(broker), subscriptions=["a"]) as link:
                (message,) = await take(link, 1)
                assert (message.response_topic, message.correlation) == ("reply", b"\0c\xff")

    run(test)
