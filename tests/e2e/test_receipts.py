"""Receipts of a real agent: signed, served, asked for, and there after a kill."""

import json

import pytest
import urllib3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from agent.repository import proofs
from tests.world import zoo
from tests.world.site import DEVICE, Site
from tests.world.waiting import eventually

PEM = serialization.Encoding.PEM


@pytest.fixture
def key(tmp_path):
    key = ed25519.Ed25519PrivateKey.generate()
    form, seal = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "device.key").write_bytes(key.private_bytes(PEM, form, seal))
    (tmp_path / "device.key").chmod(0o600)
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "device.pub").write_bytes(key.public_key().public_bytes(PEM, public))
    return tmp_path / "device.key"


def served(site, page="receipts"):
    with urllib3.PoolManager(timeout=5, retries=False) as pool:
        return pool.request("GET", f"http://{site.http}/{page}").json()


def readings(first, last):
    return [{"ts": 1_700_000_000 + n, **{f"f{i}": (n + i) % 7 for i in range(8)}}
            for n in range(first, last)]  # fmt: skip


def _on_disk(site):
    """Whether receipts are in the store, which is the agent's alone while it lives."""
    return any(b"receipts:m" in path.read_bytes() for path in (site.folder / "store").glob("*.db*"))


def test_each_swap_leaves_a_receipt_that_is_genuine_wherever_it_is_read(broker, tmp_path, key):
    """[versions-3.1] [versions-3.2] [versions-3.4]"""
    public = proofs.public_key(tmp_path / "device.pub")
    with Site(
        broker, tmp_path, device={"id": DEVICE, "groups": ["line"], "key_file": str(key)}
    ) as site:
        site.start()
        one = site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
        site.readings(readings(0, 50))
        site.scored("m", 50)
        two = site.deploy(zoo.mlp(tmp_path / "v2", bias=0.01, name="m"))
        site.readings(readings(50, 100))
        site.scored("m", 100)
        told = eventually(lambda: [e for e in site.events if e["type"] == "swap"][1:], 20)[0]
        assert proofs.doubt(told, public) == ""
        assert (told["receipt"]["device"], told["receipt"]["model"]) == (DEVICE, "m")
        assert (told["receipt"]["from"]["release"], told["receipt"]["to"]["release"]) == (one, two)
        answer = site.command("diagnostics", {"model": "m"})
        page = served(site)
        assert page["signing"] == f"ed25519 {public.keyid[:8]}"
        for document in (page, served(site, "receipts/m"), answer):
            kept = list(proofs.envelopes_in(document))
            assert [e["receipt"]["number"] for e in kept] == [2, 1]
            assert [proofs.doubt(e, public) for e in kept] == ["", ""]
        site.kill()
        site.start().ready()
        after = list(proofs.envelopes_in(served(site)))
        assert [e["receipt"]["number"] for e in after] == [2, 1]
        assert [proofs.doubt(e, public) for e in after] == ["", ""]
        assert site.model("m")["receipt"]["number"] == 2


def test_a_kill_after_the_swap_takes_no_receipt_away(broker, tmp_path):
    """[versions-3.2] Before the figures that come later are known."""
    with Site(broker, tmp_path, report={"interval": "1s", "receipt": "60s"}) as site:
        site.start()
        site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
        site.readings(readings(0, 20))
        eventually(lambda: (site.model("m").get("receipt") or {}).get("number") == 1, 10)
        assert [e for e in site.events if e["type"] == "swap"] == []
        eventually(lambda: _on_disk(site), 10, "it is on the disk, which nobody waits for")
        site.kill()
        site.start().ready()
        (kept,) = proofs.envelopes_in(served(site))
        assert (kept["receipt"]["number"], kept["receipt"]["complete"]) == (1, False)
        assert kept["signature"] is None
        assert site.state()["agent"]["receipts"] == "none: device.key_file is not set"


def test_a_key_that_cannot_sign_is_told_and_keeps_nothing_from_scoring(broker, tmp_path, key):
    """[versions-3.6]"""
    key.chmod(0o644)
    with Site(
        broker, tmp_path, device={"id": DEVICE, "groups": ["line"], "key_file": str(key)}
    ) as site:
        site.start()
        site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
        assert "chmod 600" in site.state()["agent"]["receipts"]
        told = [json.loads(line) for line in site.log().splitlines() if "not signed" in line]
        assert len(told) == 1
        assert "open to others" in told[0]["why"]
        assert all(e["signature"] is None for e in proofs.envelopes_in(served(site)))
