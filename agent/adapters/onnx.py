"""onnxruntime in this very process: the Engine of `isolation = "inline"`.

For devices too small for a second interpreter, and for tests.  It holds the same contract as the
process engine but for what a process alone can give: a crash of the model is a crash of the agent,
a hang can only be ended where onnxruntime looks at its terminate flag, and there is no jail.
"""

import contextlib
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import psutil
import structlog

from agent.core.accelerators import CPU, Outfit, Placement
from agent.core.brief import Brief, blamed, brief
from agent.core.manifest import Manifest
from agent.core.names import ModelRef
from agent.core.preflight import Measures
from agent.ports import Answer, Array, GoldenResult, TensorSpec, WorkerLostError
from agent.worker import heap, priority, providers
from agent.worker.golden import Golden, failed, outputs_of
from agent.worker.loaded import Loaded, Spec, run_options
from agent.worker.making import VERSION, compiled_in, register
from agent.worker.measuring import measure
from agent.worker.refusals import RefusalError, is_device, of_run

log = structlog.get_logger(__name__)

JOBS_MAX = 2
HOLDS_GIL_BEFORE = (1, 31)  # older ones stop every thread while a session is built


class InlineEngine:
    """See `agent.ports.Engine`."""

    def __init__(
        self,
        *,
        domains: Collection[str] = (),
        run_s: float = 10.0,
        sealed: bool = True,
        outfit: Outfit | None = None,
    ) -> None:
        """`domains`: operator sets let pass besides the usual ones.  `run_s`: past that a golden
        run is a hang.  `sealed`: a folder must hold what the digest of its ref was made from, and
        nothing else.  `outfit`: what the configuration gives onnxruntime; no compiled code is kept.
        """
        self._outfit = outfit or Outfit()
        for name, why in register(self._outfit.document()).items():
            log.warning("engine.library_failed", library=name, why=why)
        self._domains, self._run_s, self._sealed = domains, run_s, sealed
        if tuple(int(part) for part in VERSION.split(".")[:2]) < HOLDS_GIL_BEFORE:
            log.warning("engine.stalls", onnxruntime=VERSION, why="a load stops scoring; use 1.31")

    def load(
        self, ref: ModelRef, folder: Path, manifest: Manifest, *, background: bool
    ) -> "InlineSession":
        """A session on the first wished provider that works; see the port for what it raises."""
        seal = ref if self._sealed else None
        told = brief(manifest, sealed=seal, domains=self._domains, outfit=self._outfit)
        return InlineSession(ref, folder, manifest, told, self._run_s, background=background)

    def doing(self, ref: ModelRef) -> str:  # noqa: ARG002, D102  it is not told here
        return ""

    def providers(self) -> Sequence[str]:
        """Providers of this build of onnxruntime, best first, by our names."""
        return providers.known(compiled_in())

    def jail(self) -> str:
        """The layers that hold a worker in: none."""
        return "none"

    def version(self) -> str:
        """Of onnxruntime."""
        return VERSION


class InlineSession:
    """See `agent.ports.Session`.  `submit` runs the batch; the answer is ready when it returns."""

    def __init__(
        self,
        ref: ModelRef,
        folder: Path,
        manifest: Manifest,
        told: Brief,
        run_s: float,
        *,
        background: bool,
    ) -> None:
        """Raises UnfitError, MisfitError, UnavailableError."""
        self.ref = ref
        self.device_lost = False
        self.jobs_max = JOBS_MAX
        self._folder, self._manifest, self._brief, self._run_s = folder, manifest, told, run_s
        self._turn = threading.Lock()  # golden samples may be run from another thread
        self._answers: deque[Answer] = deque()
        self._ours, self._signal = socket.socketpair()  # a pipe cannot be selected on everywhere
        self._pool: set[int] = set()
        self._lost = ""
        self._loaded: Loaded | None = None
        try:
            self._load(background=background)
        except BaseException:
            self._close_sockets()
            raise

    def _load(self, *, background: bool) -> None:
        wanted = self._brief
        started = time.perf_counter()
        try:
            if background and priority.may_return():
                before = priority.threads()
                loaded = priority.aside(lambda: Loaded(self._folder, wanted))
                self._pool = priority.threads() - before
            elif background and wanted["threads"] == 1:  # no pool that would never be raised
                loaded = priority.aside(lambda: Loaded(self._folder, wanted))
            else:
                loaded = Loaded(self._folder, wanted)
            spec = self._manifest.golden
            path = self._folder / spec.file
            self._golden = Golden(path, loaded, rtol=spec.rtol, atol=spec.atol)
            with contextlib.suppress(Exception):  # the golden check tells what does not run
                loaded.prove(self._golden.inputs)
        except RefusalError as refusal:
            raise blamed(self.ref, refusal.blame, refusal.why) from refusal
        self.load_ms = (time.perf_counter() - started) * 1e3
        self._options = run_options()
        self._loaded = loaded
        self.provider, self.wanted, self.fallback = loaded.provider, loaded.wanted, loaded.fallback
        self.placement = Placement(loaded.nodes, loaded.time, loaded.compiled)
        self.inputs = _specs(loaded.inputs)
        self.outputs = _specs(loaded.outputs)

    # ---- the lane's -----------------------------------------------------------------------------

    def fileno(self) -> int:
        """Readable when answers wait, or when the worker is gone."""
        return self._ours.fileno()

    def submit(self, job: int, inputs: Sequence[Array]) -> None:
        """Start a run; raises WorkerLostError."""
        loaded = self._loaded
        if self._lost or loaded is None:
            raise WorkerLostError(self._lost)
        started = time.perf_counter_ns()
        outputs: Sequence[Array] = ()
        error = ""
        try:
            with self._turn:
                outputs = [_owned(array) for array in loaded.run(inputs, self._options)]
        except Exception as failure:  # onnxruntime's errors share no base but this
            if self._lost:
                raise WorkerLostError(self._lost) from failure
            error = of_run(failure).why
            if is_device(failure, self.provider):  # a fresh session may find it again
                self.device_lost = True
                self._lost = f"the session of {self.ref} lost its device: {error}"
                raise WorkerLostError(self._lost) from failure
        took = (time.perf_counter_ns() - started) / 1e6
        self._answers.append(Answer(job, outputs, took, error))
        self._signal.send(b"\0")

    def collect(self) -> Sequence[Answer]:
        """Answers that have come; raises WorkerLostError once the last one is out."""
        if self._answers:
            self._ours.recv(len(self._answers))
            answers = list(self._answers)
            self._answers.clear()
            return answers
        if self._lost:
            raise WorkerLostError(self._lost)
        return []

    def golden(self) -> GoldenResult:
        """Run the golden samples and compare; raises WorkerLostError."""
        if self._lost:
            raise WorkerLostError(self._lost)
        options = run_options()  # of its own: a hang here ends this run and nothing else

        def end() -> None:
            options.terminate = True

        budget = self._run_s * (self._golden.runs + 1)
        watchdog = threading.Timer(budget, end)
        with self._turn:
            watchdog.start()
            try:
                result = self._golden.check(options)
            finally:
                watchdog.cancel()
                watchdog.join()
        if options.terminate:
            why = f"the golden samples did not end within {budget:g} s"
            result = failed(why, blame="unfit", samples=result["samples"])
        return GoldenResult(**result)

    def measure(self) -> Measures:
        """Run golden samples one by one.  Memory is the whole process's, and is not told."""
        loaded = self._loaded
        if self._lost or loaded is None:
            raise WorkerLostError(self._lost)
        threads, samples = self._brief["threads"], self._golden.inputs
        try:
            with self._turn:
                told = priority.aside(lambda: measure(loaded, samples, threads=threads))
        except RefusalError as refusal:
            raise blamed(self.ref, refusal.blame, refusal.why) from refusal
        return Measures(tuple(told["sample_ms"]), told["runs"])

    def serve(self) -> None:
        """Back to the normal scheduling class, with every thread."""
        priority.restore(self._pool)
        self._pool.clear()

    def revive(self) -> None:
        """A fresh worker with the same version loaded, at normal priority."""
        self._load(background=False)
        while select.select([self._ours], [], [], 0)[0]:
            self._ours.recv(64)
        self._answers.clear()
        self._lost = ""
        self.device_lost = False

    def kill(self) -> None:
        """As far as it can be done: a run ends at its next node, and the session counts as lost."""
        self._lost = f"the session of {self.ref} was ended because it did not answer"
        self._options.terminate = True
        self._signal.send(b"\0")

    def distrust(self, why: str) -> None:
        """End the session; `revive` leaves its accelerator out."""
        self._brief["avoid"][self.provider] = f"it went wrong while serving: {why}"
        self.device_lost = True
        self.kill()

    def close(self) -> None:
        """Give back all it holds.  Idempotent."""
        if self._loaded is None:
            return
        self._lost = f"the session of {self.ref} is closed"
        self._options.terminate = True
        with self._turn:
            self._loaded = None
            del self._golden
        self._close_sockets()
        heap.give_back()

    def _close_sockets(self) -> None:
        self._ours.close()
        self._signal.close()

    def pid(self) -> int | None:
        """The process that holds the session, while it is there."""
        return os.getpid() if self._loaded is not None else None

    def rss_bytes(self) -> int:
        """Of the whole process: what one session takes cannot be told apart."""
        return int(psutil.Process().memory_info().rss) if self._loaded is not None else 0


def record_golden(folder: Path, manifest: Manifest, inputs: dict[str, Array]) -> dict[str, Array]:
    """What the model in `folder` answers to golden `inputs` (tensor -> [samples, …]), on the CPU.

    For the authoring side; the arrays go into golden.npz as `in:<tensor>` and `out:<tensor>`.

    Raises:
        UnfitError, MisfitError: the model does not load or run, or an input is missing.
    """
    wanted = brief(manifest, golden=False) | {"providers": [CPU], "require": "any"}
    try:
        return outputs_of(Loaded(folder, wanted), inputs)
    except RefusalError as refusal:
        raise blamed(manifest.name, refusal.blame, refusal.why) from refusal


def _specs(raw: Sequence[Spec]) -> Sequence[TensorSpec]:
    return [TensorSpec(name, dtype, tuple(shape)) for name, dtype, shape in raw]


def _owned(array: Array) -> Array:
    """`array`, or a copy if its memory is somebody else's."""
    return array if array.flags.owndata or array.base is None else np.array(array)
