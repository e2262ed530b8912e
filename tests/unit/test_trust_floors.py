"""Threats T4 to T7 (docs/spec/trust.md): old, frozen, mixed and fast-forwarded repositories."""

from dataclasses import replace

import pytest

from agent.core.trust import (
    Kind,
    TrustState,
    UntrustedError,
    permits,
)
from tests.world.tuf_device import Device
from tests.world.tuf_repository import DAY, NOW, TufRepository, at, package, sign, target_of

ROLES = ("root", "targets", "pump", "snapshot", "timestamp")


@pytest.fixture
def repo() -> TufRepository:
    repo = TufRepository("pump", "fan")
    repo.offer(package("pump", 1))
    return repo


@pytest.fixture
def device(repo: TufRepository) -> Device:
    device = Device(repo.root_file)
    device.install(repo.bundle())
    return device


# ---- T4: replay of an old repository -------------------------------------------------------------


def test_t4_every_earlier_bundle_is_refused_after_a_restart(repo, device):
    """[trust-2.1]"""
    seen = [repo.bundle()]
    for release in (2, 3, 4):
        repo.offer(package("pump", release))
        device.install(repo.bundle())
        for old in seen:
            device.refuses(old, Kind.VERSION)
        seen.append(repo.bundle())
    assert device.state.releases == {"pump": 4}


def test_t4_a_lower_release_is_refused_although_freshly_signed(repo, device):
    """[trust-2.2]"""
    repo.offer(package("pump", 3))
    device.install(repo.bundle())
    repo.publish("pump")
    device.refuses(repo.bundle(), Kind.ROLLBACK, release=1)


def test_t4_the_floor_outlives_new_keys_for_everything(repo, device):
    """[trust-2.2]"""
    repo.offer(package("pump", 3))
    device.install(repo.bundle())
    for role in ("root", "targets", "snapshot", "timestamp", "pump"):
        repo.rotate(role)
    del repo.families["pump"].targets["pump/3"]
    repo.publish("root", "targets", "pump")
    device.refuses(repo.bundle(), Kind.ROLLBACK)


def test_t4_the_same_release_again_is_a_repair_if_its_bytes_are_the_same(repo, device):
    """[trust-2.3]"""
    assert device.install(repo.bundle()).package == package("pump", 1)
    repo.offer(package("pump", 1, b"other bytes"))
    device.refuses(repo.bundle(), Kind.DIGEST)


def test_t4_old_bytes_come_back_under_a_new_release(repo, device):
    """[trust-2.4]"""
    repo.offer(package("pump", 2))
    device.install(repo.bundle())
    old = package("pump", 1)
    repo.offer(replace(old, ref=replace(old.ref, release=3), version="3"))
    assert device.install(repo.bundle()).package.ref.digest == old.ref.digest


def test_t4_below_the_security_floor_nothing_goes_by_any_way(repo, device):
    """[trust-2.5]"""
    repo.offer(package("pump", 2))
    repo.offer(package("pump", 3))
    repo.least("pump", 3)
    assert permits(device.state, "pump", 1)
    device.refuses(repo.bundle(), Kind.MIN_RELEASE, release=2)
    assert not permits(device.state, "pump", 2)
    assert permits(device.state, "pump", 3)
    repo.allow("pump", 1, devices=["pump-7"], allow_release=2, not_after=int(NOW + DAY))
    device.refuses(repo.bundle(), Kind.MIN_RELEASE, release=2)
    repo.least("pump", 0)
    device.refuses(repo.bundle(), Kind.MIN_RELEASE, release=2)


def test_t4_a_security_floor_that_nothing_reaches_is_refused_and_forgotten(repo, device):
    """[trust-2.5]"""
    repo.least("pump", 2**53 - 1)
    device.refuses(repo.bundle(), Kind.MALFORMED)
    assert permits(device.state, "pump", 1)


def test_t4_damaged_trust_is_said_and_not_started_over(device):
    """[trust-2.6]"""
    for cut in (0, 10, len(device.stored) // 2, len(device.stored) - 1):
        with pytest.raises(UntrustedError) as caught:
            TrustState.from_bytes(device.stored[:cut])
        assert caught.value.kind is Kind.CORRUPT


# ---- T5: freeze ----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_t5_a_frozen_repository_is_refused_once_it_has_expired(repo, device, role):
    """[trust-3.1]"""
    repo.signed(role).expires = at(10)
    repo.publish(role)
    assert device.install(repo.bundle(), now=NOW + 9 * DAY)
    frozen = repo.bundle()
    device.refuses(frozen, Kind.EXPIRED, now=NOW + 10 * DAY)
    assert permits(device.state, "pump", 1)  # what runs goes on


def test_t5_the_verdict_says_when_the_first_signature_runs_out(repo, device):
    """[trust-3.2]"""
    assert device.install(repo.bundle()).expires == NOW + 30 * DAY


# ---- T6: mix and match ---------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["snapshot", "targets", "pump"])
def test_t6_a_role_from_another_generation_is_refused(repo, device, role):
    """[trust-3.3]"""
    old = repo.files[repo.name_of(role)]
    repo.publish("targets", "pump")
    device.refuses({**repo.bundle(), repo.name_of(role): old}, Kind.VERSION)


@pytest.mark.parametrize("role", ["snapshot", "targets", "pump"])
def test_t6_another_file_under_the_same_version_is_refused_where_hashes_are_signed(role):
    """[trust-3.3]"""
    repo = TufRepository("pump", hashes=True)
    repo.offer(package("pump", 1))
    device = Device(repo.root_file)
    honest = repo.bundle()
    repo.signed(role).unrecognized_fields["other"] = True
    other = sign(repo.signed(role), repo.signers[role])
    device.refuses({**honest, repo.name_of(role): other}, Kind.MISMATCH)


def test_t6_a_release_described_under_another_number_is_refused(repo, device):
    """[trust-3.4]"""
    repo.families["pump"].targets["pump/2"] = target_of("pump/2", package("pump", 1))
    repo.publish("pump")
    device.refuses(repo.bundle(), Kind.MISMATCH)


def test_t6_a_description_that_is_not_what_was_hashed_is_refused(repo, device):
    """[trust-3.4]"""
    repo.families["pump"].targets["pump/2"] = entry = target_of("pump/2", package("pump", 2))
    entry.unrecognized_fields["custom"]["description"] += " "
    repo.publish("pump")
    device.refuses(repo.bundle(), Kind.MISMATCH)


# ---- T7: fast-forward ----------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "pump"])
def test_t7_new_keys_recover_from_versions_driven_to_the_end(repo, device, role):
    """[trust-2.8]"""
    honest = repo.signed(role).version
    repo.signed(role).version = 2**31
    repo.publish(role)
    device.install(repo.bundle())
    repo.signed(role).version = honest
    repo.rotate("timestamp")
    if role != "timestamp":
        repo.rotate("snapshot")
    repo.publish("root", role)
    device.install(repo.bundle())
    assert device.version(role) == honest + 1
