"""The cases of tuf-conformance (eec841c), against our verifier: delegations, as far as we have any.

Theirs walk a graph of roles; ours has one level, families only.  What is tested here is that no
bundle can make it deeper, wider or other than that.  Names are theirs.
"""

import pytest
from tuf.api.metadata import DelegatedRole, Delegations, Targets

from agent.core.trust import Kind
from tests.world.tuf_device import Device
from tests.world.tuf_repository import TufRepository, at, package, sign, target_of


@pytest.fixture
def repo() -> TufRepository:
    repo = TufRepository("pump", "fan")
    repo.offer(package("pump", 1))
    return repo


@pytest.fixture
def device(repo: TufRepository) -> Device:
    return Device(repo.root_file)


def delegate(repo: TufRepository, by: str, to: str, paths: list[str]) -> None:
    """Let family `by` delegate `paths` to `to`, under the keys of `by`."""
    family = repo.families[by]
    if family.delegations is None:
        family.delegations = Delegations({}, {})
    family.delegations.roles[to] = DelegatedRole(to, [], 1, False, paths=paths)
    family.add_key(repo.signers[by][0].public_key, to)


@pytest.mark.parametrize(
    "edges",
    [
        [("pump", "deeper")],
        [("pump", "fan")],
        [("pump", "fan"), ("fan", "pump")],  # a cycle
        [("pump", "pump")],
    ],
    ids=str,
)
def test_graph_traversal(repo, device, edges):
    """[trust-4.6]"""
    for by, to in edges:
        delegate(repo, by, to, ["*/*", "pump/*"])
    deeper = Targets(version=1, expires=at(100))
    deeper.targets["pump/2"] = target_of("pump/2", package("pump", 2))
    repo.publish("pump", "fan")
    files = {
        f"1.{name}.json": sign(deeper, repo.signers["pump"]) for name in ("deeper", "pump", "fan")
    }
    bundle = {**files, **repo.bundle()}
    device.refuses(bundle, Kind.UNKNOWN, release=2)
    device.refuses(bundle, Kind.UNKNOWN, release=1, model="deeper")
    assert device.install(bundle).package.ref.release == 1


@pytest.mark.parametrize(
    ("paths", "kind"),
    [
        (["pump/*"], None),
        (["pump/?"], None),
        (["fan/*", "pump/1"], None),
        (["*/*"], None),
        (["fan/*"], Kind.DELEGATION),
        (["*"], Kind.DELEGATION),
        (["pump"], Kind.DELEGATION),
        (["pump/2"], Kind.DELEGATION),
        (["PUMP/*"], Kind.DELEGATION),
        (["pump/*/*"], Kind.DELEGATION),
    ],
    ids=str,
)
def test_targetfile_search(repo, device, paths, kind):
    """[trust-4.6]"""
    repo.targets.delegations.roles["pump"].paths = paths
    repo.publish("targets")
    if kind is None:
        assert device.install(repo.bundle()).package.ref.release == 1
    else:
        device.refuses(repo.bundle(), kind)


def test_cached_role_is_verified_against_current_delegator(repo, device):
    """[trust-4.6]"""
    device.install(repo.bundle())
    held = repo.name_of("pump")
    repo.rotate("pump")
    repo.publish("targets")  # the family itself is not signed again: same version, old keys
    device.refuses(repo.bundle(), Kind.SIGNATURE)
    bundle = repo.bundle()
    del bundle[held]
    device.refuses(bundle, Kind.MISSING)
    repo.publish("pump")
    assert device.install(repo.bundle()).package.ref.release == 1
