"""What scores."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from agent.core.accelerators import Placement
from agent.core.errors import UnavailableError
from agent.core.manifest import Manifest
from agent.core.names import ModelRef
from agent.core.preflight import Measures

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor of a model: numpy dtype name, and shape where None or a name means any size."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one job.  `outputs` are copies, in the order of `Session.outputs`; on failure
    they are empty and `error` says why (the job failed, the session lives on).
    """

    job: int
    outputs: Sequence[Array]
    run_ms: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class GoldenResult:
    """How well the golden outputs were reproduced: `ok`, worst excess, and a sentence if not ok.

    `blame`, if not ok: `unfit` (the bytes) or `misfit` (they need more than this device gives);
    see `agent.core.brief.blamed`.
    """

    ok: bool
    samples: int
    why: str = ""
    worst: float = 0.0  # largest |got - want| - (atol + rtol·|want|); ≤ 0 is within tolerance
    run_ms: Sequence[float] = field(default_factory=tuple)
    blame: str = ""


class WorkerLostError(UnavailableError):
    """The process that held the session is gone (crash, kill, hang); `revive` brings it back."""


class Session(Protocol):
    """A loaded version.  One caller at a time; one run at a time; jobs are answered in order.

    `submit` and `collect` belong to the lane's thread and never wait; everything else belongs to
    control threads and may.  After WorkerLostError the jobs not yet collected are gone from the
    session's side: the caller submits them again after `revive`.
    """

    ref: ModelRef
    provider: str  # what really runs the graph
    wanted: str  # the first wish; differs from provider when something better was not to be had
    fallback: str  # why it differs, in a sentence; empty if it does not
    placement: Placement  # shares of nodes and time by provider, and what was tried
    device_lost: bool  # the last WorkerLostError was the accelerator's fault and nobody else's
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    jobs_max: int  # how many may be out at once
    load_ms: float

    def fileno(self) -> int:
        """Readable when answers wait, or when the worker is gone."""
        ...

    def submit(self, job: int, inputs: Sequence[Array]) -> None:
        """Start a run; inputs in the order of `inputs`, copied before return.

        Raises:
            WorkerLostError: the worker is gone.
        """
        ...

    def collect(self) -> Sequence[Answer]:
        """Answers that have come; empty if none has.

        Raises:
            WorkerLostError: the worker is gone; no answer is lost that had come before.
        """
        ...

    def golden(self) -> GoldenResult:
        """Run the golden samples and compare; before the session serves, or between batches."""
        ...

    def measure(self) -> Measures:
        """What one row takes, and how much memory it all does; before the session serves.

        Raises:
            UnfitError: it crashes, hangs or fails on a single row.
            MisfitError: a single row takes more memory than there is.
        """
        ...

    def serve(self) -> None:
        """From now on at normal priority: it is about to answer for the live stream."""
        ...

    def revive(self) -> None:
        """A fresh worker with the same version loaded, ready to serve.

        Raises:
            UnavailableError: it could not be started now.
            UnfitError: the version does not load any more.
        """
        ...

    def kill(self) -> None:
        """End the worker at once (it hangs); the next collect raises WorkerLostError."""
        ...

    def distrust(self, why: str) -> None:
        """Its accelerator gives wrong answers, and `why` says which: end the worker as `kill` does;
        `revive` then asks the next provider.
        """
        ...

    def close(self) -> None:
        """Give back all it holds.  Idempotent."""
        ...

    def pid(self) -> int | None: ...
    def rss_bytes(self) -> int: ...


class Engine(Protocol):
    """Loads versions.  `load` may take minutes and is never called on the lane's thread."""

    def load(self, ref: ModelRef, folder: Path, manifest: Manifest, *, background: bool) -> Session:
        """A session on the first provider of `manifest.runtime.providers` that works.

        `background`: load at the lowest scheduling class until `serve`.

        Raises:
            UnfitError: the bytes are bad (does not parse, unknown op, wrong tensor names, crashes).
            MisfitError: they do not fit this device (opset too new, provider, memory).
            UnavailableError: no worker could be started.
        """
        ...

    def doing(self, ref: ModelRef) -> str:
        """On whom `ref` is being loaded just now, and for how long; empty if it is not."""
        ...

    def providers(self) -> Sequence[str]: ...
    def jail(self) -> str:
        """The layers that hold a worker in, as `landlock+rlimits`, or `none`."""
        ...

    def version(self) -> str: ...
