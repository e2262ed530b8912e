"""Pins every private name of paho that we touch: when one of these fails, look at the new paho.

Where each is used: guarded.py (reading limits, sockets), feed.py (feeding packets, writing).
"""

import inspect
import ssl

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from agent.adapters.mqtt.feed import Feed
from agent.adapters.mqtt.guarded import Guarded
from tests.world.hostile import PUBLISH, Hostile, Wire
from tests.world.waiting import eventually

CALLED = {
    "_sock_recv": ["self", "bufsize"],
    "_create_socket": ["self"],
    "_create_socket_connection": ["self"],
    "_ssl_wrap_socket": ["self", "tcp_sock"],
    "_packet_handle": ["self"],
    "_packet_queue": ["self", "command", "packet", "mid", "qos", "info"],
    "_send_pingreq": ["self"],
    "_handle_pingresp": ["self"],
    "_handle_pubackcomp": ["self", "cmd"],
}
IN_PACKET = {
    "command",
    "have_remaining",
    "remaining_count",
    "remaining_mult",
    "remaining_length",
    "packet",
    "to_process",
    "pos",
}


@pytest.fixture
def client() -> Feed:
    return Feed(CallbackAPIVersion.VERSION2, client_id="d", protocol=MQTTProtocolVersion.MQTTv5)


@pytest.mark.parametrize(("name", "parameters"), CALLED.items())
def test_private_methods_have_the_parameters_we_know(name, parameters):
    assert list(inspect.signature(getattr(paho.Client, name)).parameters) == parameters


def test_private_state_is_where_we_know_it(client):
    assert set(client._in_packet) == IN_PACKET
    assert isinstance(client._last_bytes_received, float)
    with client._msgtime_mutex:
        pass
    assert client._ssl_context is None
    client.tls_set_context(ssl.create_default_context())
    assert isinstance(client._ssl_context, ssl.SSLContext)


def test_overridden_private_methods_are_the_ones_paho_calls():
    read = inspect.getsource(paho.Client._packet_read)
    assert "self._sock_recv(" in read
    assert read.index("_in_packet['have_remaining'] = 1") < read.index("to_process'])")
    assert "self._create_socket()" in inspect.getsource(paho.Client.reconnect)
    create = inspect.getsource(paho.Client._create_socket)
    assert "self._create_socket_connection()" in create
    assert "self._ssl_wrap_socket(" in create
    assert "self._send_pingreq()" in inspect.getsource(paho.Client._check_keepalive)
    handle = inspect.getsource(paho.Client._packet_handle)
    assert "self._handle_pingresp()" in handle
    assert 'self._handle_pubackcomp("PUBACK")' in handle
    acknowledged = inspect.getsource(paho.Client._handle_pubackcomp).replace("'", '"')
    assert 'self._in_packet["packet"]' in acknowledged


def test_the_websocket_wrapper_keeps_a_frame_in_readbuffer():
    assert "self._readbuffer = bytearray()" in inspect.getsource(paho._WebsocketWrapper.__init__)


def test_packets_queued_in_bulk_go_out_as_they_are_and_at_once():
    seen: list[tuple[int, bytes]] = []

    def script(wire: Wire, _: int) -> None:
        wire.let_in()
        seen.extend(wire.packet() for _ in range(3))

    client = Feed(CallbackAPIVersion.VERSION2, client_id="d", protocol=MQTTProtocolVersion.MQTTv5)
    with Hostile(script) as broker:
        client.connect("127.0.0.1", broker.port)
        client.acknowledge([b"\0\x01", b"\0\x02"], [])
        eventually(lambda: len(seen) == 3)
        client.hang_up()
    assert seen == [(0x40, b"\0\x01"), (0x40, b"\0\x02"), (0xC0, b"")]


def test_the_guard_is_not_paho_asking_for_everything_at_once():
    assert "min(bufsize, CHUNK_BYTES_MAX)" in inspect.getsource(Guarded._sock_recv)
    assert PUBLISH == 0x30
