"""What a device keeps of its trust, as two copies in memory that can be lost, damaged or cut off.

`trusting` starts the real `Trusting` over them, as an agent does after each restart; `replays`
hands it old bundles and gives what it takes (it needs a `resolve` only, so it serves any store).
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from agent.core.errors import RefusedError, UnavailableError
from agent.core.packages import Package
from agent.runtime.trusting import Trusting
from tests.world.tuf_repository import NOW


class Wall:
    """A clock that says what it is told, and counts how often it is asked."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now
        self.asked = 0
        self.jumps: list[float] = []  # what it says next, one by one

    def monotonic(self) -> float:
        return 0.0

    def wall(self) -> float:
        self.asked += 1
        return self.jumps.pop(0) if self.jumps else self.now


class Copy:
    """One copy: a journal or a vault, as far as trust needs one."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.writes = 0
        self.writes_max: int | None = None  # the disk says no after so many

    def keep(self, name: str, body: bytes) -> None:
        if self.writes_max is not None and self.writes >= self.writes_max:
            raise UnavailableError("the disk is gone")
        self.writes += 1
        self.kept[name] = body

    def recall(self, name: str) -> bytes | None:
        return self.kept.get(name)

    save_document = keep
    load_document = recall


class Memory:
    """Both copies, and the clock."""

    def __init__(self, root_file: bytes) -> None:
        self.root_file = root_file
        self.journal, self.vault, self.clock = Copy(), Copy(), Wall()

    def trusting(
        self, *, grace_s: float = 0.0, built_at: float = 0.0, groups: Iterable[str] = ()
    ) -> Trusting:
        """As after a restart: what is not in one of the copies is not known."""
        return Trusting(
            self.root_file,
            self.journal,
            self.vault,
            self.clock,
            built_at=built_at,
            device="pump-7",
            groups=tuple(groups),
            grace_s=grace_s,
        )


class Resolves(Protocol):
    """Whoever says what may be installed."""

    def resolve(self, metadata: Mapping[str, bytes], name: str, release: int) -> Package: ...


def replays(
    resolver: Resolves, bundles: Iterable[Mapping[str, bytes]], name: str, releases: Iterable[int]
) -> list[Package]:
    """Everything that is accepted when each of `bundles` is asked for each of `releases`."""
    wanted, taken = list(releases), []
    for bundle in bundles:
        for release in wanted:
            try:
                taken.append(resolver.resolve(bundle, name, release))
            except RefusedError:
                continue
    return taken
