"""The fault proxy hurts as it says and changes nothing of what it carries."""

import os
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from tests.world.proxy import Proxy
from tests.world.waiting import eventually

QUIET_S = 0.2  # how long silence must last to count as such


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        try:
            while chunk := self.request.recv(65536):
                self.request.sendall(chunk)
        except ConnectionError:
            pass


class EchoServer(socketserver.ThreadingTCPServer):
    block_on_close = True
    request_queue_size = 64


@pytest.fixture
def echo_port() -> Iterator[int]:
    with EchoServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def proxy(echo_port: int) -> Iterator[Proxy]:
    with Proxy(echo_port) as running:
        yield running


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as connection:
        connection.sendall(b"hello")
        assert receive(connection, 5) == b"hello"
        eventually(lambda: proxy.bytes_down == 5)  # counted just after it was passed on
        yield connection


def receive(connection: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count and (chunk := connection.recv(count - len(got))):
        got += chunk
    return got


def echo(connection: socket.socket, sent: bytes) -> bytes:
    sender = threading.Thread(target=connection.sendall, args=(sent,))
    sender.start()
    got = receive(connection, len(sent))
    sender.join()
    return got


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(QUIET_S)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(5)
    return False


def test_a_healthy_proxy_carries_megabytes_unchanged(proxy, client):
    sent = os.urandom(3 * 2**20)
    assert echo(client, sent) == sent
    eventually(lambda: proxy.bytes_up == proxy.bytes_down == len(sent) + 5)


@pytest.mark.parametrize("piece_bytes", [1, 7, 1000])
def test_slicing_changes_no_byte_and_their_order(proxy, client, piece_bytes):
    proxy.slice(piece_bytes)
    sent = os.urandom(200 * piece_bytes)
    assert echo(client, sent) == sent


def test_a_sliced_packet_does_not_arrive_whole(proxy, client):
    proxy.slice(3)
    client.sendall(b"0123456789")
    assert len(client.recv(10)) <= 3


def test_a_cut_is_a_reset_and_the_next_connection_works(proxy, client):
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as again:
        assert echo(again, b"back") == b"back"
    assert proxy.cuts == 1


def test_a_polite_cut_is_an_end_of_stream(proxy, client):
    proxy.cut(reset=False)
    assert client.recv(1) == b""


def test_a_stall_is_silence_without_an_end_and_heals_without_loss(proxy, client):
    proxy.stall()
    client.sendall(b"into the dark")
    assert is_silent(client)
    proxy.heal()
    assert receive(client, 13) == b"into the dark"


def test_a_stall_hides_that_the_other_side_went_away(proxy, client):
    proxy.stall()
    client.shutdown(socket.SHUT_WR)
    assert is_silent(client)
    proxy.heal()
    assert client.recv(1) == b""


def test_it_cuts_after_exactly_so_many_bytes_and_only_once(proxy, client):
    before = proxy.bytes_up + proxy.bytes_down
    proxy.cut_after(1000)
    client.sendall(bytes(10_000))
    eventually(lambda: proxy.cuts, 5)
    assert proxy.bytes_up + proxy.bytes_down - before == 1000
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as again:
        assert echo(again, bytes(10_000)) == bytes(10_000)


def test_a_slow_link_is_as_slow_as_asked(proxy, client):
    proxy.slow(20_000)
    started = time.monotonic()
    assert echo(client, bytes(10_000)) == bytes(10_000)
    assert time.monotonic() - started >= 0.4  # 0.5 s at the rate, less the last piece's wait


def test_a_delay_is_felt_both_ways(proxy, client):
    proxy.delay(0.1)
    started = time.monotonic()
    assert echo(client, b"far") == b"far"
    assert time.monotonic() - started >= 0.2


def test_a_refused_server_is_gone_until_healed(proxy, client):
    proxy.refuse()
    with (
        pytest.raises(ConnectionError),
        socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as again,
    ):
        again.sendall(b"anyone?")
        assert again.recv(1) == b"never"
        raise AssertionError("somebody answered")
    proxy.heal()
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as again:
        assert echo(again, b"back") == b"back"


def test_leaving_the_block_leaves_no_connection_and_no_thread(echo_port):
    with Proxy(echo_port) as proxy:
        client = socket.create_connection(("127.0.0.1", proxy.port), timeout=5)
        eventually(lambda: proxy.connections)
        proxy.stall()
        client.sendall(b"held")
    with client, pytest.raises(ConnectionResetError):
        client.recv(1)
    assert "fault-proxy" not in {thread.name for thread in threading.enumerate()}
