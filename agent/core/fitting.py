"""Whether a version's memory fits this device, and how it gets in: beside the active one, or after.

Megabytes are 2**20 bytes.  What is decided here is a plan: the kernel has the last word, and what
preflight then measures is planned with once more.  Memory of accelerators is not in it.
"""

from dataclasses import dataclass
from typing import Literal

WORKER_MB = 48.0  # an empty worker: interpreter, numpy, onnxruntime
_BYTES_RATIO = 1.25  # of a loaded model to its file, loaded by path, with room for one batch
_RESERVE_SHARE = 0.05
_RESERVE_MB = (24.0, 256.0)  # at least, at most
MB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a version needs: as its manifest says, as it was measured here, and its files' bytes.

    What was measured counts; else what was said; else a guess from the bytes.
    """

    stated_mb: float | None = None
    measured_mb: float | None = None
    package_bytes: int = 0

    @property
    def mb(self) -> float:
        """The figure to plan with."""
        if self.measured_mb is not None:
            return self.measured_mb
        if self.stated_mb is not None:
            return self.stated_mb
        return WORKER_MB + _BYTES_RATIO * self.package_bytes / MB

    @property
    def words(self) -> str:
        """The same for a sentence."""
        if self.measured_mb is not None:
            return f"{self.mb:.0f} MB (measured here)"
        if self.stated_mb is not None:
            return f"{self.mb:.0f} MB"
        return f"about {self.mb:.0f} MB (a guess: its manifest has no memory_mb)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Have:
    """What there is: all of it, what is free now, and what the active version would give back.

    None where this machine does not tell.  `active_mb` is None where no version is active.
    `source` says who set the bound.
    """

    limit_mb: float | None
    free_mb: float | None
    active_mb: float | None = None
    source: str = ""

    @property
    def reserve_mb(self) -> float:
        """Left alone: for the agent's own growth, buffers, and the error of the figures."""
        if self.limit_mb is None:
            return _RESERVE_MB[0]
        return min(max(_RESERVE_SHARE * self.limit_mb, _RESERVE_MB[0]), _RESERVE_MB[1])

    @property
    def most_mb(self) -> float | None:
        """What could ever be given to models here; None where nobody can tell."""
        return None if self.limit_mb is None else max(0.0, self.limit_mb - self.reserve_mb)


@dataclass(frozen=True, slots=True)
class Overlap:
    """Load it beside the active version; `warning` is empty, or says what is uncertain about it."""

    need_mb: float
    spare_mb: float | None  # left above the reserve once it is loaded; None: not known
    warning: str = ""


@dataclass(frozen=True, slots=True)
class DropFirst:
    """Give the active version's memory back first; `warning` says why, where it was not wished."""

    need_mb: float
    spare_mb: float
    given_back_mb: float
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Unschedulable:
    """It does not fit, whatever is dropped; `why` has the numbers."""

    need_mb: float
    short_mb: float
    why: str


Plan = Overlap | DropFirst | Unschedulable


def plan(need: Need, have: Have, wish: Literal["roomy", "tight"]) -> Plan:
    """How a version gets in.

    roomy  beside the active version if both fit, else after it, with a warning
    tight  after the active version, always
    Without an active version there is nothing to drop, and both are the same.
    """
    if have.free_mb is None:
        return _unmeasured(need, have, wish)
    room = have.free_mb - have.reserve_mb
    spare = room - need.mb
    if have.active_mb is None:
        return Overlap(need.mb, spare) if spare >= 0 else _unschedulable(need, have, room)
    if wish == "roomy" and spare >= 0:
        return Overlap(need.mb, spare)
    dropped = spare + have.active_mb
    if dropped < 0:
        return _unschedulable(need, have, room)
    warning = ""
    if wish == "roomy":
        warning = (
            f"it needs {need.words} and {_at_least_0(room):.0f} MB are free for it{_by(have)}: the"
            f" active version is dropped first, and readings wait until this one has loaded"
        )
    return DropFirst(need.mb, dropped, have.active_mb, warning)


def _unmeasured(need: Need, have: Have, wish: Literal["roomy", "tight"]) -> Plan:
    """Nobody says what is free: only what is impossible in any case is refused."""
    if have.most_mb is not None and need.mb > have.most_mb:
        return _unschedulable(need, have, have.most_mb)
    if wish == "tight" and have.active_mb is not None:
        return DropFirst(need.mb, 0.0, have.active_mb)
    return Overlap(need.mb, None, f"it needs {need.words}; this machine does not say what is free")


def _unschedulable(need: Need, have: Have, room: float) -> Unschedulable:
    active = have.active_mb or 0.0
    if have.free_mb is None:
        active, there = 0.0, f"this device has {room:.0f} MB for models at most{_by(have)}"
    else:
        there = f"{_at_least_0(room):.0f} MB are free for it{_by(have)}"
        if have.active_mb is not None:
            there += f", and dropping the active version would give back {active:.0f} MB"
    short = need.mb - room - active
    return Unschedulable(
        need.mb,
        short,
        f"it needs {need.words} of memory; {there}: {short:.0f} MB are missing. Retire another"
        f" model, raise the limit, or publish a smaller one",
    )


def _by(have: Have) -> str:
    limit = "" if have.limit_mb is None else f" of {have.limit_mb:.0f} MB"
    source = f", {have.source}" if have.source else ""
    return f" (reserve {have.reserve_mb:.0f} MB{limit}{source})"


def _at_least_0(value: float) -> float:
    return max(0.0, value)
