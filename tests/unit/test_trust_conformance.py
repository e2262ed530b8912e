"""The cases of tuf-conformance (eec841c), against our verifier: one test for each that can apply.

docs/spec/trust.md lists all 53, with the test here or elsewhere that holds each, or the reason why
it cannot apply.  Names are theirs.
"""

import json

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, TargetFile

from agent.core.trust import Kind, UntrustedError, begin
from tests.world.tuf_device import Device
from tests.world.tuf_repository import DAY, NOW, TufRepository, at, package, target_of


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


# ---- test_basic ----------------------------------------------------------------------------------


def test_basic_refresh_trusted_data(repo, device):
    device.look(repo.bundle())
    for role in ("root", "timestamp", "snapshot", "targets"):
        assert device.state.roles[role] == repo.files[repo.name_of(role)]


def test_implicit_refresh(repo, device):
    device.refuses(repo.bundle(), Kind.UNKNOWN, model="nothing")
    assert versions(device) == {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}


def test_invalid_initial_root(repo):
    document = json.loads(repo.root_file)
    del document["signed"]["version"]
    with pytest.raises(UntrustedError) as caught:
        begin(json.dumps(document).encode())
    assert caught.value.kind is Kind.MALFORMED


def test_unsigned_initial_root(repo):
    document = json.loads(repo.root_file)
    for signature in document["signatures"]:
        signature["sig"] = "30" * 70
    with pytest.raises(UntrustedError) as caught:
        begin(json.dumps(document).encode())
    assert caught.value.kind is Kind.SIGNATURE


@pytest.mark.parametrize(
    ("role", "trusted"),
    [
        ("root", {"root": 1}),
        ("timestamp", {"root": 2}),
        ("snapshot", {"root": 2, "timestamp": 2}),
        ("targets", {"root": 2, "timestamp": 2, "snapshot": 2}),
    ],
)
def test_unsigned_metadata(repo, device, role, trusted):
    repo.signers[role] = repo.signers[role][1:] if role != "root" else repo.signers[role][2:]
    repo.publish("root", "targets")
    refused(device, repo, Kind.SIGNATURE)
    assert versions(device) == trusted


@pytest.mark.parametrize(
    ("role", "trusted"),
    [
        ("root", {"root": 1}),
        ("snapshot", {"root": 2, "timestamp": 2}),
        ("targets", {"root": 2, "timestamp": 2, "snapshot": 2}),
    ],
)
def test_url_and_metadata_version_mismatch(repo, device, role, trusted):
    repo.publish("root", "targets")
    name = repo.name_of(role)
    repo.signed(role).version += 1
    other = repo.write(role)
    repo.signed(role).version -= 1
    repo.files[name] = other
    del repo.files[f"3.{role}.json"]
    refused(device, repo, Kind.VERSION)
    assert versions(device) == trusted


def test_timestamp_content_changes(repo, device):
    device.look(repo.bundle())
    held = device.state.roles["timestamp"]
    repo.snapshot.version = 100
    repo.write("timestamp")
    repo.snapshot.version = 1
    device.look(repo.bundle())
    assert device.state.roles["timestamp"] == held


def test_basic_metadata_hash_support():
    repo = TufRepository("pump", hashes=True)
    repo.publish("targets")
    device = Device(repo.root_file)
    device.look(repo.bundle())
    assert device.version("targets") == 2


def test_targets_hash_mismatch():
    repo = TufRepository("pump", hashes=True)
    device = Device(repo.root_file)
    device.look(repo.bundle())
    repo.publish("targets")
    repo.snapshot.meta["targets.json"].hashes["sha256"] = "0" * 64
    _resign_snapshot(repo)
    refused(device, repo, Kind.MISMATCH)
    assert versions(device) == {"root": 1, "timestamp": 3, "snapshot": 3, "targets": 1}


def test_snapshot_hash_mismatch():
    repo = TufRepository("pump", hashes=True)
    device = Device(repo.root_file)
    device.look(repo.bundle())
    repo.publish("pump")
    repo.timestamp.version += 1
    repo.timestamp.snapshot_meta.hashes["sha256"] = "0" * 64
    repo.files["timestamp.json"] = _signed(repo, "timestamp")
    refused(device, repo, Kind.MISMATCH)
    assert versions(device) == {"root": 1, "timestamp": 3, "snapshot": 1, "targets": 1}


def test_metadata_bytes_match(repo, device):
    """[trust-3.6]"""
    raw = repo.files["timestamp.json"] + b" "
    device.look({**repo.bundle(), "timestamp.json": raw})
    assert device.state.roles["timestamp"] == raw


def test_custom_fields(repo, device):
    device.look(repo.bundle())
    repo.root.unrecognized_fields["custom-field"] = "value"
    repo.root.roles["root"].unrecognized_fields["another-field"] = "value"
    signer = CryptoSigner.generate_ed25519()
    signer.public_key.unrecognized_fields["extra-field"] = {"a": 1, "b": 2}
    repo.add_key("root", signer)
    repo.publish("root")
    device.look(repo.bundle())
    assert device.version("root") == 2


def test_deprecated_keyid_hash_algorithms(repo, device):
    device.look(repo.bundle())
    repo.root.revoke_key(repo.signers["snapshot"].pop().public_key.keyid, "snapshot")
    signer = CryptoSigner.generate_ed25519()
    signer.public_key.unrecognized_fields = {"keyid_hash_algorithms": "md5"}
    repo.add_key("snapshot", signer)
    repo.publish("root", "snapshot")
    device.look(repo.bundle())
    assert versions(device) == {"root": 2, "timestamp": 2, "snapshot": 2, "targets": 1}


@pytest.mark.parametrize(
    ("role", "trusted"),
    [
        ("timestamp", {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}),
        ("snapshot", {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1}),
        ("targets", {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1}),
    ],
)
def test_role_404(repo, device, role, trusted):
    device.look(repo.bundle())
    repo.publish("targets")
    del repo.files[repo.name_of(role)]
    refused(device, repo, Kind.MISSING)
    assert versions(device) == trusted


def test_incorrect_metadata_type(repo, device):
    repo.add_key("snapshot", repo.signers["timestamp"][0])
    repo.snapshot.meta = {"snapshot.json": MetaFile(1)}
    repo.publish("root", "timestamp")
    repo.snapshot.version = 2
    repo.files["timestamp.json"] = _signed(repo, "snapshot")
    repo.snapshot.version = 1
    refused(device, repo, Kind.MALFORMED, Kind.VERSION)
    assert versions(device) == {"root": 2}


def test_faketime(repo, device):
    repo.root.expires = at(7)
    repo.publish("root")
    device.look(repo.bundle())
    refused(device, repo, Kind.EXPIRED, now=NOW + 8 * DAY)


# ---- test_expiration -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "trusted"),
    [
        ("root", {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1}),
        ("timestamp", {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1}),
        ("snapshot", {"root": 2, "timestamp": 2, "snapshot": 1, "targets": 1}),
        ("targets", {"root": 2, "timestamp": 2, "snapshot": 2, "targets": 1}),
    ],
)
def test_role_expired(repo, device, role, trusted):
    device.look(repo.bundle())
    repo.signed(role).expires = at(-5)
    repo.publish("root", "targets")
    refused(device, repo, Kind.EXPIRED)
    assert versions(device) == trusted


def test_expired_local_root(repo, device):
    repo.root.expires = at(7)
    repo.publish("root")
    device.look(repo.bundle())
    repo.root.expires = at(21)
    repo.publish("root")
    device.look(repo.bundle(), now=NOW + 18 * DAY)
    assert device.version("root") == 3


def test_expired_local_timestamp(repo, device):
    repo.timestamp.expires = at(7)
    repo.publish("timestamp")
    device.look(repo.bundle())
    repo.timestamp.expires = at(21)
    repo.publish("targets")
    device.look(repo.bundle(), now=NOW + 18 * DAY)
    assert versions(device) == {"root": 1, "timestamp": 3, "snapshot": 2, "targets": 2}


# ---- test_file_download: the described package is what a target is here --------------------------


def test_multiple_changes_to_target(repo, device):
    for release in range(1, 12):
        repo.offer(package("pump", release))
        if release % 5 == 1:
            assert device.install(repo.bundle()).package == package("pump", release)
            swapped = package("pump", release, b"malicious")
            repo.families["pump"].targets[f"pump/{release}"].unrecognized_fields["custom"] = (
                target_of("", swapped).custom
            )
            repo.publish("pump")
            device.refuses(repo.bundle(), Kind.MISMATCH)
            repo.offer(package("pump", release))


@pytest.mark.parametrize("hashes", [["sha256"], ["sha512"], ["sha256", "sha512"]])
def test_download_with_hash_algorithms(repo, device, hashes):
    _offer_hashed(repo, hashes)
    assert device.install(repo.bundle()).package.ref.release == 1


def test_download_with_unknown_hash_algorithm(repo, device):
    entry = _offer_hashed(repo, ["sha512"])
    entry.hashes = {"unknown-hash": entry.hashes["sha512"]}
    repo.publish("pump")
    device.refuses(repo.bundle(), Kind.MISMATCH)


def _signed(repo, role):
    metadata = Metadata(repo.signed(role))
    for signer in repo.signers[role]:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()


def _resign_snapshot(repo):
    repo.snapshot.version += 1
    repo.files[repo.name_of("snapshot")] = _signed(repo, "snapshot")
    repo.timestamp.version += 1
    repo.write("timestamp")


def _offer_hashed(repo, hashes):
    entry = target_of("pump/1", package("pump", 1))
    text = entry.custom["description"]
    hashed = TargetFile.from_data("pump/1", text.encode(), hashes)
    hashed.unrecognized_fields["custom"] = {"description": text}
    repo.families["pump"].targets["pump/1"] = hashed
    repo.publish("pump")
    return hashed
