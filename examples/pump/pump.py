"""Centrifugal pumps that wear out: a small physical simulation, deterministic by seed.

One pump is a 7.5 kW centrifugal water pump on a frequency converter.  Eight signals, as its sensors
would give them:

    temp_c        °C     motor winding
    vib_rms       mm/s   vibration of the bearing housing, 10-1000 Hz
    pressure_in   bar    suction, gauge
    pressure_out  bar    discharge, gauge
    flow          m³/h
    current       A      of the motor, per phase at 400 V
    speed_rpm     1/min
    bearing_temp  °C

The physics, simple and in this order:

    demand     the converter follows a demand between 68 % and 100 % of rated speed, as a
               first-order lag of 3 s
    hydraulics affinity laws: head H = H0·s² - k·Q² against the system's Hs + r·Q², where s is the
               share of rated speed; a worn impeller loses head (H0·(1 - 0.12·wear))
    suction    the level of the supply tank drifts; what the pump needs rises with the flow; below
               that it cavitates, which shakes it and costs head
    power      hydraulic power over an efficiency that falls beside the best point and with wear
    heat       losses warm the winding (time constant 300 s), friction warms the bearing (90 s) by
               (1 + 3·wear²)
    vibration  imbalance grows with the square of speed, the bearing's with wear^1.5, plus
               recirculation away from the best point, plus cavitation; independent, so their
               squares add
    wear       feeds on itself (exponential growth), faster at speed and while cavitating: from
               0.05 (new) to 1 (failing) in `life_s`; at 1.15 it fails and is overhauled

Nothing here reads a clock: whoever steps it says how many seconds pass.  Standard library only.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

SIGNALS = (
    "temp_c",
    "vib_rms",
    "pressure_in",
    "pressure_out",
    "flow",
    "current",
    "speed_rpm",
    "bearing_temp",
)

RATED_RPM = 1480.0
SHUTOFF_M, CURVE = 38.0, 8.0 / 60.0**2  # pump: head without flow, and its fall with flow²
STATIC_M, SYSTEM = 8.0, 22.0 / 60.0**2  # system: height to lift, and pipe losses with flow²
BEST_FLOW = 60.0  # m³/h at rated speed
BEST_EFFICIENCY, MOTOR_EFFICIENCY = 0.74, 0.9
METRES_PER_BAR = 10.2
AMPERES_PER_WATT = 1.0 / (math.sqrt(3.0) * 400.0 * 0.85)
IDLE_WATT = 350.0
KELVIN_PER_WATT = 0.045  # winding over ambient, per watt lost in the motor
NEW, WORN, FAULT, FAILED = 0.05, 0.35, 0.8, 1.15
CALIBRATION = 0.55  # wear at an average day's load against full load

NOISE = {  # standard deviation of each sensor, in its own unit
    "temp_c": 0.25,
    "vib_rms": 0.06,
    "pressure_in": 0.008,
    "pressure_out": 0.015,
    "flow": 0.35,
    "current": 0.08,
    "speed_rpm": 1.5,
    "bearing_temp": 0.2,
}
DIGITS = {"vib_rms": 3, "pressure_in": 3, "pressure_out": 3, "speed_rpm": 1}

Reading = dict[str, float]


@dataclass
class Pump:
    """One pump.  `step` lets time pass; `reading` is what its sensors say now.

    Args:
        name: its key in topics.
        seed: of everything random about it.
        wear: at the start; 0.05 is new, 1 is failing.
        life_s: from new to failing under an average load.
    """

    name: str
    seed: int = 0
    wear: float = NEW
    life_s: float = 40_000.0
    overhauls: int = 0
    time_s: float = 0.0
    cavitation: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(f"{self.name}/{self.seed}")
        self._phase = self._random.uniform(0.0, math.tau)
        self._imbalance = self._random.uniform(0.9, 1.3)  # mm/s at rated speed, when new
        self._level = 1.0  # bar of the supply tank
        self._speed = self._demand()
        self._winding = self._bearing = 0.0  # kelvin over ambient
        self._vibration = self._current = self._flow = self._head = self._suction = 0.0
        self._settle()

    @property
    def stage(self) -> str:
        """`healthy`, `worn` or `fault`: the truth, which no sensor tells."""
        return "healthy" if self.wear < WORN else "worn" if self.wear < FAULT else "fault"

    @property
    def ambient(self) -> float:
        """°C in the hall: a day's swing around 22."""
        return 22.0 + 4.0 * math.sin(math.tau * self.time_s / 86_400.0 + self._phase)

    def step(self, dt: float) -> None:
        """Let `dt` seconds pass; long ones are taken in parts, so any step is stable."""
        parts = max(1, math.ceil(dt))
        for _ in range(parts):
            self._advance(dt / parts)

    def reading(self) -> Reading:
        """What the sensors say, noise included."""
        truth = {
            "temp_c": self.ambient + self._winding,
            "vib_rms": self._vibration,
            "pressure_in": self._suction,
            "pressure_out": self._suction + self._head / METRES_PER_BAR,
            "flow": self._flow,
            "current": self._current,
            "speed_rpm": self._speed * RATED_RPM,
            "bearing_temp": self.ambient + self._bearing,
        }
        noisy = {name: truth[name] + self._random.gauss(0.0, NOISE[name]) for name in SIGNALS}
        noisy["vib_rms"] = max(noisy["vib_rms"], 0.0)
        noisy["flow"] = max(noisy["flow"], 0.0)
        return {name: round(value, DIGITS.get(name, 2)) for name, value in noisy.items()}

    def _advance(self, dt: float) -> None:
        self.time_s += dt
        self._speed += (self._demand() - self._speed) * _lag(dt, 3.0)
        self._level += (1.0 - self._level) * _lag(dt, 600.0)
        self._level += self._random.gauss(0.0, 0.01 * math.sqrt(dt))
        loss = self._hydraulics()
        self._winding += (KELVIN_PER_WATT * loss - self._winding) * _lag(dt, 300.0)
        self._bearing += (self._friction() - self._bearing) * _lag(dt, 90.0)
        self._wear_out(dt)

    def _demand(self) -> float:
        """Share of rated speed: a slow cycle of 10 minutes with a faster one on it."""
        slow = math.sin(math.tau * self.time_s / 600.0 + self._phase)
        fast = math.sin(math.tau * self.time_s / 97.0 + 2.0 * self._phase)
        return min(max(0.84 + 0.14 * slow + 0.03 * fast, 0.68), 1.0)

    def _hydraulics(self) -> float:
        """Flow, heads and current at this speed; returns the watts lost in the motor."""
        s, wear = self._speed, min(self.wear, 1.2)
        head_0 = SHUTOFF_M * s**2 * (1.0 - 0.12 * wear) * (1.0 - 0.1 * self.cavitation)
        self._flow = math.sqrt(max(head_0 - STATIC_M, 0.0) / (CURVE + SYSTEM))
        self._head = head_0 - CURVE * self._flow**2
        self._suction = self._level - 0.25 * (self._flow / BEST_FLOW) ** 2
        needed = 0.12 + 0.33 * (self._flow / BEST_FLOW) ** 2
        self.cavitation = min(max((needed - self._suction) / 0.3, 0.0), 1.0)
        off_best = self._flow / (BEST_FLOW * s) - 1.0
        efficiency = BEST_EFFICIENCY * max(1.0 - off_best**2, 0.2) * (1.0 - 0.18 * wear)
        shaft = 9.81 * 1000.0 * self._flow / 3600.0 * self._head / efficiency
        electric = shaft / MOTOR_EFFICIENCY + IDLE_WATT * s
        self._current = electric * AMPERES_PER_WATT
        imbalance = self._imbalance * s**2 * (1.0 + 0.5 * wear)
        bearing = 5.0 * wear**1.5 * s
        self._vibration = math.hypot(imbalance, bearing, 1.5 * abs(off_best), 3.0 * self.cavitation)
        return electric - shaft

    def _friction(self) -> float:
        """Kelvin over ambient that the bearing tends to."""
        return 0.25 * self._winding + 14.0 * self._speed * (1.0 + 3.0 * min(self.wear, 1.2) ** 2)

    def _wear_out(self, dt: float) -> None:
        load = self._speed**3 * (1.0 + 2.0 * self.cavitation) / CALIBRATION
        self.wear *= math.exp(dt * load * math.log(1.0 / NEW) / self.life_s)
        if self.wear >= FAILED:
            self.wear, self.overhauls = NEW, self.overhauls + 1

    def _settle(self) -> None:
        """Start warm, as a pump that has run for long."""
        loss = self._hydraulics()
        self._winding = KELVIN_PER_WATT * loss
        self._bearing = self._friction()


def plant(count: int, seed: int, life_s: float = 40_000.0) -> list[Pump]:
    """`count` pumps `p1`, `p2`, …: the last one half worn, the others in good health."""
    ages = random.Random(seed)
    pumps = []
    for i in range(1, count + 1):
        wear = 0.45 if i == count and count > 1 else ages.uniform(NEW, 0.15)
        pumps.append(Pump(f"p{i}", seed, wear, life_s))
    return pumps


def readings(
    pumps: list[Pump], *, start: float, dt: float, pace: float = 1.0
) -> Iterator[tuple[Pump, Reading]]:
    """One reading of each pump every `dt` seconds from `start` on, without end.

    `ts` in each reading is event time; the pumps live `pace` seconds in each of its seconds.
    """
    tick = 0
    while True:
        for pump in pumps:
            pump.step(dt * pace)
            yield pump, {"ts": round(start + tick * dt, 3), **pump.reading()}
        tick += 1


def _lag(dt: float, time_constant: float) -> float:
    return 1.0 - math.exp(-dt / time_constant)
