"""IoT Core's dialect where IoT Core is in a bad mood."""

import asyncio
import json

import pytest

from agent.core.errors import UnavailableError
from tests.contract.test_control import device, report, run, wish
from tests.world.control_sides import AwsSide
from tests.world.iot_core import THING
from tests.world.waiting import eventually_async


@pytest.fixture
def side(tmp_path):
    with AwsSide(tmp_path) as side:
        yield side


def committed(name, release, revision):
    document = report(**{name: "Healthy"})
    document["revision"] = revision
    document["models"][name] |= {"phase": "steady", "known_good": {"release": release}}
    return document


def test_a_job_is_written_into_the_shadow_beside_what_is_there(side):
    """[aws-3.1]"""

    async def test():
        side.desire(wish(3, other=1))
        async with device(side) as one:
            await one.wished(wish(3, other=1))
            side.core.create_job(
                "j", {"models": {"m": {"release": 7, "stream": "s", "rollout": {}}}}
            )
            await one.wished(wish(4, other=1, m=7))
            await one.report(committed("m", 7, 4))
            await eventually_async(lambda: side.core.status("j") == "SUCCEEDED")
            assert [status for _, status, _ in side.core.updates] == ["IN_PROGRESS", "SUCCEEDED"]

    run(test)


def test_a_job_survives_a_restart_of_the_agent_and_is_done_once(side):
    """[aws-3.5]"""

    async def test():
        async with device(side) as one:
            side.core.create_job("j", {"models": {"m": {"release": 7, "stream": "s"}}})
            await eventually_async(lambda: one.desired)
        revision = side.core.desired["revision"]
        async with device(side) as one:
            await eventually_async(lambda: one.desired)
            await eventually_async(lambda: one.link.jobs.current is not None)
            await one.report(committed("m", 7, revision))
            await eventually_async(lambda: side.core.status("j") == "SUCCEEDED")
            assert side.core.desired["revision"] == revision

    run(test)


def test_somebody_who_was_faster_at_the_shadow_loses_nothing(side):
    """[aws-2.3]"""

    async def test():
        side.desire(wish(1, a=1))
        async with device(side) as one:
            await one.wished(wish(1, a=1))
            core = side.core
            for n in range(2, 8):  # changes and a job at the same moment
                core.desire({"models": {"a": {"release": n}}})
                core.create_job(f"j{n}", {"models": {"m": {"release": n, "stream": "s"}}})
                await eventually_async(
                    lambda n=n: core.desired["models"].get("m", {}).get("release") == n
                )
                assert core.desired["models"]["a"]["release"] == n
                await eventually_async(lambda: one.desired[-1].revision == core.desired["revision"])
                await one.report(committed("m", n, core.desired["revision"]))
                await eventually_async(lambda n=n: core.status(f"j{n}") == "SUCCEEDED")

    run(test)


def test_a_late_word_that_nothing_is_next_ends_no_job(side):
    """Notifications may overtake each other: what is really next is asked."""

    async def test():
        async with device(side) as one:
            side.core.create_job("j", {"models": {"m": {"release": 7, "stream": "s"}}})
            await one.wished(wish(1, m=7))
            side.core.say(f"$aws/things/{THING}/jobs/notify-next", {"timestamp": 1})
            side.desire(wish(2, m=7, a=1))  # told after it, so that it was heard
            await one.wished(wish(2, m=7, a=1))
            await one.report(committed("m", 7, 2))
            await eventually_async(lambda: side.core.status("j") == "SUCCEEDED")

    run(test)


def test_a_shadow_that_throttles_is_read_and_told_again(side):
    async def test():
        async with device(side) as one:
            await one.report(report(m="Healthy"))
            side.core.throttled = 1
            raw = json.dumps(report(m="Failed")).encode()
            with pytest.raises(UnavailableError, match="429"):
                await one.link.publish(side.topics.reported, raw)
            await one.report(report(m="Failed"))
            assert side.reported()["models"]["m"]["state"] == "Failed"

    run(test)


def test_commands_that_come_twice_have_one_id(side):
    """[aws-1.2]"""

    async def test():
        async with device(side) as one:
            for n in range(8):
                side.core.say(
                    side.topics.command("ping"), {"id": f"p{n}", "expires": 4e9, "args": {}}
                )
            await eventually_async(lambda: len({b["id"] for _, b in one.commands}) == 8)
            assert len(one.commands) > 8  # without DUP: who obeys them goes by the id
            await asyncio.sleep(0)

    run(test)


def test_a_job_written_against_an_old_shadow_is_written_anew_with_the_next_revision(side):
    """[aws-2.3]"""

    async def test():
        side.desire(wish(1, a=1))
        async with device(side) as one:
            await one.wished(wish(1, a=1))
            side.core.mute = True  # somebody changes it, and the delta is lost
            side.desire(wish(20, a=2))
            side.core.mute = False
            side.core.create_job(
                "j", {"models": {"m": {"release": 7, "stream": "s", "rollout": {}}}}
            )
            await one.wished(wish(21, a=2, m=7))

    run(test)


def test_a_delta_that_is_late_changes_nothing(side):
    """[aws-2.1]"""

    async def test():
        async with device(side) as one:
            for revision in (1, 2):
                side.desire(wish(revision, m=revision))
                await one.wished(wish(revision, m=revision))
            late = {"state": wish(1, m=1), "version": side.core.version - 1}
            side.core.say(f"{side.core._here}/update/delta", late)
            side.desire(wish(3, m=3))
            await one.wished(wish(3, m=3))
            assert [d.revision for d in one.desired] == sorted(d.revision for d in one.desired)

    run(test)
