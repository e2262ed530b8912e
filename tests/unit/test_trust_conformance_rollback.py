"""The cases of tuf-conformance (eec841c), against our verifier: rollback and delegation.

docs/spec/trust.md lists all 53, with the test here or elsewhere that holds each, or the reason why
it cannot apply.  Names are theirs.
"""

import pytest

from agent.core.trust import Kind, UntrustedError
from tests.world.tuf_device import Device
from tests.world.tuf_repository import NOW, TufRepository, package


@pytest.fixture
def repo() -> TufRepository:
    return TufRepository("pump")


@pytest.fixture
def device(repo: TufRepository) -> Device:
    return Device(repo.root_file)


def versions(device: Device) -> dict[str, int | None]:
    return {role: device.version(role) for role in device.state.roles}


def refused(device: Device, repo: TufRepository, *kinds: Kind, now: float = NOW) -> None:
    with pytest.raises(UntrustedError) as caught:
        device.look(repo.bundle(), now)
    assert caught.value.kind in kinds, str(caught.value)


# ---- test_rollback -------------------------------------------------------------------------------


def test_new_timestamp_version_rollback(repo, device):
    repo.publish("timestamp")
    device.look(repo.bundle())
    repo.timestamp.version = 1
    repo.write("timestamp")
    refused(device, repo, Kind.VERSION)
    assert device.version("timestamp") == 2


@pytest.mark.parametrize("hashes", [False, True])
def test_snapshot_rollback(hashes):
    repo = TufRepository("pump", hashes=hashes)
    device = Device(repo.root_file)
    repo.publish("snapshot")
    device.look(repo.bundle())
    repo.snapshot.version = 1
    repo.write("snapshot")
    repo.publish("timestamp")
    refused(device, repo, Kind.VERSION)
    assert versions(device) == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1}


def test_targets_role_removal(repo, device):
    device.look(repo.bundle())
    del repo.snapshot.meta["pump.json"]
    del repo.families["pump"]
    repo.publish("snapshot")
    refused(device, repo, Kind.VERSION)
    assert device.version("snapshot") == 1


def test_targets_fast_forward_recovery(repo, device):
    repo.targets.version = 99
    repo.publish("targets")
    device.look(repo.bundle())
    assert device.version("targets") == 100
    repo.rotate("snapshot")
    repo.targets.version = 0
    del repo.snapshot.meta["pump.json"]
    del repo.families["pump"]
    repo.publish("root", "targets")
    device.look(repo.bundle())
    assert device.version("targets") == 1


def test_new_snapshot_fast_forward_recovery(repo, device):
    repo.snapshot.version = 99
    repo.publish("snapshot")
    device.look(repo.bundle())
    assert device.version("snapshot") == 100
    repo.rotate("snapshot")
    repo.rotate("timestamp")
    repo.snapshot.version = 0
    repo.publish("root", "targets")
    device.look(repo.bundle())
    assert device.version("snapshot") == 1


def test_new_timestamp_fast_forward_recovery(repo, device):
    repo.timestamp.version = 99
    repo.publish("timestamp")
    device.look(repo.bundle())
    assert device.version("timestamp") == 100
    repo.rotate("timestamp")
    repo.timestamp.version = 0
    repo.publish("root", "timestamp")
    device.look(repo.bundle())
    assert device.version("timestamp") == 1


@pytest.mark.parametrize("hashes", [False, True])
def test_targets_rollback(hashes):
    repo = TufRepository("pump", hashes=hashes)
    device = Device(repo.root_file)
    repo.publish("targets")
    device.look(repo.bundle())
    repo.targets.version = 1
    repo.write("targets")
    repo.publish("snapshot")
    refused(device, repo, Kind.VERSION)
    assert device.version("snapshot") == 2
    assert device.version("targets") == 2


# ---- test_updater_delegation_graphs: our graph has one level -------------------------------------


def test_delegation_not_in_snapshot(repo, device):
    repo.offer(package("pump", 1))
    held = repo.families.pop("pump")
    del repo.snapshot.meta["pump.json"]
    repo.publish("snapshot")
    device.look(repo.bundle())
    repo.families["pump"] = held
    device.refuses(repo.bundle(), Kind.MISSING)
    assert device.version("pump") is None
