"""What we rely on in python-tuf that it does not promise; without native code; and our state."""

import importlib.metadata
import inspect
import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import ExpiredMetadataError
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from agent.core.trust import Kind, TrustState, UntrustedError, anchored, begin, expires, resolve
from tests.world.tuf_device import Device
from tests.world.tuf_repository import DAY, NOW, TufRepository, package

REPO = TufRepository("pump", "fan")
REPO.offer(package("pump", 1))
BUNDLE = REPO.bundle()


def test_the_private_trusted_set_still_has_the_shape_we_use():
    """[trust-8.1]"""
    assert int(importlib.metadata.version("tuf").split(".")[0]) in (6, 7)
    parameters = list(inspect.signature(TrustedMetadataSet.__init__).parameters)
    assert parameters == ["self", "root_data", "envelope_type"]
    parameters = list(inspect.signature(TrustedMetadataSet.update_snapshot).parameters)
    assert parameters == ["self", "data", "trusted"]
    parameters = list(inspect.signature(TrustedMetadataSet.update_delegated_targets).parameters)
    assert parameters == ["self", "data", "role_name", "delegator_name"]


def test_the_private_reference_time_still_decides_expiry():
    """[trust-8.1]"""
    trusted = TrustedMetadataSet(REPO.root_file, EnvelopeType.METADATA)
    trusted.reference_time = datetime.fromtimestamp(NOW + 29 * DAY, UTC)
    trusted.update_timestamp(BUNDLE["timestamp.json"])
    late = TrustedMetadataSet(REPO.root_file, EnvelopeType.METADATA)
    late.reference_time = datetime.fromtimestamp(NOW + 31 * DAY, UTC)
    with pytest.raises(ExpiredMetadataError):
        late.update_timestamp(BUNDLE["timestamp.json"])


WITHOUT_NATIVE_CODE = """
import json, sys
sys.modules["cryptography"] = None
from agent.core.trust import Kind, UntrustedError, begin, resolve
handed = json.load(sys.stdin)
bundle = {name: text.encode() for name, text in handed["bundle"].items()}
state = begin(handed["root"].encode())
print(resolve(state, bundle, "pump", None, now=handed["now"]).package.ref)
bundle["timestamp.json"] = bundle["timestamp.json"].replace(b'"sig":"', b'"sig":"00', 1)
try:
    resolve(state, bundle, "pump", None, now=handed["now"])
except UntrustedError as error:
    print(error.kind)
try:
    begin(handed["ecdsa"].encode())
except UntrustedError as error:
    print(error.kind)
"""


def test_a_device_without_cryptography_verifies_all_the_same():
    """[trust-1.8]"""
    mixed = TufRepository("pump")
    mixed.add_key("root", CryptoSigner.generate_ecdsa())
    handed = {
        "bundle": {name: raw.decode() for name, raw in BUNDLE.items()},
        "root": REPO.root_file.decode(),
        "ecdsa": mixed.write("root").decode(),
        "now": NOW,
    }
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NATIVE_CODE],
        input=json.dumps(handed),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.split() == ["pump:1", "signature", "key"], done.stderr


# ---- whatever the bytes, one kind of error -------------------------------------------------------

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.just([]),
    st.just({}),
    st.just(["x"]),
    st.just({"x": 1}),
)


def _places(value, path=()):
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from _places(value[key], (*path, key))
    if isinstance(value, list):
        for index in range(len(value)):
            yield from _places(value[index], (*path, index))


PLACES = [(n, p) for n, raw in BUNDLE.items() for p in _places(json.loads(raw))]


@given(place=st.sampled_from(PLACES), odd=ODD)
def test_metadata_with_any_value_replaced_is_refused_or_harmless(place, odd):
    """[trust-4.2]"""
    name, path = place
    document = json.loads(BUNDLE[name])
    if not path:
        document = odd
    else:
        holder = document
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = odd
    try:
        raw = json.dumps(document).encode()
        accepted = resolve(begin(REPO.root_file), {**BUNDLE, name: raw}, "pump", None, now=NOW)
        assert accepted.package == package("pump", 1)
        begin(raw)
    except UntrustedError:
        pass


@given(place=st.sampled_from(PLACES), odd=ODD)
def test_metadata_with_any_value_replaced_and_signed_again_raises_nothing_else(place, odd):
    """[trust-4.2] Even our own signers cannot make a device crash."""
    name, path = place
    document = json.loads(BUNDLE[name])
    if path[:1] != ("signed",) or len(path) < 2 or isinstance(odd, float):
        return
    holder = document
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = odd
    payload = encode_canonical(document["signed"]).encode()
    role = name.removesuffix(".json").split(".")[-1]
    document["signatures"] = [s.sign(payload).to_dict() for s in REPO.signers[role]]
    raw = json.dumps(document).encode()
    try:
        start = begin(raw) if role == "root" else begin(REPO.root_file)
        resolve(start, {**BUNDLE, name: raw}, "pump", None, now=NOW)
    except UntrustedError:
        pass


# ---- the stored state ----------------------------------------------------------------------------


def _state() -> TrustState:
    device = Device(REPO.root_file)
    device.install(BUNDLE)
    return device.state


def test_the_state_comes_back_as_it_was_stored():
    state = _state()
    assert TrustState.from_bytes(state.to_bytes()) == state
    assert state.releases == {"pump": 1}
    assert set(state.roles) == {"root", "timestamp", "snapshot", "targets", "pump"}


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_one_flipped_bit_in_the_stored_state_is_noticed(at, bit):
    """[trust-2.6]"""
    raw = bytearray(_state().to_bytes())
    raw[at % len(raw)] ^= 1 << bit
    with pytest.raises(UntrustedError) as caught:
        TrustState.from_bytes(bytes(raw))
    assert caught.value.kind is Kind.CORRUPT


@given(st.binary(max_size=200))
def test_bytes_that_are_no_state_are_refused(raw):
    with pytest.raises(UntrustedError):
        TrustState.from_bytes(raw)


@pytest.mark.parametrize(
    "changes",
    [
        {"releases": {"pump": -1}},
        {"releases": {"../pump": 1}},
        {"min_release": {"pump": 2**60}},
        {"digests": {"pump": "sha256:short"}},
        {"time_floor": float("inf")},
        {"roles": {}},
    ],
    ids=repr,
)
def test_a_state_that_nobody_could_have_stored_is_refused(changes):
    """[trust-2.6]"""
    odd = TrustState(**{**vars(_state()), **changes})
    with pytest.raises(UntrustedError) as caught:
        TrustState.from_bytes(odd.to_bytes())
    assert caught.value.kind is Kind.CORRUPT


def test_a_model_that_is_no_longer_delegated_leaves_its_floor_and_nothing_else():
    repo = TufRepository("pump", "fan")
    repo.offer(package("pump", 1))
    repo.offer(package("fan", 1))
    device = Device(repo.root_file)
    device.install(repo.bundle())
    del repo.targets.delegations.roles["pump"]
    repo.publish("targets")
    device.install(repo.bundle(), "fan")
    assert "pump" not in device.state.roles
    assert device.state.releases == {"pump": 1, "fan": 1}


def test_the_stored_state_says_when_it_runs_out():
    """[trust-3.2]"""
    assert expires(_state()) == NOW + 30 * DAY


def test_another_root_file_starts_trust_over_but_keeps_the_floors():
    """[trust-2.9]"""
    state = _state()
    assert anchored(state, REPO.root_file) is state
    other = TufRepository("pump")
    moved = anchored(state, other.root_file)
    assert set(moved.roles) == {"root"}
    assert (moved.releases, moved.time_floor) == (state.releases, state.time_floor)
    other.offer(package("pump", 2))
    assert resolve(moved, other.bundle(), "pump", 2, now=NOW).package.ref.release == 2
    with pytest.raises(UntrustedError):
        resolve(moved, BUNDLE, "pump", None, now=NOW)
    with pytest.raises(UntrustedError):
        anchored(state, b"{}")


def test_a_damaged_stored_role_is_said_and_does_not_lower_the_floor():
    """[trust-2.6]"""
    state = _state()
    for role in ("root", "timestamp", "snapshot", "targets", "pump"):
        hurt = TrustState(**{**vars(state), "roles": {**state.roles, role: b"{}"}})
        with pytest.raises(UntrustedError):
            resolve(hurt, BUNDLE, "pump", None, now=NOW)


def test_a_bundle_need_not_repeat_what_the_device_holds():
    """[trust-3.5]"""
    state = _state()
    only = {"timestamp.json": BUNDLE["timestamp.json"]}
    assert resolve(state, only, "pump", None, now=NOW).package.ref.release == 1
    with pytest.raises(UntrustedError) as caught:
        resolve(state, only, "pump", None, now=NOW + 200 * DAY)
    assert caught.value.kind is Kind.EXPIRED


def test_grace_takes_what_has_just_expired_and_no_more():
    """[trust-3.2]"""
    state = begin(REPO.root_file)
    late = NOW + 33 * DAY
    assert resolve(state, BUNDLE, "pump", None, now=late, grace_s=7 * DAY)
    with pytest.raises(UntrustedError):
        resolve(state, BUNDLE, "pump", None, now=late + 5 * DAY, grace_s=7 * DAY)


def test_a_repository_without_consistent_snapshots_is_read_by_its_plain_names():
    repo = TufRepository("pump")
    repo.root.consistent_snapshot = False
    repo.write("root")
    repo.offer(package("pump", 1))
    plain = {
        "timestamp.json": repo.files["timestamp.json"],
        "snapshot.json": repo.files[repo.name_of("snapshot")],
        "targets.json": repo.files[repo.name_of("targets")],
        "pump.json": repo.files[repo.name_of("pump")],
    }
    assert resolve(begin(repo.root_file), plain, "pump", 1, now=NOW).package.ref.release == 1
