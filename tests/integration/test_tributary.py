"""Streams that share the control connection: everything once, in order, whatever breaks."""

import asyncio
import base64
import json

import pytest

from agent.adapters.azure import HubLogin, HubTopics, Identity
from agent.adapters.mqtt.link import MqttLink
from agent.adapters.mqtt.tributary import Tributary
from agent.config import Mqtt
from tests.contract.test_control import run
from tests.world.control_sides import AzureSide
from tests.world.edge_hub import DEVICE, HUB, MODULE
from tests.world.waiting import eventually_async


@pytest.fixture
def side(tmp_path):
    with AzureSide(tmp_path) as side:
        yield side


def by_connection_string(side):
    """As a developer's module: with a key, and a file of authorities."""
    key = base64.b64encode(side.hub.workload.key).decode()
    who = f"HostName={HUB};DeviceId={DEVICE};ModuleId={MODULE};GatewayHostName=127.0.0.1"
    identity = Identity.of_connection_string(f"{who};SharedAccessKey={key}")
    pem = side.hub.certificates.ca_file.read_text()
    return identity, HubLogin(identity, life_s=3600, authorities_pem=pem)


class Counting(Tributary):
    """Tells how many messages it was shown."""

    seen = 0

    def took(self, message, epoch, mid):
        took = super().took(message, epoch, mid)
        self.seen += took
        return took


class Reader:
    """A link with one stream, read as the lane would."""

    def __init__(self, side, mark=None, **more):
        identity, login = by_connection_string(side)
        self.outputs = HubTopics(identity)
        topic = self.outputs.input("in1")
        self.source = Counting("s", topic, named=self.outputs.named, **more)
        if mark:
            self.source.resume(mark)
        settings = Mqtt(
            url=f"mqtts://127.0.0.1:{side.hub.port}",
            username=identity.username,
            version=4,
            reconnect_s_max=1,
        )
        self.link = MqttLink(
            settings,
            client_id=identity.client_id,
            subscriptions=self.outputs.subscriptions,
            login=login,
            retains=False,
            taps=[self.source],
        )
        self.got, self.open, self.mark = [], [], None

    async def __aenter__(self):
        self.task = asyncio.create_task(self.link.run())
        await asyncio.wait_for(self.link.connected(), 15)
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.source.close()

    def read(self, number=1000):
        for burst in self.source.read(number):
            self.got += [json.loads(payload) for payload in burst.payloads]
            assert all(topic == f"in1/{DEVICE}/sensor".encode() for topic in burst.topics)
            self.open.append(burst)

    def accept(self):
        self.source.accept([burst.token for burst in self.open])
        if self.open:
            self.mark = self.open[-1].mark
        self.open.clear()

    async def until(self, numbers, seconds=20):
        def done():
            self.read()
            self.accept()
            return len(self.got) >= numbers

        await eventually_async(done, seconds, f"{len(self.got)} of {numbers}")


def send(side, first, last):
    side.hub.send("in1", [json.dumps(n).encode() for n in range(first, last)])


def test_more_than_can_be_held_is_asked_for_again_and_comes_in_order(side):
    async def test():
        async with Reader(side, held_max=10) as one:
            send(side, 0, 50)
            await eventually_async(lambda: one.source.seen == 50)
            one.read(5)  # now there is room, and what comes next must not take it
            send(side, 50, 60)
            await eventually_async(lambda: one.source.seen == 60)
            await one.until(60)
            assert one.got == list(range(60))
            assert side.hub.connections > 1

    run(test)


def test_what_was_read_and_not_accepted_comes_again_to_nobody_twice(side):
    async def test():
        async with Reader(side) as one:
            send(side, 0, 20)
            await eventually_async(lambda: one.read() or len(one.got) == 20)
            half = one.open[: len(one.open) // 2]
            one.source.accept([burst.token for burst in half])
            number = await one.link.fresh(0)
            side.hub.drop()
            await one.link.fresh(number)
            send(side, 20, 30)
            await eventually_async(lambda: one.read() or len(one.got) >= 30)
            one.accept()
            await one.until(30)
            assert one.got == list(range(30))

    run(test)


def test_an_acknowledgement_that_was_lost_on_the_way_costs_no_second_reading(side):
    """[azure-5.1]"""

    async def test():
        async with Reader(side) as one:
            side.hub.loses_acks = True
            send(side, 0, 20)
            await one.until(20)
            number = await one.link.fresh(0)
            side.hub.drop()
            side.hub.loses_acks = False
            await one.link.fresh(number)
            send(side, 20, 25)
            await one.until(25)
            assert one.got == list(range(25))

    run(test)


def test_a_new_process_with_the_mark_takes_only_what_was_not_accounted_for(side):
    async def test():
        async with Reader(side) as one:
            send(side, 0, 20)
            await eventually_async(lambda: one.read() or len(one.got) == 20)
            mark = one.open[-1].mark  # stored with the scores; and then the power goes
        async with Reader(side, mark) as two:
            send(side, 20, 25)
            await two.until(5)
            assert two.got == list(range(20, 25))
        async with Reader(side, two.mark) as three:
            send(side, 25, 26)
            await three.until(1)
            assert three.got == [25]

    run(test)


def test_an_input_that_no_stream_wants_is_acknowledged_and_left(side):
    async def test():
        async with Reader(side) as one:
            side.hub.send("other", [b"1", b"2"])
            send(side, 0, 3)
            await one.until(3)
            async for message in one.link.messages():
                assert "/inputs/other/" in message.topic
                if message.payload == b"2":
                    break

    run(test)
