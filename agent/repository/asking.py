"""A command to a device, and its answer."""

import secrets
import time
from collections.abc import Mapping
from typing import Any

from agent.core import wire
from agent.core.errors import UnavailableError
from agent.core.strict import read_object
from agent.core.topics import Topics
from agent.repository.conversation import Conversation

ANSWER_BYTES_MAX = 4 * 2**20
EXPIRES_S_MIN = 60.0  # clocks differ: a command of ours is good for at least so long


def ask(
    talk: Conversation, device: str, name: str, args: Mapping[str, Any], *, timeout_s: float
) -> dict[str, Any]:
    """Send the command `name` and wait for its answer, whatever it says.

    Raises:
        UnavailableError: none came in time.
        RefusedError: the answer is none, or the broker does not let us ask.
    """
    ident = secrets.token_hex(8)
    topics = Topics(talk.root, device)
    talk.follow(topics.answer(ident))
    talk.publish(
        topics.command(name),
        wire.command(ident, time.time() + max(timeout_s, EXPIRES_S_MIN), args),
        response_topic=topics.answer(ident),
        correlation=ident.encode(),
    )
    for message in talk.messages(time.monotonic() + timeout_s):
        if message is not None and message.topic == topics.answer(ident):
            what = f"the answer of {device}"
            return read_object(message.payload, what, bytes_max=ANSWER_BYTES_MAX)
    raise UnavailableError(
        f"{device} did not answer {name} within {timeout_s:g} s;"
        f" see whether it is online: edge-agent status --device {device}"
    )
