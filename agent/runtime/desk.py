"""Where the live versions are asked, whoever asks: a command, or a program on this device.

A question goes through the lane and its worker as readings do, out of turn; it is counted nowhere
and its answer goes to nobody else.
"""

import asyncio

from agent.core.errors import RefusedError, UnavailableError
from agent.core.scores import Known, ScoreColumns
from agent.ports import Clock, Questions
from agent.runtime.lane import Lane
from agent.runtime.models import Models
from agent.runtime.questions import ask, known
from agent.runtime.scoring import Scoring

ANSWER_S_MAX = 10.0


class Desk(Questions):
    """The `Questions` port over the models of this device."""

    def __init__(self, models: Models, lane: Lane, clock: Clock) -> None:
        self._models = models
        self._lane = lane
        self._clock = clock

    async def known(self, model: str) -> Known:
        """As the port says."""
        scoring = self._scoring(model)
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                return await asyncio.wrap_future(self._lane.call(lambda: known(scoring)))
        except TimeoutError as error:
            raise self._silent(model) from error

    async def ask(
        self, model: str, inputs: object, *, release: int | None = None, place: str = "inputs"
    ) -> tuple[int, ScoreColumns]:
        """As the port says; `place` is what `inputs` are called in the sentence of a refusal."""
        scoring, now = self._scoring(model), self._clock.monotonic
        put = self._lane.call(lambda: ask(scoring, inputs, now(), release=release, place=place))
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                asked, answer = await asyncio.wrap_future(put)
                return asked, await asyncio.wrap_future(answer)
        except TimeoutError as error:
            raise self._silent(model) from error

    def _scoring(self, model: str) -> Scoring:
        row = self._models.rows.get(model)
        if row is None:
            raise RefusedError(f"this device has no model {model}", 404)
        return row.scoring

    @staticmethod
    def _silent(model: str) -> UnavailableError:
        return UnavailableError(f"{model} did not answer in {ANSWER_S_MAX:.0f} s")
