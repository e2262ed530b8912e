"""Threats T4, T5 and T12 where they meet a restart: what a device keeps of its trust, and tells."""

import pickle
import subprocess
import sys

import pytest

from agent.core.errors import RefusedError, UnavailableError
from agent.core.trust import Kind, TrustState, UntrustedError
from agent.runtime.trusting import DOCUMENT, Unanchored, Unsigned
from tests.world.tuf_memory import Memory, replays
from tests.world.tuf_repository import DAY, NOW, TufRepository, at, package

YEAR = 365 * DAY


@pytest.fixture
def repo() -> TufRepository:
    repo = TufRepository("pump", "fan")
    repo.offer(package("pump", 1))
    return repo


@pytest.fixture
def memory(repo: TufRepository) -> Memory:
    return Memory(repo.root_file)


def floor(memory: Memory) -> int:
    return TrustState.from_bytes(memory.vault.kept[DOCUMENT]).releases["pump"]


# ---- T4: replay after a restart, and after one of the copies is lost -----------------------------

LOSSES = {
    "a restart": lambda _: None,
    "the database lost": lambda memory: memory.journal.kept.clear(),
    "the database damaged": lambda memory: memory.journal.kept.update({DOCUMENT: b"scribbled"}),
    "the second copy lost": lambda memory: memory.vault.kept.clear(),
    "the second copy damaged": lambda memory: memory.vault.kept.update({DOCUMENT: b"\xff" * 99}),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_t4_no_earlier_bundle_is_accepted_after(repo, memory, loss):
    """[trust-2.10]"""
    seen = [repo.bundle()]
    for release in (2, 3, 4, 5):
        repo.offer(package("pump", release))
        memory.trusting().resolve(repo.bundle(), "pump", release)
        loss(memory)
        assert replays(memory.trusting(), seen, "pump", range(1, 6)) == []
        seen.append(repo.bundle())
    assert floor(memory) == 5


def test_t4_both_copies_lost_one_after_the_other_with_a_start_between(repo, memory):
    """[trust-2.10]"""
    old = repo.bundle()
    repo.offer(package("pump", 2))
    memory.trusting().resolve(repo.bundle(), "pump", 2)
    for copy in (memory.journal, memory.vault, memory.journal):
        copy.kept.clear()
        assert replays(memory.trusting(), [old], "pump", [1]) == []
    assert memory.journal.kept == memory.vault.kept


def test_t4_a_copy_put_back_from_a_backup_does_not_count(repo, memory):
    """[trust-2.10]"""
    old = repo.bundle()
    memory.trusting().resolve(old, "pump", 1)
    backup = dict(memory.journal.kept)
    repo.offer(package("pump", 2))
    memory.trusting().resolve(repo.bundle(), "pump", 2)
    for copy in (memory.journal, memory.vault):
        whole = dict(copy.kept)
        copy.kept = dict(backup)
        assert replays(memory.trusting(), [old], "pump", [1]) == []
        assert copy.kept == whole  # mended


@pytest.mark.parametrize("broken", ["journal", "vault"])
def test_t4_what_could_not_be_stored_is_not_accepted(repo, memory, broken):
    """[trust-2.10]"""
    memory.trusting().resolve(repo.bundle(), "pump", 1)
    repo.offer(package("pump", 2))
    copy = getattr(memory, broken)
    copy.writes_max = copy.writes
    trusting = memory.trusting()
    with pytest.raises(UnavailableError):
        trusting.resolve(repo.bundle(), "pump", 2)
    copy.writes_max = None
    assert memory.trusting().resolve(repo.bundle(), "pump", 2).ref.release == 2
    assert floor(memory) == 2


def test_t4_with_no_copy_whole_it_does_not_start_over(repo, memory):
    """[trust-2.6]"""
    memory.trusting().resolve(repo.bundle(), "pump", 1)
    for copy in (memory.journal, memory.vault):
        copy.kept[DOCUMENT] = copy.kept[DOCUMENT][:-1]
    with pytest.raises(UntrustedError) as caught:
        memory.trusting()
    assert caught.value.kind is Kind.CORRUPT


def test_a_copy_that_cannot_be_mended_keeps_no_agent_from_starting(repo, memory):
    memory.trusting().resolve(repo.bundle(), "pump", 1)
    memory.vault.kept.clear()
    memory.vault.writes_max = 0
    assert memory.trusting().permits("pump", 1)


# ---- T5: freeze: nothing new is installed, and a person is told ----------------------------------


def test_t5_what_ran_out_is_told_with_the_days(repo, memory):
    """[trust-3.7]"""
    trusting = memory.trusting()
    assert trusting.doubts({}) == []
    trusting.resolve(repo.bundle(), "pump", 1)
    memory.clock.now = NOW + 29 * DAY
    assert trusting.doubts({"pump": 1}) == []
    memory.clock.now = NOW + 42 * DAY
    (doubt,) = trusting.doubts({"pump": 1})
    assert doubt.startswith("trust_stale: the repository's signatures ran out 12 days ago")
    assert "what runs goes on, nothing new is installed" in doubt
    memory.clock.now = NOW + 31 * DAY
    assert "ran out 1 day ago" in trusting.doubts({"pump": 1})[0]


def test_t5_a_model_that_runs_here_no_more_makes_nothing_stale(repo, memory):
    """[trust-3.7]"""
    repo.timestamp.expires = repo.snapshot.expires = at(360)
    repo.publish("snapshot", "timestamp")
    trusting = memory.trusting()
    trusting.resolve(repo.bundle(), "pump", 1)
    memory.clock.now = NOW + 181 * DAY
    assert trusting.doubts({"fan": 1}) == []
    assert "trust_stale" in trusting.doubts({"pump": 1})[0]


def test_t5_within_the_grace_it_is_told_and_installed_and_after_it_not(repo, memory):
    """[trust-3.2]"""
    repo.offer(package("pump", 2))
    trusting = memory.trusting(grace_s=7 * DAY)
    trusting.resolve(repo.bundle(), "pump", 1)
    memory.clock.now = NOW + 33 * DAY
    assert "in 4 days nothing new will be installed" in trusting.doubts({"pump": 1})[0]
    assert trusting.resolve(repo.bundle(), "pump", 2).ref.release == 2
    memory.clock.now = NOW + 37 * DAY
    assert "nothing new is installed" in trusting.doubts({"pump": 1})[0]
    with pytest.raises(RefusedError, match=r"^expired"):
        trusting.resolve(repo.bundle(), "pump", 2)
    with pytest.raises(RefusedError, match=r"^expired"):
        memory.trusting().resolve(repo.bundle(), "pump", 2)


def test_t5_what_is_here_may_be_gone_back_to_however_stale(repo, memory):
    """[trust-3.1]"""
    trusting = memory.trusting()
    trusting.resolve(repo.bundle(), "pump", 1)
    memory.clock.now = NOW + YEAR
    assert trusting.permits("pump", 1)


# ---- T12: the clock ------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [0.0, NOW - 10 * YEAR, NOW + 10 * YEAR])
def test_t12_a_clock_that_is_not_believed_is_told_and_installs_go_on(repo, memory, said):
    """[trust-6.4]"""
    memory.clock.now = said
    trusting = memory.trusting(built_at=NOW - 100 * DAY)
    assert trusting.resolve(repo.bundle(), "pump", 1).ref.release == 1
    (doubt,) = trusting.doubts({"pump": 1})
    assert doubt.startswith("clock_untrusted")
    memory.clock.now = NOW + DAY
    assert trusting.doubts({"pump": 1}) == []


def test_t12_the_floor_of_time_outlives_a_restart_with_a_dead_clock(repo, memory):
    """[trust-6.2]"""
    stale = repo.bundle()
    repo.timestamp.expires = at(100)
    repo.issue(NOW + 60 * DAY)
    repo.publish("timestamp")
    memory.trusting().resolve(repo.bundle(), "pump", 1)
    state = TrustState.from_bytes(memory.vault.kept[DOCUMENT])
    assert state.time_floor == NOW + 60 * DAY
    memory.clock.now = 0.0
    for copy in (memory.journal, memory.vault):  # metadata forgotten, the floor of time kept
        roles = {"root": state.roles["root"]}
        copy.kept[DOCUMENT] = TrustState(
            roles, time_floor=state.time_floor, anchor=state.anchor
        ).to_bytes()
    with pytest.raises(RefusedError, match=r"^expired"):
        memory.trusting().resolve(stale, "pump", 1)


def test_t12_one_moment_judges_a_whole_refresh_however_the_clock_jumps(repo, memory):
    """[trust-6.3]"""
    trusting = memory.trusting()
    for jump in (NOW + 40 * DAY, NOW - 10 * YEAR, NOW + 10 * YEAR):
        memory.clock.jumps, memory.clock.asked = [NOW, *[jump] * 50], 0
        assert trusting.resolve(repo.bundle(), "pump", 1).ref.release == 1
        assert memory.clock.asked == 1
        memory.clock.jumps, memory.clock.asked = [NOW, *[jump] * 50], 0
        trusting.refresh(repo.bundle(), ["pump", "fan"])
        assert memory.clock.asked == 1


# ---- what is learnt without installing anything --------------------------------------------------


def test_a_refresh_learns_floors_and_revoked_keys_and_installs_nothing(repo, memory):
    """[trust-3.8]"""
    trusting = memory.trusting()
    trusting.resolve(repo.bundle(), "pump", 1)
    old = repo.bundle()
    repo.offer(package("pump", 2))
    repo.least("pump", 2)
    repo.issue(NOW + DAY)
    repo.rotate_root()
    repo.publish("timestamp")
    trusting.refresh(repo.bundle(), ["pump", "a-model-of-before"])
    state = TrustState.from_bytes(memory.vault.kept[DOCUMENT])
    assert state.releases == {"pump": 1}
    assert state.min_release["pump"] == 2
    assert state.time_floor == NOW + DAY
    assert not trusting.permits("pump", 1)
    memory.clock.now = NOW + DAY
    assert trusting.doubts({"pump": 1})[0].startswith("min_release: pump:1 runs below")
    with pytest.raises(RefusedError, match=r"^version"):
        trusting.resolve(old, "pump", 1)


def test_a_refresh_that_is_refused_for_one_model_keeps_what_it_learnt_of_others(repo, memory):
    """[trust-3.8]"""
    repo.offer(package("fan", 1))
    trusting = memory.trusting()
    trusting.resolve(repo.bundle(), "pump", 1)
    trusting.resolve(repo.bundle(), "fan", 1)
    repo.offer(package("pump", 2))
    repo.least("pump", 2)
    repo.signers["fan"] = repo.signers["pump"]
    repo.publish("fan")
    with pytest.raises(UntrustedError) as caught:
        trusting.refresh(repo.bundle(), ["fan", "pump"])
    assert caught.value.kind is Kind.SIGNATURE
    assert not memory.trusting().permits("pump", 1)


# ---- without signatures --------------------------------------------------------------------------


def test_where_nothing_is_signed_that_is_a_doubt_for_ever():
    """[trust-9.1]"""
    assert Unsigned().doubts({})[0].startswith("trust_none: unsigned packages are installed")
    assert Unsigned().permits("pump", 1)
    Unsigned().refresh({}, ["pump"])


def test_without_an_anchor_nothing_is_installed_and_nothing_doubted():
    assert Unanchored().doubts({}) == []
    assert Unanchored().permits("pump", 1)
    Unanchored().refresh({}, [])
    with pytest.raises(RefusedError, match="no trust anchor"):
        Unanchored().resolve({}, "pump", 1)


# ---- starting ------------------------------------------------------------------------------------

STARTS = """
import pickle, sys
from types import SimpleNamespace
from agent.runtime.trusting import Trusting
root, kept, now = pickle.load(sys.stdin.buffer)
copy = SimpleNamespace(load_document=kept.get, recall=kept.get)
clock = SimpleNamespace(wall=lambda: now)
trusting = Trusting(root, copy, copy, clock, built_at=0.0, device="pump-7", groups=())
print(trusting.permits("pump", 1), trusting.doubts({"pump": 1}), "tuf" in sys.modules)
"""


def test_a_device_that_starts_with_what_it_has_reads_no_signature(repo, memory):
    """What does is 0.1 s of imports on a fast machine, before the first score."""
    memory.trusting().resolve(repo.bundle(), "pump", 1)
    known = pickle.dumps((memory.root_file, memory.journal.kept, memory.clock.now))
    done = subprocess.run(
        [sys.executable, "-c", STARTS], input=known, capture_output=True, check=True
    )
    assert done.stdout.decode().split() == ["True", "[]", "False"]
