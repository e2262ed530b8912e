"""Waiting for something to come true, with a deadline; the only way a test may wait."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S, POLL_S_MAX = 0.01, 0.05  # who has waited long looks less often: to look costs both sides
NOT_YET = (LookupError, TypeError, AttributeError)  # a part that is asked for is not there yet


def eventually(predicate: Callable[[], T], seconds: float = 10.0, what: str = "") -> T:
    """Poll until `predicate` gives something true, and return that.

    A predicate that looks into what is not there yet has not come true.

    Raises:
        AssertionError: it did not within `seconds`; the text holds `what` and the last value.
    """
    began = time.monotonic()
    while True:
        value, missing = _ask(predicate)
        if value:
            return value
        if (waited := time.monotonic() - began) >= seconds:
            raise AssertionError(_too_late(what, seconds, missing or value)) from missing
        time.sleep(min(max(POLL_S, waited / 20), POLL_S_MAX))


async def eventually_async(predicate: Callable[[], T], seconds: float = 10.0, what: str = "") -> T:
    """The same for a test that is itself a coroutine: the loop runs on between polls."""
    deadline = time.monotonic() + seconds
    while True:
        value, missing = _ask(predicate)
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(_too_late(what, seconds, missing or value)) from missing
        await asyncio.sleep(POLL_S)


def _ask(predicate: Callable[[], T]) -> "tuple[T | None, Exception | None]":
    try:
        return predicate(), None
    except NOT_YET as error:
        return None, error


def _too_late(what: str, seconds: float, last: object) -> str:
    return f"not within {seconds:g} s: {what or 'the predicate'}; last seen: {last!r}"
