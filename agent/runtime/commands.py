"""Commands: few, never retained, answered once; the rest of control is desired and reported."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import structlog

from agent.core.errors import RefusedError, UnavailableError
from agent.core.rollout import ABANDONABLE, LIVE, Condemned, Forgiven, Phase
from agent.core.topics import Topics
from agent.core.wire import Command, answer, command_id, parse_command
from agent.ports import Clock, Journal, Link, Message
from agent.runtime.desk import Desk
from agent.runtime.lane import Lane
from agent.runtime.models import Model, Models
from agent.runtime.wishes import Wishes

logger = structlog.get_logger(__name__)

REMEMBERED_MAX = 256  # ids, so that a command that comes twice is done once
RECEIPTS_TOLD_MAX = 4  # of each model where none is named: an answer must pass the broker


class Commands:
    """`state` gives the reported document; `receipts` what is kept by model, the newest first."""

    def __init__(
        self,
        *,
        models: Models,
        wishes: Wishes,
        lane: Lane,
        desk: Desk,
        link: Link,
        journal: Journal,
        clock: Clock,
        topics: Topics,
        state: Callable[[], Mapping[str, Any]],
        receipts: Callable[[], Mapping[str, Sequence[Mapping[str, Any]]]],
    ) -> None:
        self._models = models
        self._wishes = wishes
        self._lane = lane
        self._desk = desk
        self._link = link
        self._journal = journal
        self._clock = clock
        self._topics = topics
        self._state = state
        self._receipts = receipts
        self._done: list[str] | None = None

    async def take(self, name: str, message: Message) -> None:
        """Do what `message` asks and answer it.  A retained command is ignored: it is stale."""
        if message.retain:
            logger.warning("retained command ignored", command=name)
            return
        ident = command_id(message.payload)
        try:
            command = parse_command(name, message.payload, self._clock.wall())
            if await self._seen(command.id):
                return
            result = await self._do(command)
            body = answer(command.id, **result)
        except (RefusedError, UnavailableError) as error:
            code = error.code if isinstance(error, RefusedError) else 503
            logger.warning("command refused", command=name, why=str(error))
            body = answer(ident, code=code, why=str(error))
        topic = message.response_topic
        if topic is None or self._topics.is_order(topic):
            topic = self._topics.answer(ident) if ident else None
        if topic is not None:
            try:
                await self._link.publish(topic, body, correlation=message.correlation)
            except (UnavailableError, RefusedError) as error:
                logger.warning("answer not delivered", command=name, why=str(error))

    async def _seen(self, ident: str) -> bool:
        if self._done is None:
            raw = await asyncio.to_thread(self._journal.load_document, "commands")
            if self._done is None:  # no other command was faster
                self._done = json.loads(raw) if raw else []
        if ident in self._done:
            return True
        self._done = [*self._done, ident][-REMEMBERED_MAX:]
        body = json.dumps(self._done).encode()
        try:
            await asyncio.to_thread(self._journal.save_document, "commands", body)
        except UnavailableError:  # it is not done: who sends it again is to be heard
            self._done = [one for one in self._done if one != ident]
            raise
        return False

    async def _do(self, command: Command) -> dict[str, Any]:
        args = command.args
        match command.name:
            case "ping":
                return {"time": self._clock.wall()}
            case "rollback":
                return await self._rollback(self._model(args["model"]))
            case "retry":
                await self._model(args["model"]).driver.submit(Forgiven())
                self._wishes.renew()
                return {}
            case "pause" | "resume":
                return await self._pause(args["stream"], paused=command.name == "pause")
            case "score":
                return await self._score(args["model"], args.get("inputs"))
            case _:
                return self._diagnostics(args.get("model"))

    def _diagnostics(self, model: object) -> dict[str, Any]:
        """The state, and the receipts of `model`; the last few of each model if none is named."""
        kept = self._receipts()
        if isinstance(model, str) and model:
            receipts = {model: kept.get(self._model(model).name, ())}
        else:
            receipts = {name: some[:RECEIPTS_TOLD_MAX] for name, some in kept.items()}
        return {"state": dict(self._state()), "receipts": receipts}

    def _model(self, name: str) -> Model:
        model = self._models.rows.get(name)
        if model is None:
            raise RefusedError(f"this device has no model {name}", 404)
        return model

    async def _rollback(self, model: Model) -> dict[str, Any]:
        now = model.driver.now
        if now.phase in ABANDONABLE - LIVE:
            why = "is only being fetched; desire another release to abandon it"
            raise RefusedError(f"{now.candidate} {why}", 409)
        if now.phase is Phase.RETIRING:
            raise RefusedError(f"{model.name} is being retired", 409)
        if now.candidate is not None:
            bad = now.candidate
        elif now.active is not None and now.previous is not None:
            bad = now.active
        else:
            raise RefusedError(f"{model.name} has no known good version to go back to", 409)
        to = now.previous if bad == now.active and now.candidate is None else now.known_good
        if to is not None and not self._wishes.permits(to.name, to.release):
            raise RefusedError(f"{to} is below the security floor its repository has signed", 403)
        await model.driver.submit(Condemned(bad, "rolled back by command"))
        return {"from": bad.release, "to": to.release if to else None}

    async def _pause(self, stream: str, *, paused: bool) -> dict[str, Any]:
        intake = self._lane.intakes.get(stream)
        if intake is None:
            raise RefusedError(f"this device has no stream {stream}", 404)

        def turn() -> None:
            intake.paused = paused

        await asyncio.wrap_future(self._lane.call(turn))
        return {"stream": stream, "paused": paused}

    async def _score(self, model: object, inputs: object) -> dict[str, Any]:
        _, columns = await self._desk.ask(str(model), inputs, place="score: args.inputs")
        score = [None if not np.all(np.isfinite(s)) else s for s in columns.score.tolist()]
        return {"model": model, "score": score, "label": columns.label}
