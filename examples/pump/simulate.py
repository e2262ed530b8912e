"""The pumps of `pump.py` as sensors on a broker, each on plant/line1/pump/NAME/telemetry.

    python examples/pump/simulate.py --mqtt mqtt://127.0.0.1:1883 --rate 20 --pumps 3 --seed 7

The pumps live `--pace` seconds in each real second, so that wear can be watched.  Runs until
Ctrl-C, or for `--seconds`.
"""

import argparse
import itertools
import json
import os
import sys
import time

from pump import plant, readings

from agent.core.errors import RefusedError, UnavailableError
from agent.repository import dial
from agent.repository.conversation import Conversation

TOPIC = "plant/line1/pump/{}/telemetry"
BEHIND_S_MAX = 1.0  # what was missed longer ago is not made up for


def main(words: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mqtt", default="", help="the broker; else EDGE_AGENT__MQTT__URL")
    parser.add_argument("--rate", type=float, default=20.0, help="readings a second of each pump")
    parser.add_argument("--pumps", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--pace", type=float, default=20.0, help="pump seconds in a real second")
    parser.add_argument(
        "--life", type=float, default=40_000.0, help="pump seconds from new to worn"
    )
    parser.add_argument("--seconds", type=float, default=0.0, help="stop after so many; 0: never")
    asked = parser.parse_args(words)
    if min(asked.rate, asked.pumps, asked.pace, asked.life) <= 0:
        parser.error("--rate, --pumps, --pace and --life must be above 0")
    try:
        settings = dial.settings(asked.mqtt, "", os.environ)
    except RefusedError as error:
        parser.error(str(error))
    try:
        with Conversation(settings) as talk:
            play(talk, asked)
            talk.flush()
    except (RefusedError, UnavailableError) as error:
        print(f"simulate.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def play(talk: Conversation, asked: argparse.Namespace) -> None:
    """Publish readings at their time, as long as asked."""
    pumps = plant(asked.pumps, asked.seed, asked.life)
    gap = 1.0 / asked.rate
    ticks = round(asked.seconds * asked.rate) if asked.seconds else None
    endless = readings(pumps, start=time.time(), dt=gap, pace=asked.pace)
    due = time.monotonic()
    for _ in itertools.count() if ticks is None else range(ticks):
        for pump, reading in itertools.islice(endless, len(pumps)):
            # What a stalled machine sends late still says when it was measured: now.
            body = json.dumps(reading | {"ts": round(time.time(), 3)}, separators=(",", ":"))
            talk.post(TOPIC.format(pump.name), body.encode())
        due = max(due + gap, time.monotonic() - BEHIND_S_MAX)
        time.sleep(max(due - time.monotonic(), 0.0))


if __name__ == "__main__":
    sys.exit(main())
