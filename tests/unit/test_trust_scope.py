"""Threats T8 to T11 (docs/spec/trust.md): too much of it, and who may say what about whom."""

from dataclasses import replace

import pytest
from securesystemslib.signer import CryptoSigner

from agent.core.trust import (
    BUNDLE_BYTES_MAX,
    Kind,
)
from tests.world.tuf_device import Device
from tests.world.tuf_repository import DAY, NOW, TOP, TufRepository, package, target_of

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


# ---- T8: endless data ----------------------------------------------------------------------------


def test_t8_metadata_beyond_the_bounds_is_refused(repo, device):
    """[trust-4.1]"""
    repo.publish("pump")
    big = b" " * BUNDLE_BYTES_MAX
    for role in ("timestamp", "snapshot", "pump"):
        name = repo.name_of(role)
        device.refuses({**repo.bundle(), name: repo.files[name] + big}, Kind.BOUNDS)
    device.refuses({**repo.bundle(), "2.root.json": big + b" "}, Kind.BOUNDS)


def test_t8_bounds_hold_for_the_timestamp_alone_and_for_all_files_together(repo, device):
    """[trust-4.1]"""
    repo.publish("targets", "pump")
    padded = repo.files["timestamp.json"] + b" " * 16 * 1024
    device.refuses({**repo.bundle(), "timestamp.json": padded}, Kind.BOUNDS)
    half = b" " * (BUNDLE_BYTES_MAX // 2)
    large = {repo.name_of(role): repo.files[repo.name_of(role)] + half for role in ROLES[1:4]}
    device.refuses({**repo.bundle(), **large}, Kind.BOUNDS)


def test_t8_more_keys_than_anyone_needs_are_refused(repo, device):
    """[trust-4.1]"""
    for _ in range(61):
        repo.add_key("timestamp")
    repo.publish("root")
    device.refuses(repo.bundle(), Kind.BOUNDS)


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
    """[trust-4.2]"""
    device.refuses({**repo.bundle(), file: bomb}, Kind.MALFORMED, Kind.BOUNDS)


def test_t8_files_nobody_asked_for_cost_nothing(repo, device):
    """[trust-4.1]"""
    ballast = {f"{n}.junk.json": b"[" * 100_000 for n in range(50)}
    assert device.install({**repo.bundle(), **ballast})


# ---- T9: one family signs for another ------------------------------------------------------------


def test_t9_what_another_family_lists_for_this_one_is_not_found(repo, device):
    """[trust-4.3]"""
    repo.offer(package("pump", 2), family="fan")
    device.refuses(repo.bundle(), Kind.UNKNOWN, release=2)
    device.refuses(repo.bundle(), Kind.UNKNOWN, release=2, model="fan")


def test_t9_another_familys_keys_do_not_sign_for_this_one(repo, device):
    """[trust-4.3]"""
    repo.signers["pump"] = repo.signers["fan"]
    repo.offer(package("pump", 2))
    device.refuses(repo.bundle(), Kind.SIGNATURE)


@pytest.mark.parametrize("pattern", ["*/*", "pump/*", "pump/2", "p*/2"])
def test_t9_two_families_with_a_say_in_one_release_are_refused(repo, device, pattern):
    """[trust-4.4]"""
    del repo.targets.delegations.roles["pump"]
    repo.targets.delegations.roles["fan"].paths = [pattern]
    repo.add_family("pump")
    repo.offer(package("pump", 2))
    repo.publish("targets")
    device.refuses(repo.bundle(), Kind.DELEGATION, release=2)


def test_t9_targets_may_not_list_releases_itself(repo, device):
    """[trust-4.4]"""
    repo.targets.targets["pump/2"] = target_of("pump/2", package("pump", 2))
    repo.publish("targets")
    device.refuses(repo.bundle(), Kind.DELEGATION, release=2)


# ---- T10: odd names ------------------------------------------------------------------------------

ODD = ["", ".", "..", "../pump", "%2e%2e/pump", "pump/../fan", "pump\0", "a" * 65, "a" * 300]
ODD += [
    "pümp",
    "pump\n",
    "?",
    "#",
    "/pump",
    "\\pump",
    "*",
    "root",
    "timestamp",
    "snapshot",
    "targets",
]


@pytest.mark.parametrize("name", ODD, ids=repr)
def test_t10_an_odd_model_name_is_refused_although_the_repository_has_it(repo, device, name):
    """[trust-4.5]"""
    if name and name not in TOP:
        repo.add_family(name)
        repo.publish("targets", name)
    device.refuses({**repo.bundle(), f"1.{name}.json": b"{}"}, Kind.UNKNOWN, model=name)


def test_t10_odd_names_beside_it_do_not_disturb_a_good_one(repo, device):
    for name in ("../fan", "?", "#", "a/b"):
        repo.add_family(name)
        repo.publish("targets", name)
    assert device.install(repo.bundle()).package.ref.name == "pump"


@pytest.mark.parametrize(
    "release", ["01", "+1", "1.0", "-1", "１", "1１", "1/../2", "99999999999999999"]
)
def test_t10_a_release_has_one_spelling(repo, device, release):
    """[trust-4.5]"""
    repo.families["pump"].targets.clear()
    path = f"pump/{release}"
    repo.families["pump"].targets[path] = target_of(path, package("pump", 1))
    repo.publish("pump")
    device.refuses(repo.bundle(), Kind.UNKNOWN)


@pytest.mark.parametrize("path", ["../../etc/passwd", "a/b", "", "a" * 300, "x\0"])
def test_t10_a_file_that_would_leave_its_folder_is_refused(repo, device, path):
    """[trust-4.5]"""
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
    """[trust-5.2]"""
    good = repo.signers["pump"]
    repo.signers["pump"] = [CryptoSigner.generate_ed25519() for _ in good]
    repo.allow("pump", 1, **_leave())
    ahead.refuses(repo.bundle(), Kind.SIGNATURE, release=1)


def test_t11_a_signed_override_works_once(repo, ahead):
    """[trust-5.1]"""
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
    """[trust-5.1]"""
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
    """[trust-5.2]"""
    repo.allow("pump", 1, **_leave(**changes))
    ahead.refuses(repo.bundle(), Kind.ROLLBACK, release=1)


def test_t11_a_device_without_a_name_is_named_by_nobody(repo, ahead):
    ahead.name = ""
    repo.allow("pump", 1, **_leave(devices=[""]))
    ahead.refuses(repo.bundle(), Kind.ROLLBACK, release=1)


def test_t11_an_override_of_another_family_is_none(repo, ahead):
    """[trust-5.2]"""
    repo.families["fan"].targets["pump/override/1"] = _override_entry()
    repo.families["fan"].targets["fan/override/1"] = _override_entry()
    repo.publish("fan")
    ahead.refuses(repo.bundle(), Kind.ROLLBACK, release=1)


def test_t11_an_override_that_nobody_delegated_is_none(repo, ahead):
    repo.targets.delegations.roles["pump"].paths = ["pump/*"]
    repo.publish("targets")
    repo.allow("pump", 1, **_leave())
    ahead.refuses(repo.bundle(), Kind.ROLLBACK, release=1)


def _override_entry():
    entry = target_of("pump/override/1", package("pump", 1))
    entry.unrecognized_fields["custom"] = {"override": _leave()}
    return entry
