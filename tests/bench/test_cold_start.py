"""How soon a device scores after it was switched on, beside the time to import onnxruntime.

From the start of the process to the first score at a consumer, the model lying on the disk, sensors
sending all the while.  `after a restart` knows its model from its own journal, `the first` from the
configuration.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager

from tests.bench.stand import SCORES, child, cpu_s, quiet_broker
from tests.world import zoo
from tests.world.site import Site
from tests.world.waiting import eventually

ROUNDS = 7
RATE = 200  # readings a second
LONG = 10**6  # messages: more than are sent


@contextmanager
def site(broker, folder):
    folder.mkdir()
    stream = {"name": "s", "topic": "plant/+", "key": "{1}", "time": "ts", "qos": 0}
    models = [{"name": "m", "stream": "s", "path": str(zoo.mlp(folder / "m", name="m"))}]
    with Site(broker, folder, streams=[stream], models=models, hears=()) as it:
        yield it


def first_score_s(it, sink):
    """Seconds to the first score, and of processor until then."""
    it.config()
    began = scored = time.monotonic()
    it.start()
    while scored <= began:  # what it tells first may be left over from the last agent
        sink.say(1)
        scored = json.loads(sink.line())["began"]
    used = cpu_s(it.process.pid)
    eventually(lambda: it.model("m").get("active"), 30, "the model is told of")
    it.stop()
    return scored - began, used


def bare(environ):
    """Seconds, and of processor, that importing onnxruntime takes here and now."""
    began = time.monotonic()
    command = "import onnxruntime, time; print(time.process_time())"
    done = subprocess.run(
        [sys.executable, "-c", command],
        check=True,
        capture_output=True,
        env={**os.environ, **environ},
    )
    return time.monotonic() - began, float(done.stdout)


def test_the_first_score_after_a_cold_start(tmp_path, figure):
    runs = {"the first": [], "after a restart": []}
    reference = []
    # Compiled beforehand, as an installed package is; what this tree has may be older than it.
    environ = {"PYTHONPYCACHEPREFIX": str(tmp_path / "pyc"), "PYTHONDONTWRITEBYTECODE": ""}
    with (
        quiet_broker() as broker,
        child("sensors", broker.url, 0, RATE, LONG) as sensors,
        child("sink", broker.url, SCORES) as sink,
    ):
        sensors.say()
        for turn in range(-1, ROUNDS):
            with site(broker, tmp_path / str(turn)) as it:
                it.environ = environ
                for times in runs.values():
                    theirs, ours = bare(environ), first_score_s(it, sink)
                    if turn >= 0:  # the turn before is for compiling
                        reference.append(theirs)
                        times.append(ours)
    wall, cpu = (statistics.median(column) for column in zip(*reference, strict=True))
    for name, times in runs.items():
        its_wall, its_cpu = (statistics.median(column) for column in zip(*times, strict=True))
        least = min(one for one, _ in times)
        figure(
            f"cold start to the first score, {name}",
            f"{its_wall:.2f} s (least {least:.2f}); ÷ `import onnxruntime` {its_wall / wall:.1f}, "
            f"in processor time {its_cpu / cpu:.1f} ({its_cpu:.2f} s ÷ {cpu:.2f} s)",
            "1.0 s; 3",
        )
