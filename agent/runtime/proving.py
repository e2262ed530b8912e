"""Readiness that is true: the live session reproduces its golden outputs, again and again.

A session that answers is not yet one that answers right: a driver, a GPU or memory may go bad
under it.  Wrong outputs are healed by a fresh worker; if that one is wrong too, by the
next provider; and where the CPU itself is wrong, the version is condemned.
"""

import asyncio
from dataclasses import dataclass

import structlog

from agent.core.accelerators import CPU
from agent.core.names import ModelRef
from agent.ports import Clock, WorkerLostError
from agent.runtime.models import Model, Models
from agent.runtime.seats import Seat

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Proof:
    """The last time golden samples were run on the live session of a version."""

    ref: ModelRef
    at: float  # monotonic
    why: str = ""  # what was wrong; empty if nothing was


class Prover:
    """`proofs` has the last one of each model."""

    def __init__(self, models: Models, clock: Clock, interval_s: float) -> None:
        self.proofs: dict[str, Proof] = {}
        self._models = models
        self._clock = clock
        self._interval_s = interval_s

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            for model in list(self._models.rows.values()):
                seat = model.scoring.slot.seat
                if seat is not None and not seat.lost:
                    await self._prove(model, seat)

    async def _prove(self, model: Model, seat: Seat) -> None:
        try:
            result = await asyncio.to_thread(seat.session.golden)
        except WorkerLostError:
            return  # told by the lane, and being healed
        if seat is not model.scoring.slot.seat:
            return  # swapped away meanwhile: it proves nothing about what serves
        before = self.proofs.get(model.name)
        self.proofs[model.name] = Proof(seat.ref, self._clock.monotonic(), result.why)
        if result.ok:
            return
        logger.error("the live session is wrong", model=str(seat.ref), why=result.why)
        if before is None or before.ref != seat.ref or not before.why:
            seat.session.kill()  # a fresh worker may be right
        elif seat.session.provider != CPU:
            seat.session.distrust(result.why)  # and if not, another provider
        else:
            self._models.condemned(model.name, seat.ref, f"went wrong while serving: {result.why}")

    def why_not(self, name: str) -> str:
        """Why the active version of a model cannot be relied on; empty if it can."""
        proof = self.proofs.get(name)
        model = self._models.rows.get(name)
        seat = model.scoring.slot.seat if model is not None else None
        if proof is None or seat is None or proof.ref != seat.ref:
            return ""  # proven when it was loaded
        return proof.why
