"""What every model needs of the rest of the agent, put together once."""

import asyncio
import random
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from agent.adapters.machine import LocalMachine
from agent.runtime.archive import Archive
from agent.runtime.assessing import Assessor
from agent.runtime.events import Events
from agent.runtime.healing import Healer
from agent.runtime.models import Models, World
from agent.runtime.receipts import SwapTrace

if TYPE_CHECKING:
    from agent.app import choices
    from agent.app.body import Body

HEALERS = 4  # workers brought back at once


def models(
    body: "Body",
    tasks: asyncio.TaskGroup,
    *,
    events: Events,
    archive: Archive,
    changed: "choices.Told",
    dice: random.Random,
) -> Models:
    """The rows of the models, none yet, and who heals their workers."""
    config = body.config

    def receipt(model: str, trace: SwapTrace) -> Awaitable[None]:
        saving = archive.take(model, trace)
        changed()
        return saving

    world = World(
        lane=body.lane,
        engine=body.engine,
        store=body.store,
        fetcher=body.fetcher,
        journal=body.journal,
        outbox=body.outbox,
        clock=body.clock,
        topics=body.topics,
        random=dice,
        run_s_max=config.engine.run_s_max,
        receipt_s=config.report.receipt,
        ring=body.ring,
        shadow_share=config.engine.shadow_share,
        assessor=Assessor(LocalMachine(), body.engine),
        receipt=receipt,
        degraded=lambda model, why: events.tell("degraded", model, why),
        refused=lambda model, why: events.tell("refusal", model, why),
        changed=changed,
        factory=frozenset(package.ref for _, package in body.factory.values()),
    )
    models = Models(world, tasks)
    models.healer = Healer(
        body.lane,
        body.rooms.enter_context(ThreadPoolExecutor(HEALERS, "heal")),
        body.clock,
        deaths_max=config.engine.deaths_max,
        deaths_s=config.engine.deaths_s,
        condemned=models.condemned,
        gives_way=models.gives_way,
        changed=changed,
        random=dice,
        fell=lambda model, why: events.tell("degraded", model, why),
    )
    body.rooms.callback(models.healer.stop)
    return models
