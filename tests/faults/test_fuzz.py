"""Random bytes, and good ones spoilt at random, into whatever reads what others wrote: no error but
those it promises, in time and within memory.

    FUZZ_S=600 make soak ARGS="-s tests/faults/test_fuzz.py"     # of each
"""

import contextlib
import hashlib
import json
import os
import random
import resource
import struct
import time

import cbor2
import msgpack
import pytest

from agent.adapters.mqtt.packets import MalformedError, Scan, scan
from agent.core import catalog, chunks, manifest, onnx_gate, packages, scores, wire
from agent.core.decoding import Decoder
from agent.core.errors import RefusedError, UnfitError
from agent.core.streams import StreamSpec
from agent.core.strict import read_object
from agent.core.trust import TrustState, UntrustedError, begin
from agent.repository import publishing
from agent.repository.signed import SignedPublisher
from tests.world import zoo
from tests.world.hostile import packet, publish

SECONDS, SECONDS_SOAK = 0.3, float(os.environ.get("FUZZ_S", "20"))
INPUT_S_MAX = 0.1  # of processor time
GROWN_MB_MAX = 64
TRICKS = (b"[", b"{", b'"', b"\\ud800", b"NaN", b"1e999", b"-", b"\0", b"\xff", b"9" * 40, b"../")
READING = {"ts": 1.7e9, "k": "a", "temp": 1.5, "vib": {"rms": 2}, "more": [1, None, True, "é"]}
MAGIC = b"edge-agent trust 1 "


def decoded(**spec):
    """A stream of that kind, for as long as it is fuzzed: what it remembers is fuzzed, too."""
    fields = {"vib": "vib.rms"} if spec["format"] not in ("csv", "float32") else {}
    one = Decoder(StreamSpec(name="s", fields=fields, keys_max=100, **spec), ("temp", "vib"))

    def read(raw):
        block = one.decode([raw, raw[:7]], [b"plant/p1", raw[:30]], arrived=1.0, now=1.7e9)
        assert len(block.times) == len(block.keys)

    return read


def scanned(*, is_v5):
    def read(raw):
        left = memoryview(raw).tobytes()
        while left:
            taken, _ = scan(left, Scan(), is_v5=is_v5, packet_bytes_max=10_000)
            if not taken:
                return
            left = left[taken:]

    return read


def trusted(raw):
    TrustState.from_bytes(MAGIC + hashlib.sha256(raw).hexdigest().encode() + b"\n" + raw)


def read_package(raw):
    packages.read(read_object(raw, "the package", bytes_max=2**20))


def readings():
    """name -> reads bytes, the errors it promises, and bytes that it takes."""
    document = json.dumps(READING).encode()
    wired = [packet(0x20, b"\0\0\0"), publish(b"plant/p1", document, mid=7), packet(0x90, b"\0\1")]
    columns = ("temp", "vib")
    return {
        "json": (decoded(format="json", key="k", time="ts"), (), [document, b"[%s,7]" % document]),
        "ndjson": (decoded(format="ndjson", key="{1}"), (), [document + b"\n" + document]),
        "csv": (decoded(format="csv", key="k", time="ts"), (), [b"ts,k,temp,vib\n1,a,2,3\n4,b,5"]),
        "float32": (
            decoded(format="float32", columns=columns),
            (),
            [struct.pack("<4f", *range(4))],
        ),
        "cbor": (decoded(format="cbor", key="k"), (), [cbor2.dumps(READING)]),
        "msgpack": (decoded(format="msgpack", key="k"), (), [msgpack.packb(READING)]),
        "mqtt 5": (scanned(is_v5=True), MalformedError, [b"".join(wired)]),
        "mqtt 3": (scanned(is_v5=False), MalformedError, [b"".join(wired)]),
    }


def control(folder):
    """The same, of what control planes and repositories send, and of our own files."""
    repo = publishing.init(folder / "repo", SignedPublisher())
    publishing.add(repo, zoo.mlp(folder / "m", name="m"), SignedPublisher())
    package = repo.packages()[0]
    wish = {"release": 2, "stream": "s", "rollout": {"shadow": {"windows": 5}}}
    rejection = chunks.write_rejection(chunks.Rejection("a", 404, "no"))
    block = chunks.write_block(chunks.Block("a", 1, 4096, 9000, b"e" * 8, bytes(50)))
    request = chunks.write_request(chunks.Request("a", package.files[0].sha256, (1, 3), 9000, 4096))
    state = begin((folder / "repo" / "root.json").read_bytes()).to_bytes()
    message = b'{"model":"m","seq":5,"key":["a","b"],"time":[1,2],"score":[1,2]}'
    named = {
        "desired": (wire.parse_desired, {"schema": 1, "revision": 3, "models": {"m": wish}}),
        "command": (
            lambda raw: wire.parse_command("retry", raw, 0.0),
            {"schema": 1, "id": "a", "expires": 4e9, "args": {"model": "m"}},
        ),
        "package": (read_package, packages.describe(package)),
    }
    return {name: (read, RefusedError, [dump(one)]) for name, (read, one) in named.items()} | {
        "manifest": (manifest.parse, UnfitError, [(folder / "m" / "model.toml").read_bytes()]),
        "onnx": (
            lambda raw: onnx_gate.admit(raw, {}),
            UnfitError,
            [(folder / "m" / "model.onnx").read_bytes()],
        ),
        "chunk": (chunks.read_answer, RefusedError, [rejection, block]),
        "chunk request": (chunks.read_request, RefusedError, [request]),
        "catalog": (catalog.read_all, RefusedError, [catalog.write([package])]),
        "trust": (trusted, UntrustedError, [state.partition(b"\n")[2]]),
        "scores": (lambda raw: (scores.join([raw, raw]), scores.split(raw, 40)), (), [message]),
    }


def dump(document):
    return json.dumps(document).encode()


def spoilt(seeds, dice):
    body = bytearray(dice.choice(seeds))
    for _ in range(dice.choice([0, 1, 1, 2, 4, 16])):
        at = dice.randrange(len(body) + 1)
        match dice.randrange(6):
            case 0 if body:
                body[at % len(body)] ^= 1 << dice.randrange(8)
            case 1:
                del body[at : at + dice.choice([1, 4, 1000])]
            case 2:
                body[at:at] = dice.choice(TRICKS) * dice.choice([1, 1, 3, 200])
            case 3:
                body[at:at] = body[: dice.randrange(64)]
            case 4:
                body[at : at + 4] = dice.choice(
                    [b"\xff\xff\xff\x7f", b"\0\0\0\0", dice.randbytes(4)]
                )
            case 5 if dice.random() < 0.05:
                body = bytearray(dice.randbytes(dice.randrange(300)))
    return bytes(body)


def timed(read, promised, raw):
    """Seconds of processor time."""
    began = time.thread_time()
    with contextlib.suppress(promised):
        read(raw)
    return time.thread_time() - began


def fuzz(read, promised, seeds, seconds, dice):
    """How many inputs, and the longest; what fails is printed whole."""
    until, count, longest = time.monotonic() + seconds, 0, 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while time.monotonic() < until:
        raw = spoilt(seeds, dice)
        try:
            took = timed(read, promised, raw)
        except BaseException:
            print(f"after {count}: {raw!r}")
            raise
        if took > INPUT_S_MAX:  # or was it a collection of garbage?
            took = timed(read, promised, raw)
        assert took < INPUT_S_MAX, f"{took:.2f} s for {raw!r}"
        longest = max(longest, took)
        count += 1
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mb < GROWN_MB_MAX
    return count, longest, grown_mb


def fuzzed(targets, seconds):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    for name, (read, promised, seeds) in targets.items():
        for one in seeds:
            read(one)
        count, longest, grown = fuzz(read, promised, seeds, seconds, random.Random(seed))
        print(f"{name}: {count} inputs, {1000 * longest:.1f} ms at most, +{grown:.0f} MiB")


def test_spoilt_readings_cost_no_more_than_themselves():
    """F22."""
    fuzzed(readings(), SECONDS)


def test_spoilt_documents_are_refused_as_promised(tmp_path):
    """F22."""
    fuzzed(control(tmp_path), SECONDS)


@pytest.mark.parametrize("value", [b"9" * 5000, b"[" * 5000, b"\xff"], ids=["long", "deep", "text"])
def test_a_manifest_that_its_reader_stumbles_over_is_a_verdict(value):
    """The first was found here: it ended the agent."""
    with pytest.raises(UnfitError, match="is not TOML"):
        manifest.parse(b"release = " + value)


@pytest.mark.soak
@pytest.mark.timeout(6 * 3600)
def test_spoilt_bytes_for_a_long_time(tmp_path):
    """F22."""
    fuzzed(readings() | control(tmp_path), SECONDS_SOAK)
