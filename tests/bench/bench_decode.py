"""What a reading costs on its way from bytes to a span; run by hand, with `-m bench -s`.

Prints microseconds per reading at a batch of 256 readings of 8 features, and ratios.  The joined
decode is here to show that it is not worth its risk.
"""

import json
import math
import random
import statistics
import time
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from agent.core.decoding import Decoder
from agent.core.features import Featurizer
from agent.core.manifest import Features, Window
from agent.core.streams import StreamSpec
from agent.core.windows import Windower
from tests.world.sparkplug import EdgeNode, Payload

pytestmark = pytest.mark.bench

BATCH = 256
NAMES = ("temp_c", "vib", "press", "flow", "rpm", "amps", "volts", "humid")
TOPICS = [b"plant/a/pump/p%d/telemetry" % (i % 100) for i in range(BATCH)]
NOW = 1_732_180_000.0


def cost(run: Callable[[], object]) -> float:
    """Median microseconds per reading; the first runs fill windows and caches and do not count."""
    times = []
    for _ in range(260):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times[60:]) * 1e6 / BATCH


def payloads(**more: object) -> list[bytes]:
    rng = random.Random(1)
    return [
        json.dumps(
            {"ts": NOW + i / 10, **{n: round(rng.uniform(0, 100), 2) for n in NAMES}, **more},
            separators=(",", ":"),
        ).encode()
        for i in range(BATCH)
    ]


def decoder() -> Decoder:
    spec = StreamSpec(name="pump", format="json", key="{3}", time="ts", fields={})
    return Decoder(spec, NAMES)


def told(what: str, us: float, against: float | None = None) -> None:
    print(f"{what:48} {us:7.3f} µs" + (f"  {us / against:5.2f} ×" if against else ""))


def test_decoding() -> None:
    plain = payloads()
    members = [(name, float, math.nan) for name in ("ts", *NAMES)]
    row = msgspec.defstruct("Row", members, gc=False)
    one, many = msgspec.json.Decoder(row), msgspec.json.Decoder(list[row])
    base = cost(lambda: [one.decode(p) for p in plain])
    print()
    told("msgspec, one by one, structs only", base)
    told(
        "msgspec, joined, structs only",
        cost(lambda: many.decode(b"[" + b",".join(plain) + b"]")),
        base,
    )
    told("json.loads, one by one, dicts only", cost(lambda: [json.loads(p) for p in plain]), base)
    one_bad, twice = plain.copy(), plain.copy()
    one_bad[7] = b"{"
    twice[7] = plain[7][:-1] + b',"vib":3}'
    for what, batch in (
        ("Decoder: to a Block", plain),
        ("Decoder: three members nobody wants", payloads(site="north", fw=12, ok=True)),
        ("Decoder: one of 256 is no JSON", one_bad),
        ("Decoder: one of 256 has a member twice", twice),
    ):
        dec = decoder()
        told(what, cost(lambda dec=dec, batch=batch: dec.decode(batch, TOPICS, 0.0, NOW)), base)  # type: ignore[misc]


@pytest.mark.parametrize("changed", [8, 1])
def test_decoding_sparkplug(changed: int) -> None:
    rng = random.Random(1)
    node = EdgeNode(**{f"p{i}": dict.fromkeys(NAMES, ("Float", 0.0)) for i in range(100)})
    spec = StreamSpec(name="pump", format="sparkplug", fields={})
    dec = Decoder(spec, NAMES)
    births = list(node.births(int(NOW) * 1000))
    dec.decode([raw for _, raw in births], [topic.encode() for topic, _ in births], 0.0, NOW)
    data = [
        node.data(
            f"p{i % 100}",
            int(NOW) * 1000 + i,
            **{name: rng.uniform(0, 100) for name in rng.sample(NAMES, changed)},
        )
        for i in range(BATCH)
    ]
    plain, topics = [raw for _, raw in data], [topic.encode() for topic, _ in data]
    base = cost(lambda: [Payload.FromString(p) for p in plain])
    print(f"\nSparkplug B, {changed} of 8 metrics in a payload of {len(plain[0])} bytes")
    told("protobuf, one by one, messages only", base)
    told("Decoder: to a Block", cost(lambda: dec.decode(plain, topics, 0.0, NOW)), base)


@pytest.mark.parametrize("sensors", [1, 100])
def test_features_and_windows(sensors: int) -> None:
    dec = decoder()
    block = dec.decode(payloads(), TOPICS, 0.0, NOW)
    block.keys %= sensors
    features = Features(
        names=NAMES,
        ranges=((-1e3, 1e3),) * 8,
        scale={"mean": (50.0,) * 8, "std": (29.0,) * 8},  # type: ignore[arg-type]  # as TOML has it
    )
    featurizer = Featurizer(features)
    base = cost(lambda: featurizer.featurize(block))
    print(f"\n{sensors} sensor(s)")
    told("featurize", base)
    windows: dict[str, Window | None] = {"no window": None}
    for step in (1, 16, 64):
        windows[f"64 readings, step {step}"] = Window.model_validate(
            {"kind": "sliding", "size": "64", "step": str(step)}
        )
    windows["tumbling 10 s"] = Window.model_validate(
        {"kind": "tumbling", "size": "10s", "rows": 16}
    )
    windows["session, gap 30 s"] = Window.model_validate(
        {"kind": "session", "size": "50", "gap": "30s", "rows": 50}
    )
    for what, window in windows.items():
        for dtype in (np.float32, np.float64):
            windower = Windower(window, len(NAMES), 0.0, dtype)

            def run(windower: Windower = windower) -> None:
                block.times += BATCH
                windower.push(featurizer.featurize(block), 0.0)

            told(f"featurize + {what}, {dtype.__name__}", cost(run), base)
