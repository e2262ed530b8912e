"""Threat T12 (docs/spec/trust.md): the clock set back or forward, by whoever holds it."""

from dataclasses import replace

import pytest
from tuf.api.metadata import Metadata

from agent.core.trust import (
    Kind,
    trusted_now,
)
from tests.world.tuf_device import Device
from tests.world.tuf_repository import DAY, NOW, TufRepository, at, package

ROLES = ("root", "targets", "pump", "snapshot", "timestamp")
YEAR = 365 * DAY


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


# ---- T12: the clock set back or forward ----------------------------------------------------------


@pytest.mark.parametrize(
    "clock", [0.0, -1e9, NOW - 10 * YEAR, NOW - 301, float("nan"), float("-inf")]
)
def test_t12_a_clock_behind_the_floor_is_not_believed(device, clock):
    """[trust-6.1]"""
    now, why = trusted_now(device.state, clock, built_at=NOW - 30 * DAY)
    assert now == NOW
    assert why.startswith("clock_untrusted")


@pytest.mark.parametrize("clock", [NOW - 1, NOW - 300])
def test_t12_a_clock_a_little_behind_the_publishers_is_passed_over_in_silence(device, clock):
    """[trust-6.1]"""
    assert trusted_now(device.state, clock, built_at=0.0) == (NOW, "")


@pytest.mark.parametrize("clock", [NOW + 10 * YEAR, NOW + 2 * YEAR + 1, 1e300, float("inf")])
def test_t12_a_clock_absurdly_ahead_is_not_believed(device, clock):
    """[trust-6.1]"""
    now, why = trusted_now(device.state, clock, built_at=0.0)
    assert now == NOW
    assert why.startswith("clock_untrusted")


@pytest.mark.parametrize("clock", [NOW, NOW + DAY, NOW + 2 * YEAR])
def test_t12_a_clock_within_two_years_of_the_floor_is_believed(device, clock):
    """[trust-6.1]"""
    assert trusted_now(device.state, clock, built_at=0.0) == (clock, "")


def test_t12_before_anything_was_signed_the_build_time_is_the_floor(repo):
    """[trust-6.2]"""
    fresh = Device(repo.root_file).state
    assert trusted_now(fresh, 0.0, built_at=NOW)[0] == NOW
    assert trusted_now(fresh, NOW + DAY, built_at=NOW) == (NOW + DAY, "")
    assert trusted_now(fresh, NOW, built_at=0.0) == (NOW, "")
    assert trusted_now(fresh, float("nan"), built_at=0.0)[0] == 0.0


def test_t12_a_dead_clock_does_not_bring_expired_metadata_back(repo, device):
    """[trust-6.2]"""
    stale = repo.bundle()
    repo.timestamp.expires = at(100)
    repo.issue(NOW + 60 * DAY)
    repo.publish("timestamp")
    device.install(repo.bundle())
    other = Device(repo.root_file)
    other.stored = replace(other.state, time_floor=device.state.time_floor).to_bytes()
    now, _ = trusted_now(other.state, 0.0, built_at=0.0)
    assert now == NOW + 60 * DAY
    other.refuses(stale, Kind.EXPIRED, now=now)


def test_t12_the_floor_rises_by_signed_time_only_and_never_falls(repo, device):
    """[trust-6.2]"""
    assert device.state.time_floor == NOW
    device.install(repo.bundle(), now=NOW + 5 * DAY)
    assert device.state.time_floor == NOW
    repo.issue(NOW - 100 * DAY)
    repo.publish("timestamp")
    device.install(repo.bundle())
    assert device.state.time_floor == NOW


@pytest.mark.parametrize("issued", [NOW + 100 * YEAR, 2**53 - 1])
def test_t12_a_stolen_timestamp_key_cannot_push_time_past_the_other_signatures(
    repo, device, issued
):
    """[trust-6.2]"""
    repo.timestamp.expires = at(365 * 200)
    repo.issue(issued)
    repo.publish("timestamp")
    device.install(repo.bundle())
    assert device.state.time_floor == NOW + 90 * DAY  # the snapshot's end


@pytest.mark.parametrize("issued", [-5, True, "soon", None, 2**60])
def test_t12_a_signed_time_that_is_none_moves_nothing(repo, device, issued):
    repo.timestamp.unrecognized_fields["custom"] = {"issued": issued}
    repo.publish("timestamp")
    device.install(repo.bundle())
    assert device.state.time_floor == NOW


@pytest.mark.parametrize("years", [-40, 40])
def test_t12_the_moment_told_is_the_moment_used(years):
    """[trust-6.3]"""
    repo = TufRepository("pump")
    for role in ROLES:
        repo.signed(role).expires = at(years * 365 + 10)
    repo.publish("root", "targets", "pump")
    repo.offer(package("pump", 1))
    device = Device(repo.root_file)
    moment = NOW + years * YEAR
    assert device.install(repo.bundle(), now=moment)
    device.refuses(repo.bundle(), Kind.EXPIRED, now=moment + 11 * DAY)


def test_the_stored_bytes_of_each_role_are_the_ones_that_came(repo, device):
    """[trust-3.6]"""
    repo.publish("timestamp")
    raw = repo.files["timestamp.json"] + b" "
    device.install({**repo.bundle(), "timestamp.json": raw})
    assert device.state.roles["timestamp"] == raw
    assert Metadata.from_bytes(device.state.roles["pump"]).signed.version == 2
