"""Readings a second from publish to score, and what one costs, beside three references.

mosquitto_sub, under the same load from the same broker; a script as people write it (naive.py); and
a core: what the whole agent, worker included, takes of one at 50,000 readings a second.
"""

import statistics
from collections.abc import Callable

import pytest

from tests.bench.stand import SCORES, Lap, agent, by_mosquitto_sub, child, lap, naive, quiet_broker

ROUNDS = 3
FLOOD = 200_000  # messages at saturation
SLOW = 1000  # readings a second, which a naive script keeps up with at ease
PACED = 10_000  # readings a second, to compare costs
FAST = 40_000  # readings a second, where only we still keep up
FLOOR = 50_000  # readings a second that one core must carry


def median(laps: list[Lap], figure: Callable[[Lap], float]) -> float:
    return statistics.median(figure(one) for one in laps)


@pytest.mark.parametrize("qos", [0, 1])
def test_saturation_beside_mosquitto_sub(tmp_path, figure, qos):
    ours, theirs = [], []
    for turn in range(ROUNDS):
        # A broker a turn: one that knows the agent would keep what is sent while it is away.
        with quiet_broker() as broker, child("sink", broker.url, SCORES) as sink:
            theirs.append(by_mosquitto_sub(broker, qos=qos, number=FLOOD))
            with agent(broker, tmp_path / str(turn), qos) as pid:
                ours.append(lap(broker, sink, pid, qos=qos, rate=0, number=FLOOD))
    rate, sub = median(ours, lambda one: one.rate), statistics.median(theirs)
    figure(
        f"readings/s scored at saturation ÷ messages/s of `mosquitto_sub`, QoS {qos}",
        f"{rate / sub:.2f} ({rate:,.0f} ÷ {sub:,.0f}); the agent took "
        f"{median(ours, lambda one: one.cores):.2f} cores, "
        f"{median(ours, lambda one: one.cpu_us):.1f} µs a reading",
        "0.95",
    )
    assert not sum(one.lost for one in ours)


@pytest.mark.parametrize("qos", [0, 1])
def test_the_whole_agent_at_the_floor(tmp_path, figure, qos):
    with (
        quiet_broker() as broker,
        child("sink", broker.url, SCORES) as sink,
        agent(broker, tmp_path / "agent", qos, wait_ms=2) as pid,
    ):
        laps = [
            lap(broker, sink, pid, qos=qos, rate=FLOOR, number=3 * FLOOR) for _ in range(ROUNDS)
        ]
    cost = median(laps, lambda one: one.cpu_us)
    figure(
        f"CPU of the whole agent with {FLOOR:,} readings/s offered, `wait_ms = 2`, QoS {qos}",
        f"{cost:.1f} µs a reading; {median(laps, lambda one: one.rate):,.0f}/s scored",
        "20 µs",
    )
    assert not sum(one.lost for one in laps)


def test_a_hundred_readings_a_message(tmp_path, figure):
    load = {"qos": 0, "rate": 0, "number": FLOOD // 25, "readings": 100}
    with (
        quiet_broker() as broker,
        child("sink", broker.url, SCORES) as sink,
        agent(broker, tmp_path / "agent", 0, wait_ms=2) as pid,
    ):
        laps = [lap(broker, sink, pid, **load) for _ in range(ROUNDS)]
    cost = median(laps, lambda one: one.cpu_us)
    figure(
        "readings/s scored, 100 JSON readings a message",
        f"{median(laps, lambda one: one.rate):,.0f}, the agent taking "
        f"{median(laps, lambda one: one.cores):.2f} cores: {cost:.2f} µs a reading",
        "1,000,000",
    )
    assert not sum(one.lost for one in laps)


def test_what_a_reading_costs_beside_a_naive_script(tmp_path, figure):
    runs: dict[str, list[Lap]] = {}
    with quiet_broker() as broker, child("sink", broker.url, SCORES) as sink:

        def measure(name, pid, rate, number):
            load = {"qos": 0, "rate": rate, "number": number}
            runs.setdefault(name, []).append(lap(broker, sink, pid, **load))

        for turn in range(ROUNDS):
            with naive(broker, tmp_path / f"naive{turn}", 0) as pid:
                measure("naive, slow", pid, SLOW, 3 * SLOW)
                measure("naive", pid, PACED, 3 * PACED)
                measure("naive, full", pid, 0, 3 * PACED)
            for wait in (0, 2):
                with agent(broker, tmp_path / f"{wait}-{turn}", 0, wait_ms=wait) as pid:
                    measure(f"wait {wait}", pid, PACED, 3 * PACED)
                    measure(f"wait {wait}, fast", pid, FAST, 3 * FAST)

    def cost(name):
        return median(runs[name], lambda one: one.cpu_us)

    def age(name):
        return median(runs[name], lambda one: one.p99)

    for wait, goal in ((0, "0.45"), (2, "0.20")):
        name = f"wait {wait}"
        figure(
            f"CPU a reading at {PACED:,}/s ÷ a naive script, `wait_ms = {wait}`",
            f"{cost(name) / cost('naive'):.2f} ({cost(name):.1f} µs ÷ {cost('naive'):.1f} µs)",
            goal,
        )
    for wait, goal in ((0, "0.16"), (2, "0.08")):
        name, full = f"wait {wait}, fast", cost("naive, full")
        figure(
            f"CPU a reading at {FAST:,}/s ÷ a naive script at its own saturation, "
            f"`wait_ms = {wait}`",
            f"{cost(name) / full:.2f} ({cost(name):.1f} µs at "
            f"{median(runs[name], lambda one: one.rate):,.0f}/s ÷ {full:.1f} µs at "
            f"{median(runs['naive, full'], lambda one: one.rate):,.0f}/s)",
            goal,
        )
    slow = age("naive, slow")
    for wait, goal in ((0, "2"), (2, "4 ms")):
        name = f"wait {wait}"
        figure(
            f"publish to score received, p99, at {PACED:,}/s ÷ naive at {SLOW:,}/s, "
            f"`wait_ms = {wait}`",
            f"{age(name) / slow:.1f} ({age(name):.1f} ms ÷ {slow:.1f} ms); p50 "
            f"{median(runs[name], lambda one: one.p50):.1f} ms ÷ "
            f"{median(runs['naive, slow'], lambda one: one.p50):.1f} ms",
            goal,
        )
