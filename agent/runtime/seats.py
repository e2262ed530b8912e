"""A version made ready to sit in a slot, and the slot.

A Seat joins a session to everything derived from its manifest: which features, which windows, which
tensors, whose state.  Only the lane's thread touches one once it is seated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.core.evidence import Evidence
from agent.core.features import Featurizer
from agent.core.manifest import Manifest
from agent.core.names import ModelRef
from agent.core.states import States
from agent.core.tensors import Assembler
from agent.core.windows import Windower
from agent.ports import Array, Session

RUNS_TO_KNOW = 20  # of a version before its own runs say what is too long
HANG_RATIO = 20.0  # times what its runs take on the average
SLOWEST_RATIO = 2.0  # times its slowest run: that one may have been the machine's doing
HANG_S_MIN = 2.0  # no run shorter than this is a hang: a busy machine stops everybody for a while


@dataclass(slots=True, eq=False)
class Seat:
    """One version, ready to score.  `leases` counts the chunks and jobs that still need it."""

    manifest: Manifest
    session: Session
    featurizer: Featurizer
    windower: Windower
    assembler: Assembler
    states: States | None
    evidence: Evidence = field(default_factory=Evidence)
    leases: int = 0
    jobs_out: int = 0
    lost: bool = False  # its worker is gone and being revived
    closed: bool = False  # its session was given back: nothing is to be revived
    parked: bool = False  # it is sent nothing more: it is about to be given back
    debt: int = 0  # readings its windows hold that an earlier version has scored already
    deaths: int = 0  # of its worker, ever
    runs: int = 0
    runs_s: float = 0.0  # all of them together
    slowest_s: float = 0.0  # of its runs

    @property
    def ref(self) -> ModelRef:
        """Which version it is."""
        return self.session.ref

    @property
    def jobs_max(self) -> int:
        """How many jobs may be out: one where each needs the state the one before it left."""
        return 1 if self.states is not None else self.session.jobs_max

    def ran(self, run_ms: float) -> None:
        """A run has ended."""
        run_s = run_ms / 1000.0
        self.runs += 1
        self.runs_s += run_s
        self.slowest_s = max(self.slowest_s, run_s)

    def run_s_max(self, most: float) -> float:
        """How long a run may take before it is a hang: what its runs took tells."""
        if self.runs < RUNS_TO_KNOW:
            return most
        usual_s = self.runs_s / self.runs
        long_s = max(HANG_S_MIN, HANG_RATIO * usual_s, SLOWEST_RATIO * self.slowest_s)
        return min(most, long_s)

    def takes(self, values: Array) -> bool:
        """Whether these are windows of its kind."""
        window = self.manifest.window
        width = len(self.manifest.features.names)
        shape = (width,) if window is None else (window.length, width)
        return values.shape[1:] == shape

    def revived(self) -> None:
        """A new worker holds its version: go on."""
        self.lost = False

    def named(self, outputs: Sequence[Array]) -> dict[str, Array]:
        """Outputs of a run by name."""
        return dict(zip((spec.name for spec in self.session.outputs), outputs, strict=True))

    def like(self, other: "Seat") -> bool:
        """Whether both make the same windows of the same readings."""
        mine, theirs = self.manifest, other.manifest
        return mine.features == theirs.features and mine.window == theirs.window


def ready(manifest: Manifest, session: Session, late_s: float) -> Seat:
    """A seat for `session`.

    Raises:
        UnfitError: features, windows and tensors cannot be joined; the text says which.
    """
    states = None
    if manifest.state:
        states = States(manifest.state, session.inputs, session.outputs)
    assembler = Assembler(manifest, session.inputs)
    features = len(manifest.features.names)
    return Seat(
        manifest=manifest,
        session=session,
        featurizer=Featurizer(manifest.features),
        windower=Windower(manifest.window, features, late_s, dtype=assembler.dtype),
        assembler=assembler,
        states=states,
    )


class Slot:
    """Where the active seat sits.  A swap is one assignment: what was taken before it is finished
    by the seat that took it, and that seat is let go when its last lease ends.
    """

    def __init__(self, released: Callable[[Seat], None]) -> None:
        self._released = released
        self.seat: Seat | None = None

    def swap(self, seat: Seat | None) -> Seat | None:
        """Put `seat` in; returns the one it replaces, which may still be leased."""
        replaced, self.seat = self.seat, seat
        if replaced is not None and replaced is not seat and replaced.leases == 0:
            self._released(replaced)
        return replaced

    def let_go(self, seat: Seat) -> None:
        """What `seat` did beside the active one has ended."""
        if seat.leases == 0 and seat is not self.seat:
            self._released(seat)

    def lease(self, seat: Seat) -> None:
        """One more chunk or job needs `seat`."""
        seat.leases += 1

    def release(self, seat: Seat) -> None:
        """One less does."""
        seat.leases -= 1
        self.let_go(seat)
