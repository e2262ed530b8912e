"""`providers = "auto"`: each provider is tried on a version's golden samples, and remembered.

Each is tried in a worker of its own, one after another, so that one that crashes takes nobody with
it and no two candidates hold memory at once.
"""

import json
import statistics
import threading
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from agent.core.accelerators import AUTO, CPU, Trial, ranked
from agent.core.brief import Brief
from agent.core.errors import MisfitError, UnavailableError, UnfitError
from agent.core.names import ModelRef
from agent.ports import Notes, Session

log = structlog.get_logger(__name__)

DOCUMENT = "providers"
SCHEMA = 1
KEPT_MAX = 64


class Chooser:
    """`notes` is where choices outlive the agent; None: they do not."""

    def __init__(self, notes: Notes | None) -> None:
        self._notes = notes
        self._lock = threading.Lock()
        self._kept: dict[str, Any] | None = None

    def trials(
        self, ref: ModelRef, key: str, here: Sequence[str], load: Callable[[str], Session]
    ) -> list[Trial]:
        """What each of `here` made of `ref`: remembered, if `key` (runtime, driver, device,
        options) is what it was then; else measured now.  `load` gives a session on one of them.
        """
        with self._lock:
            kept = self._remembered().get(ref.digest)
        if kept is not None and kept.get("key") == key:
            try:
                return [Trial(**trial) for trial in kept["trials"]]
            except (KeyError, TypeError):
                log.warning("providers.forgotten", model=str(ref), why="what was kept is damaged")
        trials, certain = [], True
        for provider in here:
            trial, sure = _tried(provider, load)
            trials.append(trial)
            certain = certain and sure
            log.info("provider.tried", model=str(ref), **trial.document())
        if certain:
            self._remember(ref, {"key": key, "trials": [trial.document() for trial in trials]})
        return trials

    def _remembered(self) -> dict[str, Any]:
        if self._kept is None:
            raw = self._notes.load_document(DOCUMENT) if self._notes is not None else None
            try:
                self._kept = dict(json.loads(raw)["choices"]) if raw else {}
            except (ValueError, KeyError, TypeError):
                self._kept = {}
        return self._kept

    def _remember(self, ref: ModelRef, choice: dict[str, Any]) -> None:
        with self._lock:
            kept = self._remembered()
            kept.pop(ref.digest, None)
            kept[ref.digest] = choice
            for digest in list(kept)[:-KEPT_MAX]:
                del kept[digest]
            body = json.dumps({"schema": SCHEMA, "choices": kept}).encode()
            if self._notes is not None:
                self._notes.save_document(DOCUMENT, body)


def resolved(brief: Brief, trials: Sequence[Trial]) -> list[str]:
    """The wishes of `brief` with `auto` replaced by those that proved themselves, fastest first.

    Nothing follows the CPU, which always works: its worker needs no way to a driver.
    """
    wishes: list[str] = []
    for wish in brief["providers"]:
        wishes += ranked(trials) if wish == AUTO else [wish]
    return list(dict.fromkeys(wishes[: wishes.index(CPU) + 1] if CPU in wishes else wishes))


def _tried(provider: str, load: Callable[[str], Session]) -> tuple[Trial, bool]:
    """And whether it would be the same another time, as far as one can tell."""
    try:
        session = load(provider)
    except (UnfitError, MisfitError) as error:
        return Trial(provider, str(error)), True
    except UnavailableError as error:
        return Trial(provider, str(error)), False
    try:
        golden = session.golden()
        if not golden.ok:
            return Trial(provider, golden.why or "it does not reproduce the golden outputs"), True
        measured = session.measure()
        return Trial(
            provider,
            sample_ms=statistics.median(measured.sample_ms),
            load_ms=session.load_ms,
            rss_mb=session.rss_bytes() / 2**20,
        ), True
    except (UnfitError, MisfitError) as error:
        return Trial(provider, str(error)), True
    except UnavailableError as error:
        return Trial(provider, str(error)), False
    finally:
        session.close()
