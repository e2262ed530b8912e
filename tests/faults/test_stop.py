"""Told to stop at any moment of its start, the agent ends in order and at once."""

import signal
import subprocess

import pytest

from tests.world import zoo
from tests.world.site import Site
from tests.world.waiting import eventually

STOP_S_MAX = 10.0  # IoT Edge and Docker kill after ten, unless told otherwise


@pytest.mark.parametrize("moment", ["running", "mqtt_up"])
def test_an_agent_that_is_stopped_while_it_starts_ends(moment, broker, tmp_path):
    with Site(broker, tmp_path) as site:
        site.start()
        site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
        site.stop()
        (tmp_path / "agent.log").unlink()
        site.start()
        eventually(lambda: f'"event": "{moment}"' in site.log(), 20, moment)
        site.process.send_signal(signal.SIGTERM)
        try:
            assert site.process.wait(STOP_S_MAX) == 0
        except subprocess.TimeoutExpired:
            site.kill()
            pytest.fail(f"did not stop within {STOP_S_MAX:g} s:\n{site.log()[-2000:]}")
        site.process = None
