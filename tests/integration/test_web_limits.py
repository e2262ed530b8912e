"""Clients that are slow on purpose: the endpoint answers others, and does not grow."""

import gc
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from agent.adapters.web import WebFaces
from agent.adapters.web.door import CONNECTIONS_MAX, Door
from agent.config import Http
from agent.core.health import HealthReport, StreamHealth
from tests.world.asking import ask, raw, rest
from tests.world.waiting import eventually

READY = HealthReport("d", ready=True)
# So much that no socket buffer takes it whole.
LARGE = HealthReport(
    "d", ready=True, streams={f"s{n}": StreamHealth(trouble="x" * 1000) for n in range(9000)}
)


@contextmanager
def opened(door: Door) -> Iterator[WebFaces]:
    faces = WebFaces(Http(bind="127.0.0.1:0"), stale_s=300.0, door=door)
    faces.start()
    faces.show(READY)
    try:
        yield faces
    finally:
        faces.stop()


@pytest.fixture
def door() -> Door:
    return Door(request_s_max=0.5, write_s_max=0.5)


@pytest.fixture
def faces(door: Door) -> Iterator[WebFaces]:
    with opened(door) as faces:
        yield faces


def test_three_hundred_drippers_keep_nobody_waiting():
    """[http-4.11]"""
    door = Door()
    with (
        opened(door) as faces,
        subprocess.Popen(
            [sys.executable, "-m", "tests.world.dripper", str(faces.port), "300"],
            stdout=subprocess.PIPE,
            text=True,
        ) as drippers,
    ):
        try:
            assert drippers.stdout is not None
            assert drippers.stdout.readline() == "dripping\n"
            took = []
            for _ in range(50):
                began = time.monotonic()
                assert ask(faces.port, "/readyz").status == 200
                took.append(time.monotonic() - began)
                time.sleep(0.02)
            assert statistics.median(took) < 1.0  # one may have waited for this machine
        finally:
            drippers.kill()
    assert door.most == CONNECTIONS_MAX  # full, and never more than full


def test_who_is_let_in_while_it_ends_on_a_busy_machine_is_put_out(door):
    """[http-4.13] A turn of the loop takes longer than the server waits for anybody."""
    with opened(door) as faces, ExitStack() as open_lines:
        loop, turns = faces._loop, iter(range(10))

        def drag() -> None:
            time.sleep(0.12)
            if next(turns, None) is not None:
                loop.call_soon(drag)

        knocking = [open_lines.enter_context(raw(faces.port)) for _ in range(8)]
        loop.call_soon_threadsafe(drag)
        for connection in knocking:
            connection.sendall(b"G")
        faces.stop()
        assert door.inside == 0
    gc.collect()  # a socket that was left open is told now


def test_a_request_has_one_deadline_however_often_a_byte_comes(faces):
    """[http-4.9]"""
    with raw(faces.port) as connection:
        began = time.monotonic()
        try:
            connection.sendall(b"GET /readyz HTTP/1.1\r\nX: ")
            while time.monotonic() - began < 5:
                connection.sendall(b"x")
                time.sleep(0.02)
        except ConnectionError:
            pass
        assert time.monotonic() - began < 2.0


def test_a_connection_that_says_nothing_is_ended(faces):
    """[http-4.9]"""
    with raw(faces.port) as connection:
        began = time.monotonic()
        assert rest(connection) == b""
        assert 0.3 < time.monotonic() - began < 2.0


def test_a_body_that_drips_has_the_same_deadline():
    """[http-4.9]"""
    door = Door(request_s_max=0.5)
    with opened(door) as faces, raw(faces.port) as connection:
        head = f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{faces.port}\r\nContent-Length: 9\r\n\r\n"
        connection.sendall(head.encode() + b"x")
        began = time.monotonic()
        rest(connection)
        assert time.monotonic() - began < 2.0


def test_an_answer_that_nobody_reads_is_given_up(faces, door):
    """[http-4.10]"""
    faces.show(LARGE)
    head = f"GET /state HTTP/1.1\r\nHost: 127.0.0.1:{faces.port}\r\n\r\n".encode()
    with raw(faces.port) as connection:
        connection.sendall(head)
        eventually(lambda: door.inside == 1)
        eventually(lambda: door.inside == 0, 3.0, "the unread answer to be given up")
        assert len(rest(connection)) < 9_000_000
    assert len(ask(faces.port, "/state").text) > 9_000_000  # who reads gets it whole


def test_unread_answers_do_not_take_the_last_place():
    """[http-4.11]"""
    door = Door(connections_max=4)
    with opened(door) as faces:
        faces.show(LARGE)
        head = f"GET /state HTTP/1.1\r\nHost: 127.0.0.1:{faces.port}\r\n\r\n".encode()
        with raw(faces.port) as a, raw(faces.port) as b, raw(faces.port) as c, raw(faces.port) as d:
            for connection in (a, b, c, d):
                connection.sendall(head)
            eventually(lambda: door.stuck == 4, what="four unread answers")
            assert ask(faces.port, "/readyz").status == 200
    assert door.most == 4


def test_when_all_others_are_being_answered_a_newcomer_is_turned_away():
    """[http-4.11]"""
    door = Door(connections_max=2)
    with opened(door) as faces:
        head = f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{faces.port}\r\n\r\n".encode()
        with raw(faces.port) as a, raw(faces.port) as b:
            for connection in (a, b):
                connection.sendall(head)
                assert connection.recv(1000)
            with raw(faces.port) as c:
                assert rest(c) == b""
            assert door.inside == 2
        eventually(lambda: door.inside == 0)
        assert ask(faces.port, "/readyz").status == 200


def test_an_unread_answer_is_given_up_whatever_its_size(faces, door):
    """[http-4.10]"""
    head = f"GET /state HTTP/1.1\r\nHost: 127.0.0.1:{faces.port}\r\n\r\n".encode()
    with ExitStack() as open_lines:
        for n in range(1, 21):  # some end just beyond what the kernel keeps, wherever that is
            trouble = {f"s{k}": StreamHealth(trouble="x" * 1000) for k in range(40 * n)}
            faces.show(HealthReport("d", streams=trouble))
            connection = socket.socket()
            open_lines.callback(connection.close)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", faces.port))
            connection.sendall(head)
            assert connection.recv(1) == b"H"  # it is being answered, with this report
        eventually(lambda: door.stuck > 0, what="an unread answer")
        eventually(lambda: door.inside == 0, 5.0, "all of them to be given up")


def test_a_listener_that_talks_on_is_not_listened_to(faces, door):
    """[http-4.8]"""
    head = f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{faces.port}\r\n\r\n".encode()
    with raw(faces.port) as connection:
        connection.sendall(head + head)
        assert connection.recv(1000)
        for _ in range(50):
            connection.sendall(b"junk" * 10_000)
        faces.tell({"type": "swap"})
        got = b""
        while b"swap" not in got:
            got += connection.recv(1000)
        assert got.count(b"HTTP/1.1") == 0
    eventually(lambda: door.inside == 0, 5.0, "the listener to be missed")


def test_nonsense_in_the_middle_of_an_answer_ends_it_quietly(faces, caplog):
    """[http-4.7]"""
    head = f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{faces.port}\r\nTransfer-Encoding: chunked"
    with raw(faces.port) as connection:
        connection.sendall(f"{head}\r\n\r\n".encode())
        assert connection.recv(1000)
        connection.sendall(b"this is no chunk\r\n")
        rest(connection)
    assert ask(faces.port, "/readyz").status == 200
    assert caplog.records == []
