"""What every dialect of control keeps to: the same documents in and out, whatever is between."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from agent.core.errors import RefusedError, UnavailableError
from agent.core.wire import answer, parse_desired
from tests.world.control_sides import AwsSide, AzureSide, NativeSide
from tests.world.waiting import eventually_async

SIDES = {"native": NativeSide, "azure": AzureSide, "aws": AwsSide}
LONG = "x" * 6000


@pytest.fixture(params=SIDES)
def side(request, tmp_path):
    with SIDES[request.param](tmp_path) as side:
        yield side


def wish(revision, **models):
    return {
        "schema": 1,
        "revision": revision,
        "models": {
            name.replace("_", "."): {"release": release, "stream": "s", "rollout": {}}
            for name, release in models.items()
        },
    }


def report(**models):
    return {
        "schema": 1,
        "device": "dev-1",
        "revision": 1,
        "why": "",
        "ready": True,
        "models": {
            name.replace("_", "."): {"state": state, "active": {"release": 1}}
            for name, state in models.items()
        },
    }


class Device:
    """A link that runs, and what came over it; commands are answered with their arguments."""

    def __init__(self, side):
        self.link, self.topics = side.link(), side.topics
        self.desired, self.commands = [], []

    async def hear(self):
        async for message in self.link.messages():
            if message.topic == self.topics.desired:
                self.desired.append(parse_desired(message.payload))
            elif message.topic.startswith(self.topics.command("")):
                body = json.loads(message.payload)
                self.commands.append((message.topic.rpartition("/")[2], body))
                topic = message.response_topic or self.topics.answer(body["id"])
                code = body["args"].get("code", 200)
                told = answer(body["id"], code=code, seen=body["args"])
                await self.link.publish(topic, told, correlation=message.correlation)

    async def wished(self, document):
        """Until `document` is what is desired."""
        want = parse_desired(json.dumps(document).encode())
        await eventually_async(lambda: self.desired[-1:] == [want], 20, f"{want}, {self.desired}")

    async def report(self, document):
        """As the reporter does: until it is taken."""
        raw = json.dumps(document).encode()
        for _ in range(100):
            try:
                return await self.link.publish(self.topics.reported, raw, retain=True)
            except UnavailableError:
                await asyncio.sleep(0.1)
        raise AssertionError("never reported")


@asynccontextmanager
async def device(side):
    made = Device(side)
    tasks = [asyncio.create_task(made.link.run()), asyncio.create_task(made.hear())]
    try:
        await asyncio.wait_for(made.link.connected(), 15)
        yield made
    finally:
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in done), done


def run(test):
    asyncio.run(asyncio.wait_for(test(), 60))


def test_what_is_desired_arrives_as_it_was_wished_then_and_later(side):
    async def test():
        async with device(side) as one:
            for document in (wish(1, m=7), wish(2, m=7, with_dot=3), wish(3, with_dot=3), wish(4)):
                side.desire(document)
                await one.wished(document)
        side.desire(wish(5, m=8))
        async with device(side) as one:  # wished while it was away
            await one.wished(wish(5, m=8))

    run(test)


def test_what_is_reported_is_what_the_cloud_sees_and_nothing_of_before(side):
    async def test():
        async with device(side) as one:
            await one.report(report(m="Healthy", with_dot="Failed"))
            await eventually_async(lambda: len((side.reported() or {}).get("models", {})) == 2)
            assert side.reported()["models"]["m"] == {"state": "Healthy", "active": {"release": 1}}
            await one.report(report(m="Unhealthy"))
            await eventually_async(lambda: list(side.reported()["models"]) == ["m"])
            assert side.reported()["models"]["m"]["state"] == "Unhealthy"
        async with device(side) as one:
            await one.report(report(n="Healthy"))
            await eventually_async(lambda: list(side.reported()["models"]) == ["n"])
            assert side.reported()["ready"] is True

    run(test)


def test_a_report_that_is_too_much_for_the_plane_is_shortened_and_not_lost(side):
    async def test():
        async with device(side) as one:
            large = report(**{f"m{n}": LONG for n in range(40)})
            for model in large["models"].values():
                model["receipt"] = {"why": LONG}
            await one.report(large)
            await eventually_async(lambda: (side.reported() or {}).get("device") == "dev-1")
            await one.report(report(m="Healthy"))
            await eventually_async(lambda: list(side.reported()["models"]) == ["m"])

    run(test)


def test_a_command_is_answered_with_its_code(side):
    async def test():
        async with device(side) as one:
            got = await asyncio.to_thread(side.command, "ping", {"a": [1, {"b": "ü"}]})
            assert (got["code"], got["seen"]) == (200, {"a": [1, {"b": "ü"}]})
            got = await asyncio.to_thread(side.command, "retry", {"model": "m", "code": 404})
            assert got["code"] == 404
            assert [name for name, _ in one.commands] == ["ping", "retry"]
            assert all(body["id"] and body["expires"] for _, body in one.commands)

    run(test)


def test_scores_arrive_whole_and_in_order_however_many_a_batch_has(side):
    """[azure-5.3]"""

    async def test():
        rows = 20_000
        body = {
            "schema": 1,
            "model": "m",
            "release": 1,
            "stream": "s",
            "epoch": 1,
            "seq": 10,
            "key": [f"k{n}" for n in range(rows)],
            "time": [float(n) for n in range(rows)],
            "score": [n / 7 for n in range(rows)],
        }
        async with device(side) as one:
            await one.link.publish(side.topics.scores("m"), json.dumps(body).encode())
            await one.link.publish(side.topics.events, b'{"schema": 1, "type": "swap"}')
            await eventually_async(lambda: side.events, 20)
        assert [d["seq"] for d in side.scores] == sorted(d["seq"] for d in side.scores)
        at = 10
        for document in side.scores:
            assert document["seq"] == at
            at += len(document["key"])
        assert [s for d in side.scores for s in d["score"]] == body["score"]
        assert [k for d in side.scores for k in d["key"]] == body["key"]
        assert (len(side.scores) > 1) == (side.bytes_max is not None)

    run(test)


def test_what_can_never_be_sent_is_refused_and_the_link_lives(side):
    if side.bytes_max is None:
        pytest.skip("this broker has no limit of its own")

    async def test():
        async with device(side) as one:
            with pytest.raises(RefusedError) as refused:
                await one.link.publish(side.topics.events, b"x" * (side.bytes_max + 1))
            assert refused.value.code == 413
            with pytest.raises(RefusedError):
                await one.link.publish("somewhere/else", b"x")
            await one.link.publish(side.topics.events, b'{"type": "swap"}')
            await eventually_async(lambda: side.events)

    run(test)


def test_after_the_plane_was_away_both_sides_know_the_same_again(side):
    async def test():
        async with device(side) as one:
            side.desire(wish(1, m=1))
            await one.wished(wish(1, m=1))
            await one.report(report(m="Healthy"))
            for revision in (2, 3):
                await asyncio.to_thread(side.restart)
                side.desire(wish(revision, m=revision))
                await one.wished(wish(revision, m=revision))
                await one.report(report(**{f"m{revision}": "Healthy"}))
                await eventually_async(
                    lambda revision=revision: list(side.reported()["models"]) == [f"m{revision}"]
                )

    run(test)


def test_without_a_link_nothing_is_taken_and_it_says_why(side):
    async def test():
        link = side.link()
        assert link.trouble()
        for topic in (side.topics.reported, side.topics.events, side.topics.scores("m")):
            with pytest.raises(UnavailableError):
                await link.publish(topic, b'{"seq": 0, "key": []}')

    run(test)
