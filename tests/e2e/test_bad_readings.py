"""Bad readings among good ones: each is counted under its reason, with a sentence that a person can
read in /state, and costs no other reading.  in = scored + rejected + expired + pending, exactly.
"""

import json
import struct

import cbor2
import msgpack
import pytest

from tests.world import zoo
from tests.world.broker import Broker
from tests.world.site import Site, arrived
from tests.world.waiting import eventually

NOW = 1_700_000_000.0
GOOD = {"ts": NOW, "f0": 0.5, "f1": 0.25}
PAIR = {
    "features": {
        "names": ["f0", "f1"],
        "ranges": [[-100, 100], [-100, 100]],
        "missing": ["reject", "hold"],
    }
}
KEYS_MAX = 8
STREAMS = [
    {"name": "json", "topic": "json/+", "key": "{1}", "time": "ts"},
    {"name": "fleet", "topic": "fleet", "key": "id", "keys_max": KEYS_MAX},
    {"name": "levels", "topic": "levels/#", "key": "{2}"},
    {"name": "csv", "topic": "csv/+", "format": "csv", "columns": ["f0", "f1"]},
    {"name": "float32", "topic": "float32/+", "format": "float32", "columns": ["f0", "f1"]},
    {"name": "cbor", "topic": "cbor/+", "format": "cbor"},
    {"name": "msgpack", "topic": "msgpack/+", "format": "msgpack"},
]


class Desk:
    """Sends payloads to one stream and holds its account against what was sent."""

    def __init__(self, site, stream, good, topic=None):
        self.site, self.stream, self.model = site, stream, f"m-{stream}"
        self.good, self.topic = good, topic or f"{stream}/p1"

    def counts(self):
        return self.site.model(self.model)["counts"]

    def check(self, sent, *, scored, rejected, words=""):
        """Send (topic, payload) between two good readings; exactly so much comes of it."""
        before = self.counts()
        told = [
            self.site.publish(topic, payload, wait=False)
            for topic, payload in [(self.topic, self.good), *sent, (self.topic, self.good)]
        ]
        for one in told:
            arrived(one, 30)
        want = {
            "in": before["in"] + scored + 2 + sum(rejected.values()),
            "scored": before["scored"] + scored + 2,
            "rejected": dict(before["rejected"]),
            "expired": 0,
            "pending": 0,
        }
        for reason, n in rejected.items():
            want["rejected"][reason] = want["rejected"].get(reason, 0) + n
        eventually(lambda: self.counts() == want, 10, f"{want}; {self.counts()}")
        assert self.site.scored(self.model, want["scored"]).check() == want["scored"]
        for reason in rejected:
            part = self.site.state()["streams"][self.stream]
            why = part["last_reject"] | self.site.model(self.model)["last_reject"]
            assert words in why[reason]
            assert "\n" not in why[reason]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    mqtt = {"packet_bytes_max": 4 * 2**20}
    with Broker() as broker, Site(broker, folder, streams=STREAMS, mqtt=mqtt) as site:
        site.start(ready=False)
        eventually(site.state, 20)
        for stream in STREAMS:
            name = f"m-{stream['name']}"
            release = site.add(zoo.mlp(folder / name, name=name, **PAIR))
            site.desire(name, release, stream=stream["name"])
        for stream in STREAMS:
            site.committed(f"m-{stream['name']}", 1)
        yield site


def reading(**members):
    return json.dumps(GOOD | members).encode()


def raw(text):
    """GOOD with something that json.dumps would not write."""
    return reading(f0="@").replace(b'"@"', text)


LONG = "k" * 70_000
ONE_BAD = json.dumps([GOOD, GOOD | {"f0": "x"}, GOOD]).encode()
JSON = {
    "not JSON": (b"hello", "malformed", "the text 'hello', not a JSON object"),
    "empty": (b"", "malformed", "the payload is empty"),
    "cut off": (reading()[:-1], "malformed", "no JSON"),
    "no UTF-8": (b'{"f0": "\xff\xfe"}', "type", "f0 is the text"),
    "binary": (bytes(range(256)), "malformed", "not a JSON object"),
    "deep": (b'{"f0":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "malformed", "nested too deep"),
    "deep and open": (b"[" * 500_000, "malformed", "nested too deep"),
    "a number": (b"17", "malformed", "not an object"),
    "null": (b"null", "malformed", "null, not an object"),
    "array of numbers": (b"[1]", "malformed", "a number, not an object"),
    "2 MB": (reading(pad="x" * 2_000_000), "size", "payload_bytes_max"),
    "NaN": (raw(b"NaN"), "not_finite", "NaN"),
    "Infinity": (raw(b"-Infinity"), "not_finite", "-Infinity"),
    "1e400": (raw(b"1e400"), "not_finite", "f0 is no finite number"),
    "400 digits": (raw(b"9" * 400), "not_finite", "f0 is no finite number"),
    "twice": (raw(b'1, "f0": 2'), "duplicate_key", "'f0' stands twice"),
    "string": (reading(f0="12"), "type", "f0 is the text '12', not a number"),
    "bool": (reading(f0=True), "type", "f0 is true, not a number"),
    "list": (reading(f0=[1]), "type", "f0 is an array, not a number"),
    "object": (reading(f0={}), "type", "f0 is an object, not a number"),
    "1970": (reading(ts=0), "time", "before 1980"),
    "negative": (reading(ts=-1e9), "time", "before 1980"),
    "year 9999": (reading(ts="9999-12-31T23:59:59Z"), "time", "too far ahead"),
    "garbage": (reading(ts="2024-99-99T00:00:00"), "time", "2024-99-99"),
    "bool time": (reading(ts=True), "time", "true, neither a number nor ISO 8601"),
    "range": (reading(f0=100.5), "range", "f0 is 100.5, outside of -100 to 100"),
    "missing": (json.dumps({"ts": NOW, "f1": 1}).encode(), "missing", "f0 is missing"),
    "null value": (reading(f0=None), "missing", "f0 is missing"),
}


@pytest.mark.parametrize("case", JSON)
def test_a_bad_json_reading_costs_itself_alone(site, case):
    """[streams-1.2] [streams-1.3]"""
    payload, reason, words = JSON[case]
    desk = Desk(site, "json", reading())
    desk.check([("json/p1", payload)], scored=0, rejected={reason: 1}, words=words)


def test_what_is_odd_but_right_is_scored(site):
    desk = Desk(site, "json", reading())
    odd = [
        b"  " + reading() + b"\r\n",
        reading(f1=None),
        reading(ts=NOW * 1000),
        reading(ts="2024-01-01T00:00:00+02:00"),
        reading(**{"größe": 1, LONG: LONG, "": None}),
        raw(b"5e-324"),
        b"[]",
    ]
    sent = [("json/p1", payload) for payload in odd]
    sent += [("json/Pumpe-Süd-\U0001f600", reading()), ("json/" + "x" * 256, reading())]
    desk.check(sent, scored=8, rejected={})
    desk.check([("json/p1", ONE_BAD)], scored=2, rejected={"type": 1}, words="'x'")
    before = desk.counts()["scored"]
    site.publish("json/kept", reading(), retain=True)
    eventually(lambda: desk.counts()["scored"] == before + 1, 10)


def test_a_topic_that_names_no_sensor_is_rejected_and_said(site):
    desk = Desk(site, "levels", reading(), "levels/a/p1")
    topics = ("levels", "levels/a", "levels/a/", "levels//", "levels/a/" + "x" * 257)
    sent = [(topic, reading()) for topic in topics]
    desk.check(sent, scored=0, rejected={"key": 5}, words="{2} gives no key")
    desk.check(
        [("levels//p1", reading()), ("levels/a//b", reading())], scored=1, rejected={"key": 1}
    )


def test_100_000_sensors_do_not_fit_and_those_that_are_known_go_on(site):
    desk = Desk(site, "fleet", reading(id="k0"), "fleet")
    batches = [
        json.dumps([GOOD | {"id": f"k{n}"} for n in range(at, at + 1000)]).encode()
        for at in range(0, 100_000, 1000)
    ]
    desk.check(
        [("fleet", batch) for batch in batches],
        scored=KEYS_MAX,
        rejected={"keys": 100_000 - KEYS_MAX},
        words=f"there are {KEYS_MAX} sensors already (keys_max)",
    )
    sent = [("fleet", reading(id=key)) for key in (None, True, 1.5, [], "", "x" * 257)]
    desk.check(sent, scored=0, rejected={"key": 6}, words="no key of 1 to 256 characters")
    desk.check([("fleet", reading(id=f"k{n}")) for n in range(KEYS_MAX)], scored=8, rejected={})


ROW = struct.pack("<2f", 0.5, 0.25)
INFINITE = struct.pack("<2f", float("inf"), 0.25)
BINARY = [
    ("csv", b"0.5,0.25", b"0.5\n0.5,0.25,9\n1,2\n", 1, {"malformed": 2}, "not 2 cells"),
    ("csv", b"0.5,0.25", b"x,1\n1,2\n", 1, {"type": 1}, "f0 is the text 'x'"),
    ("csv", b"0.5,0.25", b"nan,1\n,1\n", 0, {"not_finite": 1, "missing": 1}, "f0 is"),
    ("csv", b"0.5,0.25", b"\xff\xfe1,2", 0, {"malformed": 1}, "no UTF-8"),
    ("float32", ROW, ROW + ROW[:5], 0, {"malformed": 1}, "whole rows of 2 float32"),
    ("float32", ROW, ROW + INFINITE + ROW, 2, {"not_finite": 1}, "infinite"),
    ("cbor", cbor2.dumps(GOOD), b"\xff" * 40, 0, {"malformed": 1}, "no CBOR"),
    ("cbor", cbor2.dumps(GOOD), cbor2.dumps(GOOD)[:-3], 0, {"malformed": 1}, "no CBOR"),
    ("cbor", cbor2.dumps(GOOD), cbor2.dumps([GOOD, 7, GOOD]), 2, {"malformed": 1}, "a number"),
    ("cbor", cbor2.dumps(GOOD), b"\x9f" * 50_000, 0, {"malformed": 1}, "no CBOR"),
    ("msgpack", msgpack.dumps(GOOD), b"\xc1" * 40, 0, {"malformed": 1}, "no MessagePack"),
    ("msgpack", msgpack.dumps(GOOD), msgpack.dumps(GOOD) + b"x", 0, {"malformed": 1}, "extra"),
    ("msgpack", msgpack.dumps(GOOD), b"\xdd\xff\xff\xff\xff", 0, {"malformed": 1}, "MessagePack"),
    ("msgpack", msgpack.dumps(GOOD), msgpack.dumps([GOOD, None]), 1, {"malformed": 1}, "null"),
]


@pytest.mark.parametrize("case", BINARY, ids=lambda case: f"{case[0]} {case[4]}")
def test_bad_bytes_cost_no_other_row(site, case):
    stream, good, payload, scored, rejected, words = case
    desk = Desk(site, stream, good)
    desk.check([(f"{stream}/p1", payload)], scored=scored, rejected=rejected, words=words)


@pytest.mark.parametrize("version", [5, 4])
def test_a_packet_beyond_the_limit_costs_itself_and_not_the_stream(broker, tmp_path, version):
    mqtt = {"packet_bytes_max": 64 * 1024, "version": version}
    with Site(broker, tmp_path, mqtt=mqtt) as site:
        site.start()
        site.deploy(zoo.mlp(tmp_path / "v1", name="m", **PAIR))
        desk = Desk(site, "s", reading(), "plant/p1")
        desk.model = "m"
        huge = reading(pad="x" * 300_000)
        rejected = {"size": 3}
        sent = [("plant/p1", payload) for payload in (huge, reading(), huge, huge)]
        desk.check(sent, scored=1, rejected=rejected, words="mqtt.packet_bytes_max")
        assert site.state()["streams"]["s"]["trouble"] == ""
        assert "data_connection_down" not in site.log()
        site.stop()
        site.start(ready=True)
        desk.check([("plant/p1", reading())], scored=1, rejected={})
