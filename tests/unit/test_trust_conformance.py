"""The cases of tuf-conformance (eec841c), against our verifier: one test for each that can apply.

docs/spec/trust.md lists all 53, with the test here or elsewhere that holds each, or the reason why
it cannot apply.  Names are theirs.
"""

import json

import pytest
from securesystemslib.signer import CryptoSigner, Key
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


# ---- test_keys -----------------------------------------------------------------------------------


def test_snapshot_does_not_meet_threshold(repo, device):
    repo.root.roles["snapshot"].threshold = 3
    repo.add_key("snapshot")
    repo.add_key("snapshot")
    repo.publish("root", "targets")
    device.look(repo.bundle())
    repo.signers["snapshot"].pop()
    repo.publish("targets")
    refused(device, repo, Kind.SIGNATURE)
    assert device.version("snapshot") == 2


def test_snapshot_has_too_few_keys(repo, device):
    for _ in range(4):
        repo.add_key("snapshot")
    repo.root.roles["snapshot"].threshold = 6
    repo.publish("root", "snapshot")
    refused(device, repo, Kind.SIGNATURE)
    assert versions(device) == {"root": 2, "timestamp": 2}


def test_duplicate_keys(repo, device):
    only = repo.signers["snapshot"][0].public_key
    for number in range(8):
        twin = Key.from_dict(f"{number:064d}", only.to_dict())
        repo.root.add_key(twin, "snapshot")
    repo.root.roles["snapshot"].threshold = 9
    repo.publish("root")
    refused(device, repo, Kind.KEY)
    assert versions(device) == {"root": 1}


def test_duplicate_sig_keyids(repo, device):
    name = repo.name_of("snapshot")
    document = json.loads(repo.files[name])
    document["signatures"] *= 2
    repo.files[name] = json.dumps(document).encode()
    refused(device, repo, Kind.MALFORMED)
    assert device.version("snapshot") is None


@pytest.mark.parametrize(
    ("make", "taken"),
    [
        (CryptoSigner.generate_ed25519, True),
        (CryptoSigner.generate_ecdsa, True),
        (CryptoSigner.generate_rsa, False),  # our profile: small keys only
        (lambda: CryptoSigner.generate_ecdsa(scheme="ecdsa-sha2-nistp384"), False),
    ],
    ids=["ed25519", "ecdsa", "rsa", "p384"],
)
def test_keytype_and_scheme(repo, device, make, taken):
    signer = repo.add_key("root", make())
    repo.root.roles["root"].threshold = 4
    repo.publish("root")
    if not taken:
        refused(device, repo, Kind.KEY)
        return
    device.look(repo.bundle())
    repo.publish("root")
    bad = Metadata.from_bytes(repo.files["3.root.json"])
    bad.signatures[signer.public_key.keyid].signature = "30" * 64
    repo.files["3.root.json"] = bad.to_bytes()
    refused(device, repo, Kind.SIGNATURE)
    assert device.version("root") == 2


@pytest.mark.parametrize("garbage", ["b6" * 64, "", "no hex", "ff"])
def test_invalid_sig_in_valid_metadata(repo, device, garbage):
    first = repo.signers["timestamp"][0].public_key.keyid
    repo.add_key("timestamp")
    repo.publish("root", "timestamp")
    metadata = Metadata.from_bytes(repo.files["timestamp.json"])
    metadata.signatures[first].signature = garbage
    repo.files["timestamp.json"] = metadata.to_bytes()
    device.look(repo.bundle())
    assert device.version("timestamp") == 2


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


# ---- test_updater_key_rotations ------------------------------------------------------------------

ROOT_ROTATIONS = {  # (keys, threshold, signatures) of each root in turn, and whether the last is taken
    "1-of-1": ([([1], 1, [1]), ([2], 1, [2, 1]), ([2], 1, [2])], True),
    "1-of-1-unused": ([([1], 1, [3, 1, 4]), ([2], 1, [3, 2, 1, 4]), ([2], 1, [3, 2, 4])], True),
    "3-of-5-combos": ([([0, 1, 2, 3, 4], 3, s) for s in ([0, 2, 4], [0, 4, 1], [0, 1, 3])], True),
    "3-of-5-one": ([([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 4, 1])], True),
    "3-of-5-all": (
        [
            ([0, 1, 2, 3, 4], 3, [0, 2, 4]),
            ([5, 6, 7, 8, 9], 3, [0, 2, 4, 5, 6, 7]),
            ([5, 6, 7, 8, 9], 3, [5, 6, 7]),
        ],
        True,
    ),
    "1-of-3-to-2-of-3": ([([1, 2, 3], 1, [1]), ([1, 2, 3], 2, [1, 2])], True),
    "2-of-3-to-1-of-3": (
        [([1, 2, 3], 2, [1, 2]), ([1, 2, 3], 1, [1, 2]), ([1, 2, 3], 1, [1])],
        True,
    ),
    "1-of-2-to-2-of-2": ([([1], 1, [1]), ([1, 2], 2, [1, 2])], True),
    "not-signed-with-old": ([([1], 1, [1]), ([2], 1, [2, 3, 4])], False),
    "not-signed-with-new": ([([1], 1, [1]), ([2], 1, [1, 3, 4])], False),
    "not-with-3-new": ([([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 2, 4])], False),
    "not-with-3-old": ([([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 4, 5])], False),
    "new-threshold-not-reached": ([([1, 2, 3], 1, [1]), ([1, 2, 3], 2, [2])], False),
    "old-threshold-not-reached": ([([1, 2, 3], 2, [1, 2]), ([1, 2, 3], 1, [1])], False),
}
ROLE_ROTATIONS = {
    "1-of-1": ([2], 1, [2], True),
    "1-of-1-unused": ([1], 1, [3, 1, 4], True),
    "not-signed-with-new": ([2], 1, [1, 3, 4], False),
    "3-of-5-wrong": ([0, 1, 3, 4, 5], 3, [0, 2, 4], False),
    "3-of-5-missing": ([0, 1, 3, 4, 5], 3, [0, 4], False),
    "3-of-5-first": ([0, 1, 2, 3, 4], 3, [0, 2, 4], True),
    "3-of-5-second": ([0, 1, 2, 3, 4], 3, [0, 4, 1], True),
    "3-of-5-third": ([0, 1, 2, 3, 4], 3, [0, 1, 3], True),
    "3-of-5-fourth": ([0, 1, 2, 3, 4], 3, [1, 2, 3], True),
    "3-of-5-fifth": ([0, 1, 2, 3, 4], 3, [2, 3, 4], True),
}


@pytest.mark.parametrize(("roots", "good"), ROOT_ROTATIONS.values(), ids=list(ROOT_ROTATIONS))
def test_root_rotation(repo, roots, good):
    ring = [CryptoSigner.generate_ed25519() for _ in range(10)]
    for version, (keys, threshold, signatures) in enumerate(roots, 1):
        _set_keys(repo, "root", ring, keys, threshold, signatures)
        repo.root.version = version
        repo.write("root")
    device = Device(repo.root_file)
    if good:
        device.look(repo.bundle())
    else:
        refused(device, repo, Kind.SIGNATURE)
    assert device.version("root") == (len(roots) if good else len(roots) - 1)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
@pytest.mark.parametrize(
    ("keys", "threshold", "signatures", "good"), ROLE_ROTATIONS.values(), ids=list(ROLE_ROTATIONS)
)
def test_non_root_rotations(repo, device, role, keys, threshold, signatures, good):
    ring = [CryptoSigner.generate_ed25519() for _ in range(10)]
    _set_keys(repo, role, ring, keys, threshold, signatures)
    repo.publish("root", "targets")
    if good:
        device.look(repo.bundle())
        assert device.version(role) == 2
    else:
        refused(device, repo, Kind.SIGNATURE)
        assert device.version(role) is None


def _set_keys(repo, role, ring, keys, threshold, signatures):
    rule = repo.root.roles[role]
    for keyid in list(rule.keyids):
        repo.root.revoke_key(keyid, role)
    for number in keys:
        repo.root.add_key(ring[number].public_key, role)
    rule.threshold = threshold
    repo.signers[role] = [ring[number] for number in signatures]


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
