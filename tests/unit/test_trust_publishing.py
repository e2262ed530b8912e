"""The publishing side: devices believe what it writes; what it lacks it says, writing nothing."""

import json
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata

from agent.core.errors import RefusedError
from agent.core.trust import ROOTS_MAX, Kind, UntrustedError
from agent.repository.signing import Signing
from tests.world.tuf_device import Device
from tests.world.tuf_repository import DAY, NOW, package

PROFILES = ("solo", "team")


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=PROFILES)
def signing(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Signing:
    return Signing.create(tmp_path, request.param, clock=clock)


@pytest.fixture
def device(signing: Signing, tmp_path: Path) -> Device:
    return Device((tmp_path / "root.json").read_bytes())


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_device_installs_what_is_published(signing, device):
    described = package("pump", 1, rtol=0.001, min_agent="1.0")
    assert signing.publish([described, package("fan", 4)]) == []
    assert device.install(signing.bundle(), "pump").package == described
    assert device.install(signing.bundle(), "fan").package.ref.release == 4
    assert device.state.time_floor == NOW


def test_publishing_lists_exactly_what_it_is_told(signing, device):
    """[trust-7.3]"""
    signing.publish([package("pump", 1), package("pump", 2), package("fan", 1)])
    device.install(signing.bundle())
    signing.publish([package("pump", 2)])
    device.refuses(signing.bundle(), Kind.UNKNOWN, release=1)
    device.refuses(signing.bundle(), Kind.UNKNOWN, model="fan")


def test_publishing_again_renews_the_timestamp_and_nothing_else(signing, tmp_path, clock):
    """[trust-7.3]"""
    signing.publish([package("pump", 1)])
    before = files(tmp_path / "metadata")
    clock.now += 5 * DAY
    signing.publish([package("pump", 1)])
    after = files(tmp_path / "metadata")
    assert {name for name in after if after[name] != before.get(name)} == {"timestamp.json"}
    assert Metadata.from_bytes(after["timestamp.json"]).signed.expires.timestamp() == (
        clock.now + 30 * DAY
    )


def test_what_runs_out_soon_is_renewed_in_time(signing, device, clock):
    """[trust-7.3]"""
    signing.publish([package("pump", 1)])
    for _ in range(60):
        clock.now += 25 * DAY
        assert signing.publish([package("pump", 1)]) == []
        device.install(signing.bundle(), now=clock.now)


def test_what_cannot_be_renewed_is_said(tmp_path, clock):
    """[trust-7.3]"""
    signing = Signing.create(tmp_path, "team", clock=clock)
    signing.publish([package("pump", 1)])
    _hide(tmp_path / "keys", "models-1")
    clock.now += 150 * DAY
    notes = Signing.open(tmp_path, clock=clock).publish([package("pump", 1)])
    assert len(notes) == 1
    assert "pump" in notes[0]


def test_a_release_needs_the_familys_and_the_online_keys_only(tmp_path, clock):
    """[trust-7.4]"""
    signing = Signing.create(tmp_path, "team", clock=clock)
    signing.publish([package("pump", 1)])
    _hide(tmp_path / "keys", "root-", "targets-")
    signing = Signing.open(tmp_path, clock=clock)
    signing.publish([package("pump", 1), package("pump", 2)])
    device = Device((tmp_path / "root.json").read_bytes())
    assert device.install(signing.bundle()).package.ref.release == 2
    before = files(tmp_path / "metadata")
    with pytest.raises(RefusedError, match="targets needs 2 of its 2 keys"):
        signing.publish([package("pump", 2), package("fan", 1)])
    assert files(tmp_path / "metadata") == before


def test_other_files_under_a_published_number_are_refused(signing):
    """[trust-7.6]"""
    signing.publish([package("pump", 1)])
    with pytest.raises(RefusedError, match="next release number"):
        signing.publish([package("pump", 1, b"other")])


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp", "pump"])
def test_keys_are_rotated_without_touching_a_device(signing, device, tmp_path, role):
    """[trust-7.5]"""
    signing.publish([package("pump", 1)])
    device.install(signing.bundle())
    stale = files(tmp_path / "metadata")
    gone = signing.rotate(role)
    assert gone
    assert all(path.suffix == ".retired" for path in gone)
    signing = Signing.open(tmp_path, clock=signing._clock)  # with what is on the disk
    signing.publish([package("pump", 1), package("pump", 2)])
    assert device.install(signing.bundle()).package.ref.release == 2
    device.refuses(stale, Kind.VERSION, Kind.SIGNATURE)
    newcomer = Device((tmp_path / "root.json").read_bytes())
    assert newcomer.install(signing.bundle()).package.ref.release == 2


def test_a_lost_root_key_is_replaced_with_the_two_that_are_left(tmp_path, clock):
    """[trust-7.5]"""
    signing = Signing.create(tmp_path, "team", clock=clock)
    signing.publish([package("pump", 1)])
    device = Device((tmp_path / "root.json").read_bytes())
    device.install(signing.bundle())
    _hide(tmp_path / "keys", "root-2")
    signing = Signing.open(tmp_path, clock=clock)
    signing.rotate("root")
    device.install(signing.bundle())
    assert device.version("root") == 2
    root = Metadata.from_bytes(signing.bundle()["2.root.json"]).signed
    assert len(root.roles["root"].keyids) == 3


def test_a_rotation_that_cannot_be_signed_leaves_no_trace(tmp_path, clock):
    """[trust-7.4]"""
    Signing.create(tmp_path, "team", clock=clock)
    _hide(tmp_path / "keys", "root-2", "root-3")
    before = files(tmp_path / "metadata"), files(tmp_path / "keys")
    with pytest.raises(RefusedError, match="root needs 2"):
        Signing.open(tmp_path, clock=clock).rotate("snapshot")
    assert (files(tmp_path / "metadata"), files(tmp_path / "keys")) == before
    with pytest.raises(RefusedError, match="no role"):
        Signing.open(tmp_path, clock=clock).rotate("mirror")


def test_a_device_of_many_roots_ago_is_brought_up_by_bundles_from_where_it_stands(tmp_path, clock):
    signing = Signing.create(tmp_path, "team", clock=clock)
    device = Device((tmp_path / "root.json").read_bytes())
    for _ in range(ROOTS_MAX + 4):
        signing.rotate("root")
    signing.publish([package("pump", 1)])
    device.refuses(signing.bundle(), Kind.ROOT_CHAIN)
    device.refuses(signing.bundle(2), Kind.BOUNDS)
    assert device.install(signing.bundle(2 + ROOTS_MAX)).package.ref.release == 1


def test_an_override_lets_the_named_device_down_once(signing, device, clock):
    """[trust-5.1]"""
    signing.publish([package("pump", 1), package("pump", 2)])
    device.install(signing.bundle())
    first = signing.allow("pump", 1, devices=["pump-7"], not_after=NOW + DAY)
    signing.publish([package("pump", 1), package("pump", 2)])  # keeps it
    device.install(signing.bundle(), release=1)
    device.install(signing.bundle(), release=2)
    device.refuses(signing.bundle(), Kind.ROLLBACK, release=1)
    clock.now += 2 * DAY
    signing.publish([package("pump", 1), package("pump", 2)])  # drops what has run out
    assert b"override/" not in signing.bundle()[_name(signing, "pump")]
    again = signing.allow("pump", 1, group="line-3", not_after=clock.now + DAY)
    assert again == first + 1
    with pytest.raises(RefusedError, match="not on offer"):
        signing.allow("pump", 9, devices=["pump-7"], not_after=NOW)
    with pytest.raises(RefusedError, match="not published"):
        signing.allow("fan", 1, devices=["pump-7"], not_after=NOW)


def test_a_security_floor_is_signed_and_stays(signing, device):
    """[trust-7.9]"""
    signing.publish([package("pump", 1), package("pump", 2, min_release=2)])
    device.refuses(signing.bundle(), Kind.MIN_RELEASE, release=1)
    signing.publish([package("pump", 1), package("pump", 2)])
    device.refuses(signing.bundle(), Kind.MIN_RELEASE, release=1)
    with pytest.raises(RefusedError, match="min_release"):
        signing.publish([package("pump", 3, min_release=9)])


@pytest.mark.parametrize("names", [["root"], ["targets"], ["pump", "Pump"]])
def test_a_model_that_could_not_be_told_from_another_is_refused(signing, names):
    """[trust-7.6]"""
    with pytest.raises(RefusedError):
        signing.publish([package(name, 1) for name in names])


def test_more_than_devices_read_is_refused_before_it_is_written(tmp_path, clock):
    """[trust-7.6]"""
    signing = Signing.create(tmp_path, clock=clock)
    signing.publish([package("pump", 1)])
    before = files(tmp_path / "metadata")
    with pytest.raises(RefusedError, match="remove old releases"):
        signing.publish([package("pump", n) for n in range(1, 600)])
    assert files(tmp_path / "metadata") == before


def test_as_many_releases_as_may_be_signed_are_read_by_a_device(tmp_path, clock):
    signing = Signing.create(tmp_path, "team", clock=clock)
    device = Device((tmp_path / "root.json").read_bytes())
    for _ in range(ROOTS_MAX):
        signing.rotate("root")
    releases = 50
    while releases < 1000:
        try:
            signing.publish([package("pump", n) for n in range(1, releases + 1)])
        except RefusedError:
            break
        releases += 50
    assert releases > 100
    assert device.install(signing.bundle()).package.ref.release == releases - 50


def test_a_repository_is_made_once_and_found_again(tmp_path, clock):
    with pytest.raises(RefusedError, match="no signed repository"):
        Signing.open(tmp_path, clock=clock)
    with pytest.raises(RefusedError, match="no profile"):
        Signing.create(tmp_path, "crowd", clock=clock)
    Signing.create(tmp_path, clock=clock)
    anchor = (tmp_path / "root.json").read_bytes()
    with pytest.raises(RefusedError, match="already"):
        Signing.create(tmp_path, clock=clock)
    assert (tmp_path / "root.json").read_bytes() == anchor


def test_damaged_metadata_is_said(signing, tmp_path):
    (tmp_path / "metadata" / "timestamp.json").write_bytes(b"{}")
    with pytest.raises(RefusedError, match=r"timestamp\.json"):
        signing.publish([package("pump", 1)])


def test_a_crash_before_the_timestamp_leaves_the_old_generation_whole(signing, device, tmp_path):
    """[trust-7.7]"""
    signing.publish([package("pump", 1)])
    timestamp = tmp_path / "metadata" / "timestamp.json"
    old = {**files(tmp_path / "metadata")}
    signing.publish([package("pump", 1), package("pump", 2)])
    for name, raw in old.items():  # all that was written, but the timestamp, which comes last
        (tmp_path / "metadata" / name).write_bytes(raw)
    assert json.loads(timestamp.read_bytes()) == json.loads(old["timestamp.json"])
    assert device.install(signing.bundle()).package.ref.release == 1
    signing.publish([package("pump", 1), package("pump", 2)])
    assert device.install(signing.bundle()).package.ref.release == 2


def _hide(keys: Path, *labels: str) -> None:
    for path in keys.glob("*.pem"):
        if path.name.startswith(labels):
            path.rename(path.with_suffix(".away"))


def _name(signing: Signing, role: str) -> str:
    return next(name for name in signing.bundle() if name.endswith(f".{role}.json"))


def test_nobody_elses_error_gets_out(signing, device):
    """The device's error is one of ours, with a code, like every refusal."""
    with pytest.raises(UntrustedError) as caught:
        device.install(signing.bundle(), "nothing")
    assert isinstance(caught.value, RefusedError)
