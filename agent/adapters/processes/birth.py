"""How a worker of one version is born: started, told what to load, and believed or blamed.

A worker that dies or hangs while it loads on an accelerator says nothing of the version yet: the
next one leaves that provider out.
"""

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from agent.adapters.processes.answers import is_loaded
from agent.adapters.processes.child import Child
from agent.adapters.processes.compiled import Shelf
from agent.adapters.processes.limits import Limits
from agent.adapters.processes.pipe import first_arena_bytes
from agent.core.accelerators import CPU
from agent.core.brief import Brief, blamed
from agent.core.errors import MisfitError, UnavailableError, UnfitError
from agent.core.names import ModelRef
from agent.ports import WorkerLostError
from agent.worker.refusals import is_memory

log = structlog.get_logger(__name__)

JOBS_MAX = 2  # one that runs and one that waits: the worker never idles between batches
LOSSES_MAX = 2  # of the device that a provider runs on, before the next provider is asked
# What a model's own code can bring about; SIGKILL is the kernel short of memory, or a person.
CRASHES = {
    getattr(signal, name, None)
    for name in ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGXCPU")
}
XCPU = getattr(signal, "SIGXCPU", None)  # it took more processor time than it was given
KILL = getattr(signal, "SIGKILL", None)


class _GoneError(Exception):
    """It ended, or did not end, while it loaded; `verdict` says whose fault that would be."""

    def __init__(self, verdict: Exception) -> None:
        super().__init__(str(verdict))
        self.verdict = verdict


@dataclass(slots=True, kw_only=True)
class Birth:
    """All that is known of a version before it has a worker.  `hello` hears what each worker says
    of itself, and `told` of each provider that it is being loaded on.
    """

    ref: ModelRef
    folder: Path
    brief: Brief
    limits: Limits
    memory_bytes: int
    dial: bool
    shelf: Shelf
    hello: Callable[[Mapping[str, Any]], object] = lambda _: None
    told: Callable[[str], None] = lambda _: None
    losses: dict[str, int] = field(default_factory=dict)

    def born(self, *, background: bool) -> tuple[Child, dict[str, Any]]:
        """A worker with the version loaded, and what it said of it.

        Raises:
            UnfitError, MisfitError, UnavailableError: there is none.
        """
        while True:
            child = self._started(background=background)
            try:
                answer = self._load(child, background=background)
            except _GoneError as gone:
                child.close(at_once=True)
                if child.doing in ("", CPU):
                    raise gone.verdict from gone
                log.warning("worker.provider_failed", provider=child.doing, why=str(gone))
                self.brief["avoid"][child.doing] = str(gone)
            except BaseException:
                child.close(at_once=True)
                raise
            else:
                break
        log.info(
            "worker.loaded",
            model=str(self.ref),
            pid=child.pid,
            provider=answer["provider"],
            load_ms=round(answer["load_ms"], 1),
            priority=answer["priority"],
            compiled=answer["compiled"],
            jail="+".join(child.hello["jail"]),
        )
        return child, answer

    def lost_device(self, provider: str) -> None:
        """The device that it ran on is lost: it may come back, once; then another has to do."""
        self.losses[provider] = self.losses.get(provider, 0) + 1
        if self.losses[provider] >= LOSSES_MAX:
            why = f"its device was lost {self.losses[provider]} times"
            self.brief["avoid"][provider] = why

    def forgive(self) -> None:
        """Nothing else would do: whoever was left out may be tried again."""
        self.brief["avoid"].clear()
        self.losses.clear()

    def _started(self, *, background: bool) -> Child:
        outfit = self.brief["outfit"]
        outfit |= self.shelf.opened()
        child = Child(
            self.folder,
            providers=tuple(self.brief["providers"]),
            memory_bytes=self.memory_bytes,
            arena_bytes=first_arena_bytes(JOBS_MAX),
            start_s=self.limits.start_s,
            dial=self.dial,
            background=background,
            outfit=outfit,
        )
        self.hello(child.hello)
        return child

    def _load(self, child: Child, *, background: bool) -> dict[str, Any]:
        allowed_s = self.limits.load_s
        if tuple(self.brief["providers"]) == (CPU,):
            allowed_s = min(allowed_s, self.limits.load_cpu_s)
        allowed_s *= self.brief["threads"]
        question = {"do": "load", "brief": self.brief, "background": background}
        question["cpu_s"] = allowed_s
        started = time.monotonic()
        try:
            answer = child.ask(question, self.limits.load_s, self.told)
        except TimeoutError as error:
            took = time.monotonic() - started
            why = f"{self.ref} did not load within {took:.0f} s on this device"
            raise _GoneError(MisfitError(why)) from error
        except WorkerLostError as error:
            raise _GoneError(self._verdict(child, error, allowed_s)) from error
        finally:
            self.told("")
        if "refused" in answer:
            raise blamed(self.ref, str(answer["refused"]), str(answer.get("why")))
        if not is_loaded(answer):
            raise UnfitError(f"the worker broke the protocol while loading {self.ref}")
        return answer

    def _verdict(self, child: Child, error: WorkerLostError, allowed_s: float) -> Exception:
        number = child.signal_of_death()
        if number == XCPU:
            return MisfitError(f"{self.ref} did not load within {allowed_s:g} s of processor time")
        if is_memory(error):
            return MisfitError(
                f"the worker {error} while loading {self.ref}; it may not have more memory"
            )
        if number in CRASHES:
            return UnfitError(f"the worker {error} while loading {self.ref}")
        if number == KILL:
            return MisfitError(
                f"the worker {error} while loading {self.ref}; most likely the device ran out"
                f" of memory"
            )
        return UnavailableError(f"the worker {error} while loading {self.ref}")
