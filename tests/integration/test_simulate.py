"""The example's sensors on a real broker."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from agent.config import Mqtt
from agent.repository.conversation import Conversation

TOP = Path(__file__).resolve().parents[2]
SCRIPT = TOP / "examples" / "pump" / "simulate.py"


def simulate(*words):
    env = os.environ | {"PYTHONPATH": str(TOP)}
    return subprocess.run(
        [sys.executable, SCRIPT, *words],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_each_pump_speaks_on_its_own_topic_at_the_rate_asked_for(broker):
    with Conversation(Mqtt(url=broker.url)) as talk:
        talk.follow("plant/#")
        words = ("--mqtt", broker.url, "--rate", "20", "--pumps", "3", "--seconds", "2")
        done = simulate(*words)
        assert done.returncode == 0, done.stderr
        heard = []
        while (message := talk.next(0.5)) is not None:
            heard.append(message)
    counts = Counter(message.topic for message in heard)
    assert counts == {f"plant/line1/pump/p{i}/telemetry": 40 for i in (1, 2, 3)}
    times = [json.loads(m.payload)["ts"] for m in heard if "/p1/" in m.topic]
    assert times == sorted(times)
    assert 1.5 < times[-1] - times[0] < 4.0


def test_without_a_broker_it_says_so_in_one_sentence(free_port):
    done = simulate("--mqtt", f"mqtt://127.0.0.1:{free_port}", "--seconds", "1")
    assert done.returncode == 1
    assert done.stderr.startswith("simulate.py: mqtt://127.0.0.1")
    assert len(done.stderr.splitlines()) == 1
