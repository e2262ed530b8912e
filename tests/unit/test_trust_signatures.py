"""Threats T1 to T3 (docs/spec/trust.md): forged, stolen and lost keys.  Each is tried."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.signer import CryptoSigner, SSlibKey

from agent.core.trust import (
    ROOTS_MAX,
    Kind,
    UntrustedError,
)
from tests.world.tuf_device import Device
from tests.world.tuf_repository import TOP, TufRepository, package, sign, target_of

CompressedPoint = PublicFormat.CompressedPoint
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


# ---- T1: unsigned or wrongly signed --------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("how", ["none", "wrong key", "one below the threshold"])
def test_t1_a_role_without_enough_good_signatures_is_refused(repo, device, role, how):
    """[trust-1.1]"""
    good = repo.signers[role]
    threshold = 1 if role in ("snapshot", "timestamp") else 2
    repo.signers[role] = {
        "none": [],
        "wrong key": [CryptoSigner.generate_ed25519() for _ in good],
        "one below the threshold": good[: threshold - 1],
    }[how]
    if role == "pump":
        repo.offer(package("pump", 2))
    else:
        repo.publish(role)
    device.refuses(repo.bundle(), Kind.SIGNATURE)


@pytest.mark.parametrize("role", ROLES)
def test_t1_a_signature_given_twice_is_refused(repo, device, role):
    """[trust-1.2]"""
    repo.publish(role)
    name = repo.name_of(role)
    document = json.loads(repo.files[name])
    document["signatures"].append(document["signatures"][0])
    device.refuses({**repo.bundle(), name: json.dumps(document).encode()}, Kind.MALFORMED)


@pytest.mark.parametrize("role", ROLES)
def test_t1_one_key_under_two_names_does_not_count_twice(repo, device, role):
    """[trust-1.2]"""
    holder = repo.root if role in TOP else repo.targets
    only = repo.signers[role][0]
    twin = SSlibKey("twin", "ed25519", "ed25519", dict(only.public_key.keyval))
    holder.add_key(twin, role)
    rule = holder.get_delegated_role(role)
    rule.keyids = [only.public_key.keyid, "twin"]
    rule.threshold = 2
    repo.publish("root" if role in TOP else "targets")
    device.refuses(repo.bundle(), Kind.KEY)


def _respelled(signer):
    """The same key, written another way."""
    public = signer.public_key
    if public.keytype == "ed25519":
        return public.keyval["public"].upper()
    point = signer._private_key.public_key().public_bytes(Encoding.X962, CompressedPoint)
    der = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + point
    body = base64.b64encode(der).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"


@pytest.mark.parametrize("make", [CryptoSigner.generate_ed25519, CryptoSigner.generate_ecdsa])
def test_t1_one_key_in_two_spellings_does_not_count_twice(repo, device, make):
    """[trust-1.2]"""
    repo.signers["pump"] = []
    repo.targets.delegations.roles["pump"].keyids = []
    only = repo.add_key("pump", make())
    public = only.public_key
    twin = SSlibKey("twin", public.keytype, public.scheme, {"public": _respelled(only)})
    repo.targets.add_key(twin, "pump")
    repo.publish("targets")
    device.refuses(repo.bundle(), Kind.KEY)


@pytest.mark.parametrize("public", ["", "ab", "ab" * 33, "no hex", "ab" * 31 + "\u0661a"])
def test_t1_a_key_that_is_none_is_refused(repo, device, public):
    """[trust-1.3]"""
    repo.targets.add_key(SSlibKey("odd", "ed25519", "ed25519", {"public": public}), "pump")
    repo.publish("targets")
    device.refuses(repo.bundle(), Kind.KEY)


def test_t1_an_edited_description_is_refused(repo, device):
    repo.offer(package("pump", 2))
    name = repo.name_of("pump")
    raw = repo.files[name].replace(b'\\"version\\":\\"2\\"', b'\\"version\\":\\"3\\"')
    assert raw != repo.files[name]
    device.refuses({**repo.bundle(), name: raw}, Kind.SIGNATURE)


# ---- T2: one signing key stolen ------------------------------------------------------------------


EVERY_KEY = [("root", 0), ("root", 1), ("root", 2), ("targets", 0), ("targets", 1)]
EVERY_KEY += [("pump", 0), ("pump", 1), ("fan", 0), ("fan", 1), ("snapshot", 0), ("timestamp", 0)]


@pytest.mark.parametrize(("role", "number"), EVERY_KEY)
def test_t2_whoever_holds_one_key_installs_nothing(repo, device, role, number):
    """[trust-1.4]"""
    thief = repo.signers[role][number]
    evil = package("pump", 9, b"evil")
    repo.families["pump"].targets["pump/9"] = target_of("pump/9", evil)
    honest = repo.bundle()
    repo.signers = {each: [thief] for each in repo.signers}
    repo.publish("root", "targets", "pump")
    forged = repo.bundle()
    device.refuses(forged, Kind.SIGNATURE)
    forged_without_root = {k: v for k, v in forged.items() if k != "2.root.json"}
    device.refuses(forged_without_root, Kind.SIGNATURE)
    for name in forged:  # each forged file alone among honest ones, where the names allow it
        mixed = {**honest, name: forged[name]}
        try:
            assert device.install(mixed).package.ref.release == 1
        except UntrustedError:
            continue


# ---- T3: root keys lost or stolen ----------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 5, ROOTS_MAX])
def test_t3_root_rotations_are_followed_offline_in_one_bundle(repo, device, steps):
    """[trust-1.6]"""
    for _ in range(steps):
        repo.rotate_root()
    repo.offer(package("pump", 2))
    assert device.install(repo.bundle()).package.ref.release == 2
    assert device.version("root") == 1 + steps


def test_t3_a_device_further_behind_gets_there_in_two_tries(repo, device):
    """[trust-1.6]"""
    for _ in range(ROOTS_MAX + 3):
        repo.rotate_root()
    device.refuses(repo.bundle(), Kind.BOUNDS)
    assert device.version("root") == 1 + ROOTS_MAX
    device.install(repo.bundle())
    assert device.version("root") == 4 + ROOTS_MAX


def test_t3_a_skipped_root_is_refused(repo, device):
    """[trust-1.5]"""
    repo.rotate_root()
    repo.rotate_root()
    bundle = repo.bundle()
    del bundle["2.root.json"]
    error = device.refuses(bundle, Kind.ROOT_CHAIN)
    assert "root 2 first" in str(error)


@pytest.mark.parametrize("missing", ["old", "new"])
def test_t3_a_new_root_needs_both_thresholds(repo, device, missing):
    """[trust-1.5]"""
    old = list(repo.signers["root"])
    repo.rotate("root")
    new = [signer for signer in repo.signers["root"] if signer not in old]
    repo.signers["root"] = new + old[:1] if missing == "old" else old + new[:1]
    repo.publish("root")
    device.refuses(repo.bundle(), Kind.SIGNATURE)


def test_t3_a_revoked_key_stays_revoked_even_if_nothing_else_came_of_the_bundle(repo, device):
    """[trust-1.7]"""
    stale = repo.bundle()
    thief = repo.signers["timestamp"][0]
    repo.rotate("timestamp")
    repo.publish("root", "timestamp")
    broken = {**repo.bundle(), "timestamp.json": b"{}"}
    device.refuses(broken, Kind.MALFORMED)
    assert device.version("root") == 2
    repo.timestamp.version += 1
    forged = {**stale, "timestamp.json": sign(repo.timestamp, [thief])}
    device.refuses(forged, Kind.SIGNATURE)
