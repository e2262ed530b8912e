"""The threats T1 to T12 of docs/spec/trust.md, by name: each is tried, and each is refused."""

import json
from dataclasses import replace

import pytest
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Metadata

from agent.core.trust import (
    BUNDLE_BYTES_MAX,
    ROOTS_MAX,
    Kind,
    TrustState,
    UntrustedError,
    permits,
    trusted_now,
)
from tests.world.tuf_device import Device
from tests.world.tuf_repository import DAY, NOW, TOP, TufRepository, at, package, sign, target_of

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


# ---- T1: unsigned or wrongly signed --------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("how", ["none", "wrong key", "one below the threshold"])
def test_t1_a_role_without_enough_good_signatures_is_refused(repo, device, role, how):
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
    repo.publish(role)
    name = repo.name_of(role)
    document = json.loads(repo.files[name])
    document["signatures"].append(document["signatures"][0])
    device.refuses({**repo.bundle(), name: json.dumps(document).encode()}, Kind.MALFORMED)


@pytest.mark.parametrize("role", ROLES)
def test_t1_one_key_under_two_names_does_not_count_twice(repo, device, role):
    holder = repo.root if role in TOP else repo.targets
    only = repo.signers[role][0]
    twin = SSlibKey("twin", "ed25519", "ed25519", dict(only.public_key.keyval))
    holder.add_key(twin, role)
    rule = holder.get_delegated_role(role)
    rule.keyids = [only.public_key.keyid, "twin"]
    rule.threshold = 2
    repo.publish("root" if role in TOP else "targets")
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
    for _ in range(steps):
        repo.rotate_root()
    repo.offer(package("pump", 2))
    assert device.install(repo.bundle()).package.ref.release == 2
    assert device.version("root") == 1 + steps


def test_t3_a_device_further_behind_gets_there_in_two_tries(repo, device):
    for _ in range(ROOTS_MAX + 3):
        repo.rotate_root()
    device.refuses(repo.bundle(), Kind.BOUNDS)
    assert device.version("root") == 1 + ROOTS_MAX
    device.install(repo.bundle())
    assert device.version("root") == 4 + ROOTS_MAX


def test_t3_a_skipped_root_is_refused(repo, device):
    repo.rotate_root()
    repo.rotate_root()
    bundle = repo.bundle()
    del bundle["2.root.json"]
    error = device.refuses(bundle, Kind.ROOT_CHAIN)
    assert "root 2 first" in str(error)


@pytest.mark.parametrize("missing", ["old", "new"])
def test_t3_a_new_root_needs_both_thresholds(repo, device, missing):
    old = list(repo.signers["root"])
    repo.rotate("root")
    new = [signer for signer in repo.signers["root"] if signer not in old]
    repo.signers["root"] = new + old[:1] if missing == "old" else old + new[:1]
    repo.publish("root")
    device.refuses(repo.bundle(), Kind.SIGNATURE)


def test_t3_a_revoked_key_stays_revoked_even_if_nothing_else_came_of_the_bundle(repo, device):
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


# ---- T4: replay of an old repository -------------------------------------------------------------


def test_t4_every_earlier_bundle_is_refused_after_a_restart(repo, device):
    seen = [repo.bundle()]
    for release in (2, 3, 4):
        repo.offer(package("pump", release))
        device.install(repo.bundle())
        for old in seen:
            device.refuses(old, Kind.VERSION)
        seen.append(repo.bundle())
    assert device.state.releases == {"pump": 4}


def test_t4_a_lower_release_is_refused_although_freshly_signed(repo, device):
    repo.offer(package("pump", 3))
    device.install(repo.bundle())
    repo.publish("pump")
    device.refuses(repo.bundle(), Kind.ROLLBACK, release=1)


def test_t4_the_floor_outlives_new_keys_for_everything(repo, device):
    repo.offer(package("pump", 3))
    device.install(repo.bundle())
    for role in ("root", "targets", "snapshot", "timestamp", "pump"):
        repo.rotate(role)
    del repo.families["pump"].targets["pump/3"]
    repo.publish("root", "targets", "pump")
    device.refuses(repo.bundle(), Kind.ROLLBACK)


def test_t4_the_same_release_again_is_a_repair_if_its_bytes_are_the_same(repo, device):
    assert device.install(repo.bundle()).package == package("pump", 1)
    repo.offer(package("pump", 1, b"other bytes"))
    device.refuses(repo.bundle(), Kind.DIGEST)


def test_t4_old_bytes_come_back_under_a_new_release(repo, device):
    repo.offer(package("pump", 2))
    device.install(repo.bundle())
    old = package("pump", 1)
    repo.offer(replace(old, ref=replace(old.ref, release=3), version="3"))
    assert device.install(repo.bundle()).package.ref.digest == old.ref.digest


def test_t4_below_the_security_floor_nothing_goes_by_any_way(repo, device):
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
    repo.least("pump", 2**53 - 1)
    device.refuses(repo.bundle(), Kind.MALFORMED)
    assert permits(device.state, "pump", 1)


def test_t4_damaged_trust_is_said_and_not_started_over(device):
    for cut in (0, 10, len(device.stored) // 2, len(device.stored) - 1):
        with pytest.raises(UntrustedError) as caught:
            TrustState.from_bytes(device.stored[:cut])
        assert caught.value.kind is Kind.CORRUPT


# ---- T5: freeze ----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_t5_a_frozen_repository_is_refused_once_it_has_expired(repo, device, role):
    repo.signed(role).expires = at(10)
    repo.publish(role)
    assert device.install(repo.bundle(), now=NOW + 9 * DAY)
    frozen = repo.bundle()
    device.refuses(frozen, Kind.EXPIRED, now=NOW + 10 * DAY)
    assert permits(device.state, "pump", 1)  # what runs goes on


def test_t5_the_verdict_says_when_the_first_signature_runs_out(repo, device):
    assert device.install(repo.bundle()).expires == NOW + 30 * DAY


# ---- T6: mix and match ---------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["snapshot", "targets", "pump"])
def test_t6_a_role_from_another_generation_is_refused(repo, device, role):
    old = repo.files[repo.name_of(role)]
    repo.publish("targets", "pump")
    device.refuses({**repo.bundle(), repo.name_of(role): old}, Kind.VERSION)


@pytest.mark.parametrize("role", ["snapshot", "targets", "pump"])
def test_t6_another_file_under_the_same_version_is_refused_where_hashes_are_signed(role):
    repo = TufRepository("pump", hashes=True)
    repo.offer(package("pump", 1))
    device = Device(repo.root_file)
    honest = repo.bundle()
    repo.signed(role).unrecognized_fields["other"] = True
    other = sign(repo.signed(role), repo.signers[role])
    device.refuses({**honest, repo.name_of(role): other}, Kind.MISMATCH)


def test_t6_a_release_described_under_another_number_is_refused(repo, device):
    repo.families["pump"].targets["pump/2"] = target_of("pump/2", package("pump", 1))
    repo.publish("pump")
    device.refuses(repo.bundle(), Kind.MISMATCH)


def test_t6_a_description_that_is_not_what_was_hashed_is_refused(repo, device):
    repo.families["pump"].targets["pump/2"] = entry = target_of("pump/2", package("pump", 2))
    entry.unrecognized_fields["custom"]["description"] += " "
    repo.publish("pump")
    device.refuses(repo.bundle(), Kind.MISMATCH)


# ---- T7: fast-forward ----------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "pump"])
def test_t7_new_keys_recover_from_versions_driven_to_the_end(repo, device, role):
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


# ---- T8: endless data ----------------------------------------------------------------------------


def test_t8_metadata_beyond_the_bounds_is_refused(repo, device):
    repo.publish("pump")
    big = b" " * BUNDLE_BYTES_MAX
    for role in ("timestamp", "snapshot", "pump"):
        name = repo.name_of(role)
        device.refuses({**repo.bundle(), name: repo.files[name] + big}, Kind.BOUNDS)
    device.refuses({**repo.bundle(), "2.root.json": big + b" "}, Kind.BOUNDS)


@pytest.mark.parametrize(
    "bomb",
    [
        b"[" * 100_000,
        b'{"signed":' * 5_000,
        b'{"signed":{"version":' + b"9" * 100_000 + b"}}",
        b'{"signed":NaN}',
        b'{"signed":1,"signed":2}',
        b"\xff\xfe{}",
        b'{"signed":"\\ud800"}',
        b"",
        b"null",
        b"{}",
        b'{"signed":{},"signatures":[]}',
    ],
    ids=repr,
)
@pytest.mark.parametrize("file", ["2.root.json", "timestamp.json"])
def test_t8_json_bombs_are_refused(repo, device, bomb, file):
    device.refuses({**repo.bundle(), file: bomb}, Kind.MALFORMED, Kind.BOUNDS)


def test_t8_files_nobody_asked_for_cost_nothing(repo, device):
    ballast = {f"{n}.junk.json": b"[" * 100_000 for n in range(50)}
    assert device.install({**repo.bundle(), **ballast})


# ---- T9: one family signs for another ------------------------------------------------------------


def test_t9_what_another_family_lists_for_this_one_is_not_found(repo, device):
    repo.offer(package("pump", 2), family="fan")
    device.refuses(repo.bundle(), Kind.UNKNOWN, release=2)
    device.refuses(repo.bundle(), Kind.UNKNOWN, release=2, model="fan")


def test_t9_another_familys_keys_do_not_sign_for_this_one(repo, device):
    repo.signers["pump"] = repo.signers["fan"]
    repo.offer(package("pump", 2))
    device.refuses(repo.bundle(), Kind.SIGNATURE)


@pytest.mark.parametrize("pattern", ["*/*", "pump/*", "pump/2", "p*/2"])
def test_t9_two_families_with_a_say_in_one_release_are_refused(repo, device, pattern):
    del repo.targets.delegations.roles["pump"]
    repo.targets.delegations.roles["fan"].paths = [pattern]
    repo.add_family("pump")
    repo.offer(package("pump", 2))
    repo.publish("targets")
    device.refuses(repo.bundle(), Kind.DELEGATION, release=2)


def test_t9_targets_may_not_list_releases_itself(repo, device):
    repo.targets.targets["pump/2"] = target_of("pump/2", package("pump", 2))
    repo.publish("targets")
    device.refuses(repo.bundle(), Kind.DELEGATION, release=2)


# ---- T10: odd names ------------------------------------------------------------------------------

ODD = ["", ".", "..", "../pump", "%2e%2e/pump", "pump/../fan", "pump\0", "a" * 65, "a" * 300]
ODD += ["pümp", "pump\n", "?", "#", "/pump", "\\pump", "*", "root", "timestamp", "snapshot", "targets"]


@pytest.mark.parametrize("name", ODD, ids=repr)
def test_t10_an_odd_model_name_is_refused_although_the_repository_has_it(repo, device, name):
    if name and name not in TOP:
        repo.add_family(name)
        repo.publish("targets", name)
    device.refuses({**repo.bundle(), f"1.{name}.json": b"{}"}, Kind.UNKNOWN, model=name)


def test_t10_odd_names_beside_it_do_not_disturb_a_good_one(repo, device):
    for name in ("../fan", "?", "#", "a/b"):
        repo.add_family(name)
        repo.publish("targets", name)
    assert device.install(repo.bundle()).package.ref.name == "pump"


@pytest.mark.parametrize("release", ["01", "+1", "1.0", "-1", "１", "1/../2", "99999999999999999"])
def test_t10_a_release_has_one_spelling(repo, device, release):
    repo.families["pump"].targets.clear()
    path = f"pump/{release}"
    repo.families["pump"].targets[path] = target_of(path, package("pump", 1))
    repo.publish("pump")
    device.refuses(repo.bundle(), Kind.UNKNOWN)


@pytest.mark.parametrize("path", ["../../etc/passwd", "a/b", "", "a" * 300, "x\0"])
def test_t10_a_file_that_would_leave_its_folder_is_refused(repo, device, path):
    bad = package("pump", 2)
    bad = replace(bad, files=(replace(bad.files[0], path=path),))
    repo.offer(bad)
    device.refuses(repo.bundle(), Kind.MALFORMED)


# ---- T11: downgrade by command -------------------------------------------------------------------


@pytest.fixture
def ahead(repo: TufRepository, device: Device) -> Device:
    repo.offer(package("pump", 2))
    device.install(repo.bundle())
    return device


def _leave(**changes):
    return {"devices": ["pump-7"], "allow_release": 1, "not_after": int(NOW + DAY), **changes}


def test_t11_an_unsigned_override_is_refused(repo, ahead):
    good = repo.signers["pump"]
    repo.signers["pump"] = [CryptoSigner.generate_ed25519() for _ in good]
    repo.allow("pump", 1, **_leave())
    ahead.refuses(repo.bundle(), Kind.SIGNATURE, release=1)


def test_t11_a_signed_override_works_once(repo, ahead):
    repo.allow("pump", 1, **_leave())
    assert ahead.install(repo.bundle(), release=1).package.ref.release == 1
    assert ahead.state.releases == {"pump": 1}
    assert ahead.install(repo.bundle(), release=2).package.ref.release == 2
    ahead.refuses(repo.bundle(), Kind.ROLLBACK, release=1)
    repo.publish("pump")
    ahead.refuses(repo.bundle(), Kind.ROLLBACK, release=1)
    repo.allow("pump", 2, **_leave())
    assert ahead.install(repo.bundle(), release=1).package.ref.release == 1


def test_t11_a_group_may_be_named(repo, ahead):
    repo.allow("pump", 1, **_leave(devices=[], group="line-3"))
    ahead.refuses(repo.bundle(), Kind.ROLLBACK, release=1)
    ahead.groups = ("line-3",)
    assert ahead.install(repo.bundle(), release=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"devices": ["pump-8"]},
        {"devices": []},
        {"devices": "pump-7"},
        {"devices": None, "group": ""},
        {"allow_release": 0},
        {"allow_release": True},
        {"allow_release": "1"},
        {"not_after": int(NOW - 1)},
        {"not_after": None},
        {"not_after": "2100-01-01"},
    ],
    ids=repr,
)
def test_t11_an_override_that_does_not_say_just_this_is_none(repo, ahead, changes):
    repo.allow("pump", 1, **_leave(**changes))
    ahead.refuses(repo.bundle(), Kind.ROLLBACK, release=1)


def test_t11_a_device_without_a_name_is_named_by_nobody(repo, ahead):
    ahead.name = ""
    repo.allow("pump", 1, **_leave(devices=[""]))
    ahead.refuses(repo.bundle(), Kind.ROLLBACK, release=1)


def test_t11_an_override_of_another_family_is_none(repo, ahead):
    repo.families["fan"].targets["pump/override/1"] = _override_entry()
    repo.families["fan"].targets["fan/override/1"] = _override_entry()
    repo.publish("fan")
    ahead.refuses(repo.bundle(), Kind.ROLLBACK, release=1)


def _override_entry():
    entry = target_of("pump/override/1", package("pump", 1))
    entry.unrecognized_fields["custom"] = {"override": _leave()}
    return entry


# ---- T12: the clock set back or forward ----------------------------------------------------------


@pytest.mark.parametrize("clock", [0.0, -1e9, NOW - 10 * YEAR, NOW - 1, float("nan"), float("-inf")])
def test_t12_a_clock_behind_the_floor_is_not_believed(device, clock):
    now, why = trusted_now(device.state, clock, built_at=NOW - 30 * DAY)
    assert now == NOW
    assert why.startswith("clock_untrusted")


@pytest.mark.parametrize("clock", [NOW + 10 * YEAR, NOW + 2 * YEAR + 1, 1e300, float("inf")])
def test_t12_a_clock_absurdly_ahead_is_not_believed(device, clock):
    now, why = trusted_now(device.state, clock, built_at=0.0)
    assert now == NOW
    assert why.startswith("clock_untrusted")


@pytest.mark.parametrize("clock", [NOW, NOW + DAY, NOW + 2 * YEAR])
def test_t12_a_clock_within_two_years_of_the_floor_is_believed(device, clock):
    assert trusted_now(device.state, clock, built_at=0.0) == (clock, "")


def test_t12_before_anything_was_signed_the_build_time_is_the_floor(repo):
    fresh = Device(repo.root_file).state
    assert trusted_now(fresh, 0.0, built_at=NOW)[0] == NOW
    assert trusted_now(fresh, NOW + DAY, built_at=NOW) == (NOW + DAY, "")
    assert trusted_now(fresh, NOW, built_at=0.0) == (NOW, "")
    assert trusted_now(fresh, float("nan"), built_at=0.0)[0] == 0.0


def test_t12_a_dead_clock_does_not_bring_expired_metadata_back(repo, device):
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
    repo.publish("timestamp")
    raw = repo.files["timestamp.json"] + b" "
    device.install({**repo.bundle(), "timestamp.json": raw})
    assert device.state.roles["timestamp"] == raw
    assert Metadata.from_bytes(device.state.roles["pump"]).signed.version == 2
