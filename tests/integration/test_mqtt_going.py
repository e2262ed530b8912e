"""How a link ends says whether the broker is away for all, or we are cut off."""

import time
from contextlib import closing

import pytest

from agent.adapters.mqtt.connection import Connection
from agent.adapters.mqtt.options import Options
from agent.config import Mqtt
from tests.world.proxy import Proxy
from tests.world.waiting import eventually


class Line:
    """One connection, turned by hand."""

    def __init__(self, url):
        self.connection = Connection(
            Options(Mqtt(url=url), "d", receive_max=1),
            greeting=[],
            subscriptions=["a"],
            window=1,
            inbox=lambda *_: None,
            clock=time.monotonic,
        )

    def turned(self):
        if self.connection.client.socket() is not None:
            self.connection.read()
            self.connection.write()
            self.connection.tick()
        return self.connection

    def close(self):
        self.connection.close("")


@pytest.mark.parametrize(("how", "is_going"), [("stop", True), ("kill", True), ("cut", False)])
def test_a_broker_that_ends_is_told_from_a_link_that_was_cut(broker, how, is_going):
    """[delivery-6.5] [delivery-6.7] Mosquitto hangs up; the system does for a killed one."""
    with Proxy(broker.port) as proxy:
        port = proxy.port if how == "cut" else broker.port
        with closing(Line(f"mqtt://127.0.0.1:{port}")) as line:
            eventually(lambda: line.turned().is_up)
            {"stop": broker.stop, "kill": broker.kill, "cut": proxy.cut}[how]()
            eventually(lambda: line.turned().over)
            assert line.connection.going == is_going
