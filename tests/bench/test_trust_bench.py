"""How long a device thinks about a bundle; the figures of docs/spec/trust.md."""

import json
import statistics
import subprocess
import sys

from agent.core.trust import ROOTS_MAX
from tests.world.tuf_repository import NOW, TufRepository, package

CHILD = """
import json, sys, time
if sys.argv[1] == "without":
    sys.modules["cryptography"] = None
from agent.core.trust import begin, resolve
handed = json.load(sys.stdin)
start = begin(handed["root"].encode())
bundles = {n: {k: v.encode() for k, v in b.items()} for n, b in handed["bundles"].items()}
known = resolve(start, bundles["first"], "pump", None, now=handed["now"]).state
for what, state, bundle in (
    ("first sight", start, "first"), ("again", known, "first"), ("16 rotations", start, "rotated")
):
    times = []
    for _ in range(15):
        begun = time.perf_counter()
        resolve(state, bundles[bundle], "pump", None, now=handed["now"])
        times.append(time.perf_counter() - begun)
    print(json.dumps([what, times]))
"""


def test_how_long_a_bundle_takes_with_and_without_native_code():
    repo = TufRepository("pump", "fan")
    repo.offer(package("pump", 1))
    first = repo.bundle()
    for _ in range(ROOTS_MAX):
        repo.rotate_root()
    bundles = {"first": first, "rotated": repo.bundle()}
    handed = {
        "root": repo.root_file.decode(),
        "now": NOW,
        "bundles": {n: {k: v.decode() for k, v in b.items()} for n, b in bundles.items()},
    }
    print(f"\n{sum(map(len, first.values()))} bytes of metadata")
    medians = {}
    for native in ("with", "without"):
        done = subprocess.run(
            [sys.executable, "-c", CHILD, native],
            input=json.dumps(handed),
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        for what, times in map(json.loads, done.stdout.splitlines()):
            medians[native, what] = statistics.median(times)
            print(f"{native:>7} cryptography, {what}: {1e3 * medians[native, what]:.2f} ms")
    assert medians["without", "first sight"] < 50 * medians["with", "first sight"]
