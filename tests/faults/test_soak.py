"""Whatever may go wrong goes wrong at random instants; both ends of the stream say what came of it.

`SOAK_S` is for how many seconds (`make soak`); `SOAK_SEED` tells a story again.
"""

import json
import os
import random

import pytest

from tests.world import rollout_story, turning
from tests.world.broker import Broker
from tests.world.proxy import Proxy
from tests.world.site import Site
from tests.world.storm import RATE, Storm, Tap

FAULTS = (
    "kill_agent",
    "kill_worker",
    "stop_worker",
    "cut_link",
    "black_hole",
    "restart_broker",
    "wipe_broker",
    "deploy_good",
    "deploy_good",
    "deploy_bad",
    "deploy_bad",
    "pause",
    "resume",
    "roll_back",
)
SOAK_S = float(os.environ.get("SOAK_S", "120"))
KILLS = int(os.environ.get("SOAK_KILLS", "500"))
NEVER_CONDEMNED = {"deaths_s": 0.001}  # we are to blame for these deaths, not the version


def weather(folder, faults, **how):
    """A storm over a device; prints its seed and its figures."""
    seed = int(os.environ.get("SOAK_SEED") or random.SystemRandom().randrange(2**32))
    print(f"seed {seed}", flush=True)
    with Broker(persistent=True) as broker, Proxy(broker.port) as proxy:
        through = {"url": f"mqtt://127.0.0.1:{proxy.port}", "reconnect_s_max": 1.0}
        with Site(broker, folder, mqtt=through, engine=NEVER_CONDEMNED) as site:
            site.start()
            site.deploy(turning.counting(folder / "v1", name="m"), rollout=rollout_story.AT_ONCE)
            with Tap(broker.port, RATE) as tap:
                storm = Storm(site, broker, proxy, tap, dice=random.Random(seed), faults=faults)
                storm.blow(**how)
                print(json.dumps({"seed": seed, **storm.over()}), flush=True)


@pytest.mark.timeout(300)
def test_whatever_may_go_wrong_for_a_moment(tmp_path):
    """[delivery-1.3] [rollout-1.4]"""
    weather(tmp_path, FAULTS, seconds=12, pause_s=(0.2, 1.5))


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_whatever_may_go_wrong_for_long(tmp_path):
    weather(tmp_path, FAULTS, seconds=SOAK_S, pause_s=(2.0, 10.0))


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_five_hundred_kills_with_rollouts_under_way(tmp_path):
    kills = ("kill_agent",) * 2 + ("kill_in_phase",) * 4
    deploys = ("deploy_good", "deploy_bad", "deploy_bad_at_rest", "deploy_bad_at_rest")
    weather(tmp_path, kills + deploys, count=KILLS * 5 // 3, pause_s=(0.0, 2.0))
