"""What every link keeps to: `agent.ports.Link`."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.adapters.mqtt.link import MqttLink
from agent.config import Mqtt
from agent.core.errors import RefusedError, UnavailableError
from tests.world.broker import Broker, Certificates, Embedded, free_port
from tests.world.waiting import eventually_async

KINDS = ["mqtt-5", "mqtt-3", "mqtts-5", "ws-5", "embedded-5", "embedded-3"]


@pytest.fixture(params=KINDS)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mqtt]:
    scheme, level = request.param.split("-")
    version = 5 if level == "5" else 4
    if scheme == "embedded":
        with Embedded() as embedded:
            yield Mqtt(url=embedded.url_of(version), version=version, reconnect_s_max=1)
        return
    certificates = Certificates(tmp_path) if scheme == "mqtts" else None
    with Broker(tls=certificates, websockets=scheme == "ws") as broker:
        yield Mqtt(
            url=broker.ws_url if scheme == "ws" else broker.url,
            version=version,
            ca_file=str(certificates.ca_file) if certificates else "",
            reconnect_s_max=1,
        )


@asynccontextmanager
async def standing(settings: Mqtt, client_id: str = "d", **more):
    link = MqttLink(settings, client_id=client_id, **more)
    running = asyncio.create_task(link.run())
    try:
        await asyncio.wait_for(link.connected(), 10)
        yield link
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def take(link: MqttLink, number: int, seconds: float = 10) -> list:
    out = []

    async def consume() -> None:
        async for message in link.messages():
            out.append(message)
            if len(out) == number:
                return

    await asyncio.wait_for(consume(), seconds)
    return out


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


def test_a_published_message_reaches_who_subscribed_to_it(settings):
    async def test() -> None:
        async with (
            standing(settings, "one", subscriptions=["a/+"]) as one,
            standing(settings, "two") as two,
        ):
            await two.publish("a/x", b"hello")
            (message,) = await take(one, 1)
            assert (message.topic, message.payload, message.retain) == ("a/x", b"hello", False)

    run(test)


def test_many_messages_come_in_order_through_the_window(settings):
    async def test() -> None:
        async with standing(settings, subscriptions=["a"]) as link:
            sending = asyncio.gather(*(link.publish("a", b"%d" % i) for i in range(200)))
            got = await take(link, 200)
            await sending
            assert [m.payload for m in got] == [b"%d" % i for i in range(200)]

    run(test)


def test_a_retained_message_is_there_for_who_comes_later_and_says_that_it_is_old(settings):
    async def test() -> None:
        async with standing(settings, "one") as one:
            await one.publish("a/kept", b"v", retain=True)
        async with standing(settings, "two", subscriptions=["a/#"]) as two:
            (message,) = await take(two, 1)
            assert (message.payload, message.retain) == (b"v", True)

    run(test)


def test_what_is_published_at_connect_goes_out_first_and_the_goodbye_last(settings):
    async def test() -> None:
        async with standing(settings, "watcher", subscriptions=["d/status"]) as watcher:
            async with standing(
                settings,
                on_connect=lambda: [("d/status", b"on", True)],
                goodbye=("d/status", b"off"),
                will=("d/status", b"gone"),
            ):
                assert [m.payload for m in await take(watcher, 1)] == [b"on"]
            assert [m.payload for m in await take(watcher, 1)] == [b"off"]

    run(test)


def test_what_was_sent_while_we_were_away_is_waiting(settings):
    async def test() -> None:
        async with standing(settings, "sleeper", subscriptions=["a"]):
            pass
        async with standing(settings, "other") as other:
            await other.publish("a", b"you slept")
        async with standing(settings, "sleeper", subscriptions=["a"]) as sleeper:
            (message,) = await take(sleeper, 1)
            assert message.payload == b"you slept"

    run(test)


def test_a_message_whose_consumer_failed_comes_again_at_the_next_connect(settings):
    async def test() -> None:
        async with (
            standing(settings, subscriptions=["a"]) as link,
            standing(settings, "o") as other,
        ):
            await other.publish("a", b"1")
            await other.publish("a", b"2")
            with pytest.raises(ZeroDivisionError):
                async for message in link.messages():
                    if message.payload == b"2":
                        raise ZeroDivisionError
        async with standing(settings, subscriptions=["a"]) as link:
            assert [m.payload for m in await take(link, 1)] == [b"2"]

    run(test)


def test_a_topic_with_wildcards_is_refused_and_the_link_lives(settings):
    async def test() -> None:
        async with standing(settings) as link:
            with pytest.raises(RefusedError, match="wildcard"):
                await link.publish("a/+", b"")
            await link.publish("a/b", b"")

    run(test)


def test_without_a_link_publishing_fails_at_once_and_nothing_is_kept(settings):
    async def test() -> None:
        away = settings.model_copy(update={"url": f"mqtt://127.0.0.1:{free_port()}"})
        link = MqttLink(away, client_id="d")
        with pytest.raises(UnavailableError):
            await link.publish("a", b"")
        running = asyncio.create_task(link.run())
        await eventually_async(lambda: "nothing listens" in link.trouble())
        for _ in range(1000):
            with pytest.raises(UnavailableError, match="nothing listens"):
                await link.publish("a", b"x")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run(test)


def test_its_trouble_is_a_sentence_until_it_stands(settings):
    async def test() -> None:
        link = MqttLink(settings, client_id="d")
        assert link.trouble()
        running = asyncio.create_task(link.run())
        await link.connected()
        assert link.trouble() == ""
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert link.trouble()

    run(test)


def test_it_can_run_again_after_it_was_cancelled(settings):
    async def test() -> None:
        link = MqttLink(settings, client_id="d")
        for _ in range(2):
            running = asyncio.create_task(link.run())
            await asyncio.wait_for(link.connected(), 10)
            await link.publish("a", b"x")
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run(test)


def test_an_answer_carries_its_correlation_where_the_protocol_has_one(settings):
    async def test() -> None:
        async with standing(settings, subscriptions=["a"]) as link:
            await link.publish("a", b"x", correlation=b"\x00\xff")
            (message,) = await take(link, 1)
            assert message.correlation == (b"\x00\xff" if settings.version == 5 else None)

    run(test)
