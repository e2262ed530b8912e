"""Whatever bundles come, in whatever order, with a restart before each: the floors hold.

An honest publisher releases, renews and rotates; an attacker keeps every bundle there ever was,
mixes them, tears files out of them, flips their bytes, and turns the clock.  [trust-2.7]
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.core.trust import UntrustedError
from tests.world.tuf_device import Device
from tests.world.tuf_repository import DAY, NOW, TufRepository, package

PICK = st.integers(0, 2**16)


class Trust(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.repo = TufRepository("pump")
        self.repo.offer(package("pump", 1))
        self.device = Device(self.repo.root_file)
        self.honest = {package("pump", 1).ref}
        self.release = 1
        self.leaves = 0
        self.now = NOW
        self.bundles = [self.repo.bundle()]
        self.before = self.device.state

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

    @rule(down=PICK)
    def leave_to_go_down(self, down: int) -> None:
        self.leaves += 1
        wish = 1 + down % self.release
        until = int(self.now + DAY)
        self.repo.allow(
            "pump", self.leaves, devices=["pump-7"], allow_release=wish, not_after=until
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
        self._hand(self.bundles[-1], None if down % 2 else 1 + down % self.release)

    @rule(which=PICK, down=PICK, days=st.integers(-40, 40))
    def a_replay(self, which: int, down: int, days: int) -> None:
        bundle = self.bundles[which % len(self.bundles)]
        self._hand(bundle, 1 + down % self.release, self.now + days * DAY)

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
        self._hand(bundle, None)

    def _hand(
        self, bundle: dict[str, bytes], release: int | None, now: float | None = None
    ) -> None:
        before = self.device.state
        try:
            accepted = self.device.install(
                bundle, "pump", release, self.now if now is None else now
            )
        except UntrustedError:
            assert self.device.state.releases == before.releases
            return
        got, after = accepted.package.ref, self.device.state
        assert got in self.honest
        assert got.release >= after.min_release["pump"]
        assert after.releases["pump"] == got.release
        spent = after.overrides_used - before.overrides_used
        if got.release < before.releases.get("pump", 0):
            assert len(spent) == 1, "below the floor without a signed leave"
        else:
            assert not spent

    # ---- what holds between any two moments

    @invariant()
    def nothing_goes_down(self) -> None:
        if not hasattr(self, "device"):
            return
        before, after = self.before, self.device.state
        assert after.time_floor >= before.time_floor
        assert after.min_release.get("pump", 0) >= before.min_release.get("pump", 0)
        assert after.overrides_used >= before.overrides_used
        assert after.anchor == before.anchor
        if after.overrides_used == before.overrides_used:
            assert after.releases.get("pump", 0) >= before.releases.get("pump", 0)
        self.before = after


TestTrust = Trust.TestCase
TestTrust.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
