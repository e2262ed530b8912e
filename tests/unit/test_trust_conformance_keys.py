"""The cases of tuf-conformance (eec841c), against our verifier: keys and their rotation.

docs/spec/trust.md lists all 53, with the test here or elsewhere that holds each, or the reason why
it cannot apply.  Names are theirs.
"""

import json

import pytest
from securesystemslib.signer import CryptoSigner, Key
from tuf.api.metadata import Metadata

from agent.core.trust import Kind, UntrustedError
from tests.world.tuf_device import Device
from tests.world.tuf_repository import NOW, TufRepository


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
    """[trust-1.3]"""
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


# ---- test_updater_key_rotations ------------------------------------------------------------------

# (keys, threshold, signatures) of each root in turn, and whether the last one is taken
ROOT_ROTATIONS = {
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
    for version, rule in enumerate(roots, 1):
        _set_keys(repo, "root", ring, rule)
        repo.root.version = version
        repo.write("root")
    device = Device(repo.root_file)
    if good:
        device.look(repo.bundle())
    else:
        refused(device, repo, Kind.SIGNATURE)
    assert device.version("root") == (len(roots) if good else len(roots) - 1)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
@pytest.mark.parametrize("case", ROLE_ROTATIONS.values(), ids=list(ROLE_ROTATIONS))
def test_non_root_rotations(repo, device, role, case):
    *rule, good = case
    ring = [CryptoSigner.generate_ed25519() for _ in range(10)]
    _set_keys(repo, role, ring, rule)
    repo.publish("root", "targets")
    if good:
        device.look(repo.bundle())
        assert device.version(role) == 2
    else:
        refused(device, repo, Kind.SIGNATURE)
        assert device.version(role) is None


def _set_keys(repo, role, ring, rule):
    keys, threshold, signatures = rule
    row = repo.root.roles[role]
    for keyid in list(row.keyids):
        repo.root.revoke_key(keyid, role)
    for number in keys:
        repo.root.add_key(ring[number].public_key, role)
    row.threshold = threshold
    repo.signers[role] = [ring[number] for number in signatures]
