"""The hub's dialect where the hub is in a bad mood."""

import asyncio
import json
import threading

import pytest

from agent.adapters.azure.identity import Identity
from agent.adapters.azure.tokens import HubLogin
from agent.adapters.azure.workload import Workload
from agent.core.errors import UnavailableError
from tests.contract.test_control import device, report, run, wish
from tests.world import workload as world
from tests.world.control_sides import AzureSide
from tests.world.edge_hub import DEVICE, HUB, MODULE
from tests.world.waiting import eventually, eventually_async


@pytest.fixture
def side(tmp_path):
    with AzureSide(tmp_path) as side:
        yield side


@pytest.fixture
def daemon():
    with world.Workload(MODULE, bundle="-----BEGIN CERTIFICATE-----\nx") as daemon:
        yield daemon


def identity(daemon):
    return Identity(
        hub=HUB,
        device=DEVICE,
        module=MODULE,
        gateway="127.0.0.1",
        workload=daemon.uri,
        generation=daemon.generation,
    )


# ---- the workload API ----------------------------------------------------------------------------


def test_whoever_is_hung_up_on_asks_again(daemon):
    """[azure-1.4]"""
    daemon.until = lambda: daemon.hung_up > 0
    client, got = Workload(identity(daemon)), []
    threads = [
        threading.Thread(target=lambda n=n: got.append(client.sign(b"%d" % n))) for n in range(14)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(got) == 14
    assert daemon.hung_up > 0
    assert daemon.sign(b"3") in got


def test_a_daemon_that_says_no_or_is_not_there_is_weather_in_a_sentence(daemon):
    daemon.failing = True
    with pytest.raises(UnavailableError, match="500: the key service is not there"):
        Workload(identity(daemon)).sign(b"x")
    gone = Identity(hub=HUB, device=DEVICE, module=MODULE, gateway="g", workload="unix:///no.sock")
    with pytest.raises(UnavailableError, match=r"/no\.sock does not answer"):
        HubLogin(gone, life_s=60).password()


def test_a_trust_bundle_may_be_plain_or_in_base64(daemon):
    client = Workload(identity(daemon))
    assert client.trust_bundle().startswith("-----BEGIN")
    daemon.bundle = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCng="
    assert client.trust_bundle().startswith("-----BEGIN")
    daemon.bundle = "neither nor"
    with pytest.raises(UnavailableError, match="no PEM"):
        client.trust_bundle()


# ---- the twin ------------------------------------------------------------------------------------


def test_a_change_that_was_lost_is_found_by_the_next_one(side):
    """[azure-2.2]"""

    async def test():
        async with device(side) as one:
            side.desire(wish(1, m=1))
            await one.wished(wish(1, m=1))
            before = one.link.rereads
            side.hub.desire({"revision": 2, "models": {"m": {"release": 2}}}, lost=True)
            side.hub.desire({"unrelated": 1})
            await one.wished(wish(2, m=2))
            assert one.link.rereads == before + 1

    run(test)


def test_a_hub_that_throttles_is_asked_again(side):
    async def test():
        side.hub.throttled = 2
        async with device(side) as one:
            await eventually_async(lambda: "429" in one.link.trouble())
            with pytest.raises(UnavailableError, match="not been read"):
                await one.link.publish(side.topics.reported, b'{"models": {}}')
            await one.report(report(m="Healthy"))
            assert one.link.trouble() == ""
            side.hub.throttled = 1
            raw = json.dumps(report(m="Failed")).encode()
            with pytest.raises(UnavailableError, match="429"):
                await one.link.publish(side.topics.reported, raw)
            await one.report(report(m="Failed"))
            assert side.reported()["models"]["m"]["state"] == "Failed"

    run(test)


def test_only_what_changed_is_patched(side):
    async def test():
        async with device(side) as one:
            await one.report(report(m="Healthy", n="Healthy"))
            await one.report(report(m="Failed", n="Healthy"))
            assert side.hub.patches[-1] == {"models": {"m": {"state": "Failed"}}}
            await one.report(report(n="Healthy"))
            assert side.hub.patches[-1] == {"models": {"m": None}}

    run(test)


# ---- methods and tokens --------------------------------------------------------------------------


def test_a_method_that_is_delivered_twice_keeps_its_id(side):
    """[azure-4.1]"""

    async def test():
        async with device(side) as one:
            for _ in range(2):
                got = await asyncio.to_thread(side.hub.call, "ping", {"a": 1}, rid="same")
                assert got[0] == 200
            assert len({body["id"] for _, body in one.commands}) == 1

    run(test)


def test_tokens_are_renewed_before_they_end_and_nothing_is_refused(side):
    async def test():
        async with device(side) as one:
            await one.report(report(m="Healthy"))
            eventually_tokens = lambda: len(set(side.hub.passwords)) >= 3  # noqa: E731
            sent = 0
            while not eventually_tokens():
                try:
                    await one.link.publish(side.topics.events, b'{"n": %d}' % sent)
                    sent += 1
                except UnavailableError:
                    await asyncio.sleep(0.01)
            await eventually_async(lambda: {d["n"] for d in side.events} == set(range(sent)))
        assert (side.hub.refused, side.hub.overstayed) == (0, 0)

    make = side.link
    side.link = lambda: make(life_s=3.0)
    run(test)


def test_a_second_one_with_the_same_identity_throws_the_first_out(side):
    async def test():
        async with device(side) as one:
            number = await one.link._line.fresh(0)
            async with device(side):
                await asyncio.wait_for(one.link._line.fresh(number), 20)

    run(test)
    eventually(lambda: not side.hub.is_connected)
