"""/events: numbered, kept a while, taken up again where a listener left off."""

import json
import threading
import time
from collections.abc import Iterator

import pytest

from agent.adapters.web import WebFaces
from agent.adapters.web.backlog import EVENT_BYTES_MAX, EVENTS_MAX, LISTENERS_MAX
from agent.adapters.web.door import Door
from agent.config import Http
from agent.core.health import HealthReport
from tests.world.asking import Listener, ask, raw, rest
from tests.world.waiting import eventually


@pytest.fixture
def faces() -> Iterator[WebFaces]:
    faces = WebFaces(Http(bind="127.0.0.1:0"), stale_s=30.0, heartbeat_s=0.2)
    faces.start()
    faces.show(HealthReport("d", ready=True))
    yield faces
    faces.stop()


def numbers(blocks: list[dict[str, str]]) -> list[int]:
    return [json.loads(block["data"])["n"] for block in blocks]


def test_an_event_reaches_a_listener_whole(faces):
    """[http-3.1]"""
    event = {
        "schema": 1,
        "type": "swap",
        "model": "m\n\ndata: x",
        "receipt": {"p99_ms": {"before": 3.1}},
    }
    with Listener(faces.port) as listener:
        assert listener.answer.headers["content-type"].startswith("text/event-stream")
        faces.tell(event)
        (block,) = listener.blocks(1)
    assert json.loads(block["data"]) == event


def test_a_newcomer_is_told_what_happened_before(faces):
    """[http-3.2]"""
    for n in range(3):
        faces.tell({"n": n})
    with Listener(faces.port) as listener:
        assert numbers(listener.blocks(3)) == [0, 1, 2]


def test_what_was_told_before_the_door_opened_is_not_lost():
    """[http-3.2]"""
    faces = WebFaces(Http(bind="127.0.0.1:0"))
    faces.tell({"n": 1})
    faces.start()
    try:
        with Listener(faces.port) as listener:
            assert numbers(listener.blocks(1)) == [1]
    finally:
        faces.stop()


def test_a_listener_that_comes_back_goes_on_where_it_was(faces):
    """[http-3.2]"""
    for n in range(5):
        faces.tell({"n": n})
    with Listener(faces.port) as listener:
        seen = listener.blocks(2)[-1]["id"]
    faces.tell({"n": 5})
    with Listener(faces.port, {"Last-Event-ID": seen}) as listener:
        assert numbers(listener.blocks(4)) == [2, 3, 4, 5]


@pytest.mark.parametrize("last", ["", "0", "x-1", "deadbeef-4", "-", "9" * 300, "RUN--1", "RUN-x"])
def test_an_id_of_another_run_or_of_nobody_gets_everything(faces, last):
    """[http-3.2]"""
    faces.tell({"n": 0})
    with Listener(faces.port) as listener:
        run = listener.blocks(1)[0]["id"].split("-")[0]
    with Listener(faces.port, {"Last-Event-ID": last.replace("RUN", run)}) as listener:
        assert numbers(listener.blocks(1)) == [0]


def test_only_the_last_events_are_kept_and_the_listener_is_told_so(faces):
    """[http-3.2] [http-3.3]"""
    for n in range(EVENTS_MAX + 20):
        faces.tell({"n": n})
    with Listener(faces.port) as listener:
        lines = [listener.line() for _ in range(4)]
        assert ": 20 events are gone\n" in lines
        assert numbers(listener.blocks(EVENTS_MAX)) == list(range(20, EVENTS_MAX + 20))


def test_a_huge_event_is_cut_to_what_happened_and_why(faces):
    """[http-3.4]"""
    faces.tell({"type": "gap", "why": "y" * 5000, "rows": ["x" * EVENT_BYTES_MAX]})
    with Listener(faces.port) as listener:
        event = json.loads(listener.blocks(1)[0]["data"])
    assert (event["type"], event["cut"], len(event["why"])) == ("gap", True, 1000)


def test_silence_is_broken_by_comments(faces):
    """[http-3.7]"""
    with Listener(faces.port) as listener:
        assert [listener.line() for _ in range(6)].count(": still here\n") >= 1


def test_so_many_may_listen_and_no_more_and_a_place_is_given_back(faces):
    """[http-3.5]"""
    listeners = [Listener(faces.port) for _ in range(LISTENERS_MAX)]
    try:
        refused = ask(faces.port, "/events")
        assert refused.status == 503
        assert refused.headers["retry-after"] == "5"
        assert ask(faces.port, "/readyz").status == 200
    finally:
        for listener in listeners:
            listener.close()

    def place() -> bool:
        with Listener(faces.port) as listener:
            return listener.status == 200

    eventually(place, what="a place among the listeners")


def test_listeners_are_let_go_when_the_endpoint_stops(faces):
    """[http-4.13]"""
    with Listener(faces.port) as listener:
        began = time.monotonic()
        faces.stop()
        assert time.monotonic() - began < 3.0
        while listener.line():
            pass


def test_a_listener_that_does_not_read_is_dropped_and_holds_nobody_up():
    """[http-3.6]"""
    faces = WebFaces(Http(bind="127.0.0.1:0"), door=Door(write_s_max=0.5))
    faces.start()
    event = {"why": "z" * (EVENT_BYTES_MAX - 100)}
    head = f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{faces.port}\r\n\r\n"
    over = threading.Event()

    def tell_on() -> None:
        while not over.wait(0.002):
            faces.tell(event)

    teller = threading.Thread(target=tell_on)
    try:
        with raw(faces.port) as deaf, Listener(faces.port) as other:
            deaf.sendall(head.encode())
            teller.start()
            began = time.monotonic()
            while time.monotonic() - began < 2.0:  # the other listener hears on meanwhile
                assert other.blocks(1)
            # All that the kernel had buffered for it still comes, and then the line is broken.
            deaf.settimeout(5)
            rest(deaf)
    finally:
        over.set()
        teller.join()
        faces.stop()


def test_telling_never_waits(faces):
    """[http-3.6]"""
    with Listener(faces.port):
        began = time.monotonic()
        for n in range(10_000):
            faces.tell({"n": n})
        assert time.monotonic() - began < 5.0
    faces.stop()
    faces.tell({"n": 0})  # nobody hears it, and nothing breaks
    faces.show(HealthReport("d"))
