"""What the agent needs of the world.  `runtime` asks through these; `adapters` answer.

Adapters translate whatever their library raises into the errors of `core.errors` and let nothing
else out.  Each port has one contract suite in tests/contract, run over every implementation.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from agent.core.accelerators import Placement
from agent.core.errors import UnavailableError
from agent.core.health import HealthReport
from agent.core.manifest import Manifest
from agent.core.names import ModelRef
from agent.core.packages import FileEntry, Package
from agent.core.preflight import Measures
from agent.core.rollout import Rollout

Array = NDArray[Any]


class Clock(Protocol):
    """Times.  Monotonic for scheduling, wall for what people and documents read."""

    def monotonic(self) -> float: ...
    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC, as this device believes."""
        ...


# ---- sensors: how readings come in --------------------------------------------------------------


@dataclass(slots=True)
class Burst:
    """What one read of a source gave for one stream: payloads still encoded, in order.

    `topics` has one entry per payload (None for sources without topics).  `token` is handed back to
    `Source.accept` once every reading in the burst is durably accounted for.  `mark` is where the
    source stands after this burst; it is stored in the same transaction as the scores and given
    back to `Source.resume` at the next start, so that a restart neither repeats nor skips.  `ids`
    are what its messages are recognised by if the source gives them again, of one length and
    joined; empty where it cannot tell.  `oversize` messages were larger than the source takes in:
    they are counted, and their payloads are not there.
    """

    stream: str
    payloads: Sequence[bytes]
    arrived: float  # monotonic
    topics: Sequence[bytes] | None = None
    token: object = None
    mark: bytes | None = None
    ids: bytes = b""
    oversize: int = 0


class Source(Protocol):
    """Readings, pulled by the lane's thread and by no other; no call here waits.

    The lane selects on `fileno()` together with its workers, so that one thread reads, scores and
    writes with no queue between.
    """

    name: str

    def fileno(self) -> int | None:
        """What to select on for reading; None while there is nothing (not connected)."""
        ...

    def wants_write(self) -> bool:
        """Whether bytes wait to go out on `fileno()`."""
        ...

    def read(self, readings_max: int) -> Sequence[Burst]:
        """All that has come, up to about `readings_max` payloads; empty if nothing has."""
        ...

    def accept(self, tokens: Sequence[object]) -> None:
        """These bursts are durably accounted for: acknowledge them."""
        ...

    def resume(self, mark: bytes) -> None:
        """Before the first read: what was durably accounted for when this stream last stopped."""
        ...

    def tick(self, now: float) -> float:
        """Housekeeping (keep-alive, reconnect); returns the monotonic time of the next one."""
        ...

    def trouble(self) -> str:
        """Why no readings can come just now, in a sentence; empty if they can."""
        ...

    def close(self) -> None: ...


# ---- engine: what scores ------------------------------------------------------------------------


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


# ---- store and fetchers: how packages come in ---------------------------------------------------


class Partial(Protocol):
    """A file that is being fetched.  Survives restarts; is not trusted until adopted."""

    size: int

    def holes(self) -> Sequence[tuple[int, int]]:
        """Byte ranges (start, end) still wanted, ascending; empty when all is there."""
        ...

    def write(self, offset: int, chunk: bytes) -> None: ...
    def close(self) -> None: ...


class Store(Protocol):
    """Content-addressed packages on the local disk; a version is there whole or not at all."""

    def path_of(self, ref: ModelRef) -> Path | None:
        """The read-only folder of a complete, verified version; None if it is not there."""
        ...

    def partial(self, package: Package, file: FileEntry) -> Partial: ...

    def fetched(self, package: Package, file: FileEntry) -> bytes | None:
        """The bytes of one small file of a package that is being fetched; None if it has not come
        whole, or is not what was signed.
        """
        ...

    def adopt(self, package: Package) -> Path:
        """Check every file's size and SHA-256 and make the version appear, durably, at once.

        Raises:
            DamagedError: a digest is wrong (the bad file is dropped, so a new fetch starts clean).
            UnavailableError: a file is missing or incomplete, or the disk said no.
        """
        ...

    def adopt_folder(self, folder: Path) -> Package:
        """Copy a package from a local folder (factory model) into the store, as release 0."""
        ...

    def distrust(self, ref: ModelRef) -> None:
        """A version's files are not what was signed any more: it is not there until it is adopted
        again, from those of them that still are and what is fetched.
        """
        ...

    def collect(self, keep: Sequence[ModelRef]) -> int:
        """Drop every version and partial not in `keep`; returns the bytes given back."""
        ...


class Fetcher(Protocol):
    """Where metadata and files come from.  Trusts nothing, decides nothing."""

    async def metadata(self) -> Mapping[str, bytes]:
        """The repository's metadata files by name.  Raises UnavailableError."""
        ...

    async def fetch(self, file: FileEntry, into: Partial, progress: Callable[[int], None]) -> None:
        """Fill the holes of `into`; `progress` is told of bytes as they come.

        Raises:
            UnavailableError: it broke off; what came stays, the next call goes on from there.
        """
        ...


# ---- memory across restarts ---------------------------------------------------------------------


class Journal(Protocol):
    """Control state.  Durable before `save…` returns; `load…` gives the last state saved whole."""

    def load(self, model: str) -> Rollout: ...
    def save(self, model: str, rollout: Rollout) -> None: ...
    def models(self) -> Sequence[str]: ...
    def load_document(self, name: str) -> bytes | None: ...
    def save_document(self, name: str, body: bytes) -> None: ...
    def document_names(self) -> Sequence[str]:
        """The names of all documents saved."""
        ...

    def drop_documents(self, names: Sequence[str]) -> None:
        """Forget these; they need not be there."""
        ...


class Notes(Protocol):
    """The part of the journal that keeps small documents."""

    def load_document(self, name: str) -> bytes | None: ...
    def save_document(self, name: str, body: bytes) -> None: ...


class Vault(Protocol):
    """A second copy, apart from the journal, of the little that must outlive it."""

    def keep(self, name: str, body: bytes) -> None:
        """Durable on return.  Raises UnavailableError."""
        ...

    def recall(self, name: str) -> bytes | None:
        """What was kept under `name` last; None if nothing was."""
        ...


class Signer(Protocol):
    """The device's own key: by it others know what this device has said."""

    keyid: str
    scheme: str  # as TUF names them: ed25519, ecdsa-sha2-nistp256

    def sign(self, body: bytes) -> str:
        """The signature of `body`, in hexadecimal; takes no longer than a signature takes."""
        ...


@dataclass(frozen=True, slots=True)
class Record:
    """One message waiting to go out: a batch of score rows, or an event."""

    topic: str
    payload: bytes
    rows: int = 0
    priority: int = 1  # lower goes first; 0 is for events
    stream: str = ""
    model: str = ""
    first_seq: int = 0


@dataclass(frozen=True, slots=True)
class Gap:
    """Score rows that had to be given up: exactly `rows` of those numbered first to last.

    `reason` is `full` (no room), `expired` (too old), `refused` (the broker will never take them)
    or `damaged` (by the disk).  Events that were given up have no stream, and are counted in
    `rows`; so are records of which the disk has left nobody knows what they held: no model, either.
    """

    id: int  # stays the same when a gap is told twice
    stream: str
    model: str
    reason: str
    first_seq: int
    last_seq: int
    rows: int


@dataclass(frozen=True, slots=True)
class Carried:
    """One more row of what a model carries from reading to reading.

    Rows are numbered from 0; number 0 replaces all rows before, and with no body leaves none.
    """

    number: int
    body: bytes


@dataclass(slots=True)
class Entry:
    """What one step of the lane adds, all of it or nothing: records, accounts, marks, and more.

    accounts  (stream, model) -> the whole account as JSON bytes, replacing the last
    marks     source mark by stream, see `Burst.mark`
    carried   (stream, model) -> open windows and state, a row more or all anew
    """

    records: Sequence[Record] = ()
    accounts: Mapping[tuple[str, str], bytes] = field(default_factory=dict)
    marks: Mapping[str, bytes] = field(default_factory=dict)
    carried: Mapping[tuple[str, str], Carried] = field(default_factory=dict)


class Outbox(Protocol):
    """Store and forward.  An entry is accepted when it is durable; until then it is nobody's."""

    def add(self, entry: Entry) -> int:
        """Queue `entry` for the next commit; returns its ticket (rising).  Never waits for disk."""
        ...

    def committed(self) -> int:
        """The highest ticket that is durable."""
        ...

    def fileno(self) -> int:
        """Readable after a commit; `committed()` makes it quiet again."""
        ...

    def accounts(self) -> Mapping[tuple[str, str], bytes]: ...
    def marks(self) -> Mapping[str, bytes]: ...
    def carried(self, stream: str, model: str) -> Sequence[tuple[int, bytes]]:
        """The rows of `Entry.carried` that are there, by number."""
        ...

    def epoch(self) -> int:
        """Rises only if the store was lost."""
        ...

    async def batch(self, after: int, records_max: int) -> Sequence[tuple[int, Record]]:
        """The next durable records to send, lowest priority number first and in order within one,
        with ids above `after`; what was accepted is not among them.  Waits until there is at least
        one; gives none, at once, while there are gaps to be told first.
        """
        ...

    def accept(self, ids: Sequence[int]) -> None:
        """The far side has these: forget them."""
        ...

    def bury(self, record_id: int, why: str) -> None:
        """The far side will never take this one: keep it apart, and tell its rows as a gap."""
        ...

    def gaps(self) -> Sequence[Gap]:
        """What was given up and not yet told, oldest first; some of it, if it is much."""
        ...

    def told(self, gaps: Sequence[Gap]) -> None:
        """The far side knows of these."""
        ...

    def tidy(self) -> None:
        """Housekeeping, about once a second: give up what is too old.  Never waits."""
        ...

    def depth(self) -> Mapping[str, int]:
        """records, bytes, gaps (rows that were given up), dead_letters (records refused)."""
        ...


# ---- what was scored, for a while ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scored:
    """One batch as it was scored: what it takes to score it again.

    seq     number of its first score row
    rows    score rows it gave
    release of the version that scored it
    keys    the sensor of each row
    times   float64 [w], event time
    values  [w, F] or [w, L, F], float32 or float64: what the assembler takes.  Not to be changed
            after it was given away.
    """

    seq: int
    rows: int
    release: int
    keys: Sequence[str]
    times: Array
    values: Array


class Ring(Protocol):
    """The last batches of each stream and model, on disk, in bounded room.  Not durable: a power
    cut loses the tail, which is counted as soon as the numbers go on behind it.

    Only the live stream is appended, in the order of its numbers, never what is scored again: a
    batch numbered below what is kept tells that the numbers began again there (scores that did not
    become durable, a lost store), and what was kept from there on goes, uncounted.
    """

    def begin(self, stream: str, model: str, seq: int) -> None:
        """After a start, before the first `append`: the numbers go on at `seq`.  What an earlier
        process has left from there on never became durable where it counts, and goes, uncounted.
        """
        ...

    def append(self, stream: str, model: str, scored: Scored) -> None:
        """Keep it.  Never waits for the disk and never raises; what cannot be kept is counted."""
        ...

    def read(self, stream: str, model: str, seq: int) -> Iterator[Scored]:
        """Oldest first, all kept with rows at or after `seq`; everything appended before the call.

        Not on the lane's thread.  What is given up before it was read is left out.
        """
        ...

    def forget(self, stream: str, model: str, below: int) -> None:
        """Rows below this number are wanted no more."""
        ...

    def dropped(self, stream: str, model: str) -> int:
        """Rows given up since the start: no room, damage, or a disk too slow; and those that were
        missing then.  Rises as it is found out.
        """
        ...

    def bytes(self) -> int: ...
    def close(self) -> None: ...


# ---- the link -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Message:
    """One message from the control connection."""

    topic: str
    payload: bytes
    retain: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None


class Link(Protocol):
    """The control and telemetry connection.  It connects and reconnects by itself while running.

    Subscriptions are given before `run` and renewed at every connect.
    """

    def messages(self) -> AsyncIterator[Message]: ...

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        correlation: bytes | None = None,
    ) -> bool:
        """QoS 1; returns once the broker has acknowledged it.

        False: the broker has it, and says that nobody has subscribed to it (PUBACK 0x10), so it
        went to nobody.  True where somebody has, or where the broker does not say.

        Raises:
            UnavailableError: not connected, or the link was lost before the answer.
            RefusedError: the broker will never take this message (size, topic, rights).
        """
        ...

    async def connected(self) -> None:
        """Until the link stands."""
        ...

    def trouble(self) -> str:
        """Why it does not stand, in a sentence; empty if it does."""
        ...

    async def run(self) -> None:
        """Keep the link up until cancelled; then say goodbye in order."""
        ...


class Login(Protocol):
    """How a broker is told who we are, where that differs from connect to connect.

    Asked at each connect, in a thread that may wait.  Both raise UnavailableError.
    """

    def password(self) -> str: ...
    def authorities(self) -> str:
        """PEM of those whose word is taken for the broker's certificate; empty: the system's."""
        ...


# ---- the machine --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Memory:
    """What this process and its workers may use, and what of it is free now, in bytes.

    The tightest of all bounds that are known; None where none is.  `source` says who sets it.
    """

    limit_bytes: int | None
    free_bytes: int | None
    source: str


class Machine(Protocol):
    """What a version is held against before it is let in."""

    def memory(self) -> Memory:
        """As of now; never raises.  It reads a few small files: not for the lane's thread."""
        ...

    def architecture(self) -> str:
        """`x86_64`, `aarch64`, …"""
        ...


# ---- faces --------------------------------------------------------------------------------------


class Faces(Protocol):
    """The local endpoint.  Both calls return at once and may come from any thread."""

    def show(self, report: HealthReport) -> None:
        """This is how the agent is now; /state, /readyz, /metrics and the page render it."""
        ...

    def tell(self, event: Mapping[str, Any]) -> None:
        """Pass an event on to whoever listens on /events."""
        ...
