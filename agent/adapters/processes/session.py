"""A version in a worker process: the Session of `isolation = "process"`."""

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import structlog

from agent.adapters.processes.answers import golden_result, measures, placement, specs
from agent.adapters.processes.birth import CRASHES, JOBS_MAX, Birth
from agent.adapters.processes.compiled import Shelf
from agent.adapters.processes.footprint import cpu_s, peak_bytes
from agent.adapters.processes.limits import Limits
from agent.adapters.processes.pipe import Pipe
from agent.core.accelerators import CPU, PROVIDERS, Trial
from agent.core.brief import Brief, blamed
from agent.core.errors import MisfitError, UnavailableError, UnfitError
from agent.core.manifest import Manifest
from agent.core.names import ModelRef
from agent.core.preflight import Measures
from agent.ports import Answer, Array, GoldenResult, TensorSpec, WorkerLostError
from agent.worker import heap
from agent.worker.frames import BreachError

log = structlog.get_logger(__name__)

SERVE_S_MAX = 5.0
MEASURED_RUNS = 3  # of one row, that have to end in time
STARVED = 0.1  # of the time it was given: with less processor than this it was not let run
MEMORY_FACTOR = 4  # of what `model build` measured: room for the first run, and for being wrong
MEMORY_BYTES_MIN = 512 * 2**20


class WorkerSession:
    """See `agent.ports.Session`.  Control threads and the lane share nothing but `_child`."""

    def __init__(
        self,
        ref: ModelRef,
        folder: Path,
        manifest: Manifest,
        brief: Brief,
        limits: Limits,
        *,
        background: bool,
        dial: bool,
        shelf: Shelf | None = None,
        hello: Callable[[Mapping[str, Any]], object] = lambda _: None,
        told: Callable[[str], None] = lambda _: None,
        trials: Sequence[Trial] = (),
    ) -> None:
        """`shelf`: where compiled code is kept; `hello` hears what its workers say of themselves,
        and `told` on whom it is being loaded; `trials`: what led to the order of its wishes.

        Raises UnfitError, MisfitError, UnavailableError.
        """
        self.ref = ref
        self.jobs_max = JOBS_MAX
        self.device_lost = self._distrusted = False
        self._brief, self._limits, self._trials = brief, limits, trials
        self._birth = Birth(
            ref=ref,
            folder=folder,
            brief=brief,
            limits=limits,
            memory_bytes=_memory_bytes(manifest, limits),
            dial=dial,
            shelf=shelf or Shelf(),
            hello=hello,
            told=told,
        )
        self._child, answer = self._birth.born(background=background)
        self._pipe = Pipe(self._child, JOBS_MAX, limits.arena_bytes)
        self.provider: str = answer["provider"]
        self.wanted: str = answer["wanted"]
        self.fallback: str = answer["fallback"]
        self.placement = placement(answer, trials)
        self.inputs: Sequence[TensorSpec] = specs(answer["inputs"])
        self.outputs: Sequence[TensorSpec] = specs(answer["outputs"])
        self.load_ms: float = answer["load_ms"]
        self._batches: int = answer["golden_runs"]
        self._lost = ""
        self._closed = False
        self._swap = threading.Lock()

    # ---- the lane's -----------------------------------------------------------------------------

    def fileno(self) -> int:
        """Readable when answers wait, or when the worker is gone."""
        return self._child.data.fileno()

    def submit(self, job: int, inputs: Sequence[Array]) -> None:
        """Start a run; raises WorkerLostError."""
        if self._lost:
            raise WorkerLostError(self._lost)
        try:
            self._pipe.submit(job, inputs)
        except OSError as error:
            raise self._gone() from error

    def collect(self) -> Sequence[Answer]:
        """Answers that have come; raises WorkerLostError once the last one is out."""
        if self._lost:
            raise WorkerLostError(self._lost)
        try:
            answers, there = self._pipe.collect()
        except BreachError as breach:
            self._child.kill()
            self._lost = f"the worker of {self.ref} broke the protocol: {breach}"
            raise WorkerLostError(self._lost) from breach
        if not there:
            error = self._gone()
            self._lost = str(error)
            if not answers:
                raise error
        return answers

    def _gone(self) -> WorkerLostError:
        self._child.signal_of_death()  # so that it is known how it ended
        self.device_lost = self._child.lost_its_device or self._distrusted
        return WorkerLostError(f"the worker of {self.ref} {self._child.epitaph()}")

    # ---- control --------------------------------------------------------------------------------

    def golden(self) -> GoldenResult:
        """A crash or a hang on the golden samples is a verdict, not the loss of a worker."""
        budget = self._limits.run_s * (self._batches + 1)
        try:
            result = golden_result(self._ask_to_run("golden", budget))
            if result.ok and self.placement.compiled == "built":
                self._birth.shelf.seal()
            return result  # noqa: TRY300  what follows is for when there is none
        except TimeoutError:
            why = f"the golden samples did not end within {budget:g} s"
        except WorkerLostError as error:
            why = f"the worker {error} while it ran the golden samples"
            if self._child.signal_of_death() not in CRASHES:
                self._gone()
                raise WorkerLostError(f"the worker of {self.ref} {error}") from error
        return GoldenResult(ok=False, samples=0, why=why, blame="unfit")

    def measure(self) -> Measures:
        """Run golden samples one by one; a crash or a hang is a verdict here too."""
        budget = self._limits.run_s * MEASURED_RUNS
        try:
            answer = self._ask_to_run("measure", budget)
        except TimeoutError as error:
            why = f"{self.ref}: {MEASURED_RUNS} runs of one row did not end within {budget:g} s"
            raise UnfitError(why) from error
        except WorkerLostError as error:
            why = f"the worker of {self.ref} {error} while it was measured"
            if self._child.signal_of_death() not in CRASHES:
                raise WorkerLostError(why) from error
            raise UnfitError(why) from error
        if "refused" in answer:
            raise blamed(self.ref, str(answer["refused"]), str(answer.get("why")))
        rss = self.rss_bytes()
        peak = max(rss, peak_bytes(self._child.pid))
        return measures(answer, rss, peak)

    def _ask_to_run(self, what: str, budget: float) -> dict[str, Any]:
        """Raises WorkerLostError; TimeoutError where it hangs, and then it is ended.

        A candidate runs when nobody else wants to: where the processor was always busy, that it
        did not end in time says nothing of it.
        """
        threads = self._brief["threads"]
        question = {"do": what, "threads": threads, "cpu_s": budget * threads}
        before = cpu_s(self._child.pid)
        try:
            return self._child.ask(question, budget)
        except TimeoutError as error:
            had = cpu_s(self._child.pid) - before
            self._child.kill()
            if PROVIDERS[self.provider].on_host and had < STARVED * budget:
                raise WorkerLostError(
                    f"had {had:.1f} s of processor time in {budget:g} s; this device is too busy"
                ) from error
            raise

    def serve(self) -> None:
        """Back to the normal scheduling class, with every thread."""
        try:
            answer = self._child.ask({"do": "serve"}, SERVE_S_MAX)
        except TimeoutError as error:
            self._child.kill()
            raise WorkerLostError(f"the worker of {self.ref} does not answer") from error
        if not answer.get("normal", False):
            log.warning("worker.priority_stuck", model=str(self.ref))

    def revive(self) -> None:
        """A fresh worker with the same version loaded, at normal priority."""
        if self._child.lost_its_device:
            self._birth.lost_device(self.provider)
        try:
            child, answer = self._birth.born(background=False)
        except MisfitError:
            self._birth.forgive()
            raise
        with self._swap:
            if self._closed:
                child.close(at_once=True)
                raise UnavailableError(f"the session of {self.ref} is closed")
            old, self._child = self._child, child
        self._pipe = Pipe(child, JOBS_MAX, self._limits.arena_bytes)
        self.provider, self.fallback = answer["provider"], answer["fallback"]
        self.placement = placement(answer, self._trials)
        self._lost, self.device_lost, self._distrusted = "", False, False
        old.close(at_once=True)

    def distrust(self, why: str) -> None:
        """End the worker, and hold its accelerator to be the cause: `revive` leaves that out."""
        self._distrusted = True
        self._birth.brief["avoid"][self.provider] = f"it went wrong while serving: {why}"
        self._child.kill()

    def kill(self) -> None:
        """End the worker at once."""
        self._child.kill()

    def close(self) -> None:
        """Give back all it holds.  Idempotent."""
        with self._swap:
            if self._closed:
                return
            self._closed = True
        self._lost = f"the session of {self.ref} is closed"
        self._child.close()
        heap.give_back()  # what this process held for it

    def pid(self) -> int | None:
        """The process that holds the session, while it is there."""
        return self._child.pid

    def rss_bytes(self) -> int:
        """Resident memory of the worker; 0 when it is gone."""
        pid = self._child.pid
        try:
            return int(psutil.Process(pid).memory_info().rss) if pid is not None else 0
        except psutil.Error:
            return 0


def _memory_bytes(manifest: Manifest, limits: Limits) -> int:
    """Private memory that a worker may have; an accelerator's runtime needs more than the model."""
    stated = manifest.runtime.memory_mb
    if stated is None or tuple(manifest.runtime.providers) != (CPU,):
        return limits.memory_bytes
    return max(MEMORY_BYTES_MIN, int(stated * 2**20 * MEMORY_FACTOR))
