"""Whatever bundles come, in whatever order, with a restart before each: the floors hold.

An honest publisher releases, renews, rotates and signs leaves to go down; an attacker keeps every
bundle there ever was, mixes them, tears files out of them, flips their bytes, turns the clock, and
destroys one of the two copies of what the device knows.  [trust-2.7]
"""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.core.errors import RefusedError
from agent.core.trust import TrustState, begin, expires, latest, trusted_now
from agent.runtime.trusting import DOCUMENT
from tests.world.tuf_memory import Memory
from tests.world.tuf_repository import DAY, NOW, TufRepository, package

PICK = st.integers(0, 2**16)
YEAR = 365 * DAY
BUILT = NOW - 30 * DAY


@dataclass(frozen=True)
class Leave:
    """What was signed under one number."""

    device: str
    release: int
    until: float


class Trust(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.repo = TufRepository("pump")
        self.repo.offer(package("pump", 1))
        self.memory = Memory(self.repo.root_file)
        self.honest = {package("pump", 1).ref}
        self.release = 1
        self.leaves: dict[str, Leave] = {}
        self.now = NOW
        self.bundles = [self.repo.bundle()]
        self.before = self.state

    @property
    def state(self) -> TrustState:
        """What the device would know if it were switched on now."""
        copies = (self.memory.journal.recall(DOCUMENT), self.memory.vault.recall(DOCUMENT))
        return latest(copies) or begin(self.memory.root_file)

    # ---- the publisher

    @rule(security=st.booleans())
    def release_the_next(self, security: bool) -> None:
        self.release += 1
        fresh = package("pump", self.release)
        self.honest.add(fresh.ref)
        self.repo.offer(fresh)
        if security:
            self.repo.least("pump", self.release)
        self.bundles.append(self.repo.bundle())

    @rule(role=st.sampled_from(["root", "timestamp", "snapshot", "targets", "pump"]))
    def rotate(self, role: str) -> None:
        if role == "root":
            self.repo.rotate_root()
        else:
            self.repo.rotate(role)
            self.repo.publish("root", "targets", "pump")
        self.bundles.append(self.repo.bundle())

    @rule(down=PICK, days=st.integers(-1, 3), ours=st.booleans())
    def leave_to_go_down(self, down: int, days: int, ours: bool) -> None:
        number = len(self.leaves) + 1
        leave = Leave(
            "pump-7" if ours else "pump-8", 1 + down % self.release, int(self.now + days * DAY)
        )
        self.leaves[f"pump/override/{number}"] = leave
        self.repo.allow(
            "pump",
            number,
            devices=[leave.device],
            allow_release=leave.release,
            not_after=leave.until,
        )
        self.bundles.append(self.repo.bundle())

    @rule(days=st.integers(0, 3))
    def time_goes_by(self, days: int) -> None:
        self.now += days * DAY
        self.repo.issue(self.now)
        self.repo.publish("timestamp")
        self.bundles.append(self.repo.bundle())

    # ---- the device, and what the attacker hands it

    @rule(down=PICK)
    def the_newest(self, down: int) -> None:
        self._hand(self.bundles[-1], self.release if down % 2 else 1 + down % self.release)

    @rule(which=PICK, down=PICK, days=st.integers(-40, 40))
    def a_replay(self, which: int, down: int, days: int) -> None:
        bundle = self.bundles[which % len(self.bundles)]
        self._hand(bundle, 1 + down % self.release, self.now + days * DAY)

    @rule(
        which=PICK,
        down=PICK,
        clock=st.sampled_from([0.0, NOW - 10 * YEAR, NOW + 10 * YEAR, float("nan"), 1e300]),
    )
    def a_replay_with_a_clock_gone_mad(self, which: int, down: int, clock: float) -> None:
        self._hand(self.bundles[which % len(self.bundles)], 1 + down % self.release, clock)

    @rule(which=PICK, names=st.lists(PICK, max_size=4), down=PICK)
    def a_mixture(self, which: int, names: list[int], down: int) -> None:
        bundle = dict(self.bundles[-1])
        other = self.bundles[which % len(self.bundles)]
        for pick in names:
            name = sorted(other)[pick % len(other)]
            bundle[name] = other[name]
        self._hand(bundle, 1 + down % self.release)

    @rule(which=PICK, at=PICK, bit=st.integers(0, 7), tear=st.booleans())
    def a_damaged_one(self, which: int, at: int, bit: int, tear: bool) -> None:
        bundle = dict(self.bundles[-1])
        name = sorted(bundle)[which % len(bundle)]
        raw = bytearray(bundle.pop(name))
        if not tear:
            raw[at % len(raw)] ^= 1 << bit
            bundle[name] = bytes(raw)
        self._hand(bundle, self.release)

    @rule(second=st.booleans(), damaged=st.booleans())
    def one_copy_is_destroyed(self, second: bool, damaged: bool) -> None:
        self.memory.trusting()  # a start since the last time: both copies are there
        kept = (self.memory.vault if second else self.memory.journal).kept
        if DOCUMENT in kept and damaged:
            kept[DOCUMENT] = kept[DOCUMENT][:-1]
        else:
            kept.pop(DOCUMENT, None)

    def _hand(self, bundle: dict[str, bytes], release: int, clock: float | None = None) -> None:
        before = self.state
        self.memory.clock.now = self.now if clock is None else clock
        now, _ = trusted_now(before, self.memory.clock.now, BUILT)
        try:
            got = self.memory.trusting(built_at=BUILT).resolve(bundle, "pump", release).ref
        except RefusedError:
            assert self.state.releases == before.releases
            assert self.state.overrides_used == before.overrides_used
            return
        after = self.state
        assert got in self.honest
        assert got.release == release
        assert got.release >= after.min_release["pump"]
        assert after.releases["pump"] == got.release
        assert now < expires(after, ["pump"]), "installed on signatures that had run out"
        spent = after.overrides_used - before.overrides_used
        if got.release >= before.releases.get("pump", 0):
            assert not spent
            return
        assert len(spent) == 1, "below the floor without a signed leave"
        leave = self.leaves[next(iter(spent))]
        assert (leave.device, leave.release) == ("pump-7", got.release)
        assert now <= leave.until

    # ---- what holds between any two moments

    @invariant()
    def nothing_goes_down(self) -> None:
        if not hasattr(self, "memory"):
            return
        before, after = self.before, self.state
        assert after.time_floor >= before.time_floor
        assert after.min_release.get("pump", 0) >= before.min_release.get("pump", 0)
        assert after.overrides_used >= before.overrides_used
        assert after.anchor == before.anchor
        if after.overrides_used == before.overrides_used:
            assert after.releases.get("pump", 0) >= before.releases.get("pump", 0)
        self.before = after


TestTrust = Trust.TestCase
TestTrust.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
