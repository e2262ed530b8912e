"""A long time without a link, in a process of its own, so that its memory can be measured.

    python -m tests.world.offline URL FOLDER ROWS OUTBOX_MB

Scores `ROWS` rows as the lane would, a record each, into the outbox of an agent whose broker is not
there; says so in a line of JSON; when told "go" sends all of it to URL, and says how long it took.
"""

import asyncio
import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from agent.adapters.mqtt.link import MqttLink
from agent.app import memory
from agent.app.choices import SystemClock
from agent.config import Config, Mqtt
from agent.core.scores import ScoreColumns, encode
from agent.ports import Entry, Record
from agent.runtime.uplink import Uplink

AHEAD_MAX = 256  # entries that may wait for their commit, as the lane bounds it
WARM_ROWS = 500
TOPIC, GAPS = "edge/dev-1/scores/m", "edge/dev-1/events"


def entry(seq: int) -> Entry:
    """One reading a burst: the least there is."""
    body = encode(
        model="pump-anomaly",
        release=7,
        stream="pump",
        epoch=1,
        seq=seq,
        keys=[f"pump-{seq % 50}"],
        times=np.array([1.7e9 + seq / 10 + 0.0125]),
        columns=ScoreColumns(np.array([seq % 1009 / 1009], np.float32), alarm=[False]),
    )
    record = Record(TOPIC, body, 1, 1, "pump", "pump-anomaly", seq)
    return Entry([record], {("pump", "pump-anomaly"): b'{"scored":%d}' % seq})


def letter(gap) -> Record:
    told = [gap.id, gap.first_seq, gap.last_seq, gap.rows]
    return Record(GAPS, json.dumps(told).encode(), priority=0)


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def fill(outbox, first: int, rows: int) -> float:
    """Add them; the highest memory seen."""
    highest = 0.0
    for seq in range(first, first + rows):
        ticket = outbox.add(entry(seq))
        while ticket - outbox.committed() > AHEAD_MAX:
            time.sleep(0.0005)
        if seq % 4096 == 0:
            highest = max(highest, rss_mb())
    while outbox.committed() < ticket:
        time.sleep(0.0005)
    return max(highest, rss_mb())


async def drain(outbox, link) -> float:
    """Send all of it; seconds."""
    linked = asyncio.create_task(link.run())
    await link.connected()
    began = time.monotonic()
    sending = asyncio.create_task(Uplink(outbox, link, letter).run())
    while outbox.depth()["records"] or outbox.gaps():  # noqa: ASYNC110  # it has no word for empty
        await asyncio.sleep(0.01)
    took = time.monotonic() - began
    for task in (sending, linked):
        task.cancel()
    await asyncio.gather(sending, linked, return_exceptions=True)
    return took


def main() -> None:
    url, folder, rows, outbox_mb = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    config = Config.model_validate({"store": {"dir": folder, "outbox_mb": outbox_mb}})
    with ExitStack() as rooms:
        _, outbox, _ = memory.opened(config, SystemClock(), rooms)
        fill(outbox, 0, WARM_ROWS)
        before, began = rss_mb(), time.monotonic()
        highest = fill(outbox, WARM_ROWS, rows - WARM_ROWS)
        took = time.monotonic() - began
        grown = {"grown_mb": highest - before, "rss_mb": highest, "fill_s": took}
        print(json.dumps({**grown, **outbox.depth()}), flush=True)
        assert sys.stdin.readline() == "go\n"
        link = MqttLink(Mqtt(url=url, reconnect_s_max=1), client_id="dev-1")
        print(
            json.dumps({"drain_s": asyncio.run(drain(outbox, link)), **outbox.depth()}), flush=True
        )


if __name__ == "__main__":
    main()
