"""Readings come as sensors send them: in every format, from files and posts too, in windows."""

import json
import struct
from datetime import UTC, datetime

import cbor2
import httpx
import msgpack
import pytest
from onnx import helper

from tests.world import zoo
from tests.world.pack import model, tensor, write
from tests.world.site import Site
from tests.world.waiting import eventually

T0 = 1_700_000_000
INLINE = {"isolation": "inline"}  # many small models: what is shown here is not their isolation


def keeper(folder, length, **members):
    """x [n, length, 1] -> y [n, length]: the score of a window is what is in it."""
    made = model(
        [helper.make_node("Flatten", ["x"], ["y"])],
        [tensor("x", "f4", ["n", length, 1])],
        [tensor("y", "f4", ["n", length])],
    )
    golden = zoo.rows(length)[:, :, None].copy()
    return write(folder, made, zoo.manifest(1, **members), {"x": golden})


def adder(folder, name):
    """y = temp + 10 vib: whole numbers, so that a score tells which reading it is of."""
    return zoo.columns(folder / name, name=name)


def deployed(site, packages, streams):
    """Desire every package at once; wait until each is committed."""
    for package, stream in zip(packages, streams, strict=True):
        site.desire(package.name, site.add(package), stream=stream)
    for package in packages:
        site.committed(package.name, site.wanted[package.name]["release"])


def told(books):
    """(key, time, score) in order."""
    return [books.rows[seq][:3] for seq in range(len(books.rows))]


# ---- formats -------------------------------------------------------------------------------------

READINGS = [("p1", T0, 1.0, 2.0), ("p2", T0 + 1, 3.0, 4.0), ("p1", T0 + 2, 5.5, 0.5)]
PAYLOADS = {
    "json": [
        json.dumps({"id": k, "ts": t, "temp": a, "vib": {"rms": b}}).encode()
        for k, t, a, b in READINGS
    ],
    "ndjson": [
        b"\n".join(
            json.dumps({"id": k, "ts": t * 1000, "temp": a, "vib": {"rms": b}}).encode()
            for k, t, a, b in READINGS
        )
    ],
    "csv": [b"".join(f"{k},{t * 10**6},{a},{b}\n".encode() for k, t, a, b in READINGS)],
    "float32": [struct.pack("<6f", *(n for _, _, a, b in READINGS for n in (a, b)))],
    "cbor": [
        cbor2.dumps(
            [
                {"id": k, "ts": datetime.fromtimestamp(t, UTC), "temp": a, "vib": {"rms": b}}
                for k, t, a, b in READINGS
            ]
        )
    ],
    "msgpack": [
        msgpack.packb({"id": k, "ts": msgpack.Timestamp(t), "temp": a, "vib": {"rms": b}})
        for k, t, a, b in READINGS
    ],
}


def format_stream(name):
    stream = {"name": name, "topic": f"plant/{name}", "format": name}
    match name:
        case "float32":
            return stream | {"columns": ["temp", "vib"]}
        case "csv":
            return stream | {"columns": ["id", "ts", "temp", "vib"], "key": "id", "time": "ts"}
        case _:
            return stream | {"fields": {"vib": "vib.rms"}, "key": "id", "time": "ts"}


def test_every_format_gives_the_same_scores(broker, tmp_path):
    """[streams-1.1]"""
    streams = [format_stream(name) for name in PAYLOADS]
    with Site(broker, tmp_path, streams=streams, engine=INLINE) as site:
        site.start()
        deployed(site, [adder(tmp_path, name) for name in PAYLOADS], PAYLOADS)
        for name, payloads in PAYLOADS.items():
            for payload in payloads:
                site.publish(f"plant/{name}", payload)
        for name in PAYLOADS:
            books = site.scored(name, len(READINGS))
            assert books.check() == len(READINGS)
            want = [(k, float(t), a + 10 * b) for k, t, a, b in READINGS]
            if name == "float32":  # has neither key nor time: one sensor, time of arrival
                assert [score for _, _, score in told(books)] == [score for _, _, score in want]
                assert {key for key, _, _ in told(books)} == {""}
            else:
                assert told(books) == want, name


# ---- windows -------------------------------------------------------------------------------------

WINDOWS = {
    "tumbling": ({"kind": "tumbling", "size": "10s", "rows": 3}, 3),
    "sliding": ({"kind": "sliding", "size": "4", "step": "2"}, 4),
    "count": ({"kind": "count", "size": "3"}, 3),
    "session": ({"kind": "session", "size": "100", "gap": "5s", "rows": 3}, 3),
}
# (seconds, value) as they arrive, with two seconds of accepted lateness
ARRIVALS = [(0, 1), (6, 3), (5, 2), (11, 4), (14, 5), (8, 99), (25, 6), (41, 7)]
IN_TIME = len(ARRIVALS) - 1  # the reading of second 8 comes six seconds late
COMPLETE = {  # what the readings themselves complete
    "tumbling": [(6, [1, 2, 3]), (14, [4, 4, 5]), (25, [6, 6, 6])],
    "sliding": [(11, [1, 2, 3, 4]), (25, [3, 4, 5, 6])],
    "count": [(6, [1, 2, 3]), (25, [4, 5, 6])],
    "session": [(14, [3, 4, 5]), (25, [6, 6, 6]), (41, [7, 7, 7])],  # the last one by silence
}


def test_four_kinds_of_windows_on_one_stream_in_event_time(broker, tmp_path):
    """[streams-2.3]"""
    stream = {"name": "s", "topic": "plant/+", "key": "{1}", "time": "ts", "late": "2s"}
    with Site(broker, tmp_path, streams=[stream], engine=INLINE) as site:
        site.start()
        packages = [
            keeper(tmp_path / name, length, name=name, window=window)
            for name, (window, length) in WINDOWS.items()
        ]
        deployed(site, packages, ["s"] * len(packages))
        site.readings({"ts": T0 + second, "f0": value} for second, value in ARRIVALS)
        for name, complete in COMPLETE.items():
            books = site.scored(name, len(complete), 20)
            books.check()
            want = [("p1", float(T0 + second), list(map(float, v))) for second, v in complete]
            assert told(books)[: len(want)] == want, name
            counts = site.model(name)["counts"]
            assert counts["rejected"] == {"late": 1}
            assert counts["scored"] + counts["pending"] + counts["expired"] == IN_TIME, counts


# ---- several streams -----------------------------------------------------------------------------


def test_two_models_on_one_stream_and_another_on_its_own_go_on_while_one_is_paused(
    broker, tmp_path
):
    """[streams-2.4] [control-3.3]"""
    streams = [
        {"name": name, "topic": f"{name}/+", "key": "{1}", "time": "ts"} for name in ("a", "b")
    ]
    with Site(broker, tmp_path, streams=streams, engine=INLINE) as site:
        site.start()
        packages = [adder(tmp_path, name) for name in ("one", "two", "three")]
        deployed(site, packages, ["a", "a", "b"])

        def both(first, last):
            for stream in ("a", "b"):
                readings = [{"ts": T0 + n, "temp": n, "vib": 0} for n in range(first, last)]
                site.readings(readings, topic=f"{stream}/p1")

        both(0, 50)
        for package in packages:
            site.scored(package.name, 50)
        assert site.command("pause", {"stream": "a"})["paused"]
        both(50, 100)
        site.scored("three", 100)
        assert [len(site.book(name).rows) for name in ("one", "two")] == [50, 50]
        assert not site.command("resume", {"stream": "a"})["paused"]
        for package in packages:
            books = site.scored(package.name, 100)
            assert books.check() == 100
            assert told(books) == [("p1", float(T0 + n), float(n)) for n in range(100)]
        refused = site.command("pause", {"stream": "c"})
        assert (refused["code"], refused["why"]) == (404, "this device has no stream c")


# ---- files and posts -----------------------------------------------------------------------------


@pytest.mark.parametrize("line_format", ["csv", "ndjson"])
def test_a_tailed_file_is_read_on_after_a_stop_and_after_a_kill(broker, tmp_path, line_format):
    path = tmp_path / "log.txt"
    stream = {
        "name": "s",
        "source": "file",
        "path": str(path),
        "format": line_format,
        "key": "id",
        "time": "ts",
    }

    def line(n):
        if line_format == "csv":
            return f"{T0 + n},p{n % 3},{n},0\n"
        return json.dumps({"ts": T0 + n, "id": f"p{n % 3}", "temp": n, "vib": 0}) + "\n"

    with path.open("a", buffering=1) as log, Site(broker, tmp_path, streams=[stream]) as site:
        if line_format == "csv":
            log.write("ts,id,temp,vib\n")
        site.start()
        site.deploy(adder(tmp_path, "m"))
        written = 0
        for end in (site.stop, site.kill, None):
            for _ in range(500):
                log.write(line(written))
                written += 1
            site.scored("m", written - 300)
            if end is not None:
                end()
                for _ in range(100):  # while nobody reads
                    log.write(line(written))
                    written += 1
                log.write(line(written)[:7])  # a line that is not whole yet
                site.start()
                site.ready()
                log.write(line(written)[7:])
                written += 1
        books = site.scored("m", written)
        assert books.check() == written
        want = [(f"p{n % 3}", float(T0 + n), float(n)) for n in range(written)]
        assert told(books) == want
        eventually(lambda: site.model("m")["counts"]["scored"] == written, 5)
        assert site.model("m")["counts"]["in"] == written


def test_posted_readings_are_scored_before_they_are_answered(broker, tmp_path):
    stream = {"name": "s", "source": "http", "key": "id", "time": "ts"}
    with Site(broker, tmp_path, streams=[stream]) as site:
        site.start()
        site.deploy(adder(tmp_path, "m"))
        url = f"http://{site.http}/v1/streams/s"
        for n in range(20):
            body = {"ts": T0 + n, "id": "p1", "temp": n, "vib": 1}
            assert httpx.post(url, json=body, timeout=10).status_code == 202
        assert httpx.post(f"{url}-x", json={}, timeout=10).status_code == 404
        books = site.scored("m", 20)
        assert books.check() == 20
        assert told(books) == [("p1", float(T0 + n), n + 10.0) for n in range(20)]
