"""Receipts that are signed by a real key, and checked by whoever has its public half."""

import asyncio
import datetime as dt
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner

from agent.adapters.device_key import DeviceKey
from agent.adapters.sqlite.database import Database
from agent.adapters.sqlite.journal import SqliteJournal
from agent.commands import check
from agent.commands.findings import look
from agent.commands.receipts import app
from agent.config import Config
from agent.core.envelope import signed_bytes
from agent.core.errors import RefusedError, UnavailableError
from agent.repository import proofs
from agent.runtime.archive import Archive
from agent.runtime.receipts import SwapTrace
from tests.world.river import ref
from tests.world.stand_in import StandIn

PEM = serialization.Encoding.PEM
KEYS = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
}


def private_pem(key, passphrase=None):
    form = serialization.PrivateFormat.PKCS8
    seal = serialization.NoEncryption()
    if passphrase:
        seal = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(PEM, form, seal)


def public_pem(key):
    return key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def certificate_pem(key):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pump-7")])
    now = dt.datetime.now(dt.UTC)
    built = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(1))
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return built.sign(key, digest).public_bytes(PEM)


def kept(path, body, mode=0o600):
    path.write_bytes(body)
    path.chmod(mode)
    return path


@pytest.fixture(params=KEYS)
def key(request):
    return KEYS[request.param]()


def envelope(signer, release=2):
    receipt = {"number": 1, "why": "é", "to": {"release": release}, "pause_ms": 1.5, "evidence": []}
    sig = signer.sign(signed_bytes(receipt))
    return {
        "receipt": receipt,
        "signature": {"keyid": signer.keyid, "scheme": signer.scheme, "sig": sig},
    }


def test_what_a_device_signs_is_genuine_and_nothing_else_is(tmp_path, key):
    """[versions-3.4]"""
    signer = DeviceKey(kept(tmp_path / "key", private_pem(key)))
    told = json.loads(json.dumps(envelope(signer)))
    public = proofs.public_key(kept(tmp_path / "pub", public_pem(key), 0o644))
    certificate = proofs.public_key(kept(tmp_path / "crt", certificate_pem(key), 0o644))
    assert proofs.doubt(told, public) == proofs.doubt(told, certificate) == ""
    changed = {**told, "receipt": told["receipt"] | {"number": 2}}
    assert "wrong" in proofs.doubt(changed, public)
    assert "not signed" in proofs.doubt(told | {"signature": None}, public)
    for part, odd in (("scheme", "rsa"), ("sig", "zz"), ("sig", ""), ("sig", 7), ("keyid", "x")):
        assert proofs.doubt(told | {"signature": told["signature"] | {part: odd}}, public), part
    for other in KEYS.values():
        stranger = proofs.public_key(kept(tmp_path / "other", public_pem(other())))
        assert "another key" in proofs.doubt(told, stranger)


def test_a_signature_can_be_checked_with_nothing_of_ours(tmp_path):
    """[versions-3.4]"""
    key = KEYS["ed25519"]()
    told = envelope(DeviceKey(kept(tmp_path / "key", private_pem(key))))
    body = '{"evidence":[],"number":1,"pause_ms":1.5,"to":{"release":2},"why":"é"}'.encode()
    kind = b"application/vnd.edge-agent.receipt+json"
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)
    key.public_key().verify(bytes.fromhex(told["signature"]["sig"]), signed)
    (tmp_path / "signed").write_bytes(signed)
    (tmp_path / "sig").write_bytes(bytes.fromhex(told["signature"]["sig"]))
    kept(tmp_path / "pub", public_pem(key))
    files = ["-inkey", "pub", "-in", "signed", "-sigfile", "sig"]
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-rawin", *files]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"Signature Verified Successfully\n")


@pytest.mark.parametrize(
    ("make", "mode", "says"),
    [
        (lambda: private_pem(KEYS["ed25519"]()), 0o640, "open to others: chmod 600"),
        (lambda: private_pem(KEYS["ed25519"](), b"secret"), 0o600, "is encrypted"),
        (lambda: private_pem(rsa.generate_private_key(65537, 2048)), 0o600, "neither Ed25519 nor"),
        (
            lambda: private_pem(ec.generate_private_key(ec.SECP384R1())),
            0o600,
            "neither Ed25519 nor",
        ),
        (lambda: public_pem(KEYS["ed25519"]()), 0o600, "no private key in PEM"),
        (lambda: b"", 0o600, "no private key in PEM"),
        (lambda: b"\xff" * 100_000, 0o600, "no private key in PEM"),
    ],
)
def test_a_key_that_cannot_be_used_is_refused_in_a_sentence(tmp_path, make, mode, says):
    """[versions-3.6]"""
    with pytest.raises(RefusedError, match=says):
        DeviceKey(kept(tmp_path / "key", make(), mode))


def test_a_key_that_is_not_there_is_named(tmp_path):
    """[versions-3.6]"""
    with pytest.raises(UnavailableError, match="cannot read the key"):
        DeviceKey(tmp_path / "key")
    with pytest.raises(RefusedError, match="cannot read the key"):
        proofs.public_key(tmp_path / "key")
    with pytest.raises(RefusedError, match="openssl pkey"):
        proofs.public_key(kept(tmp_path / "key", private_pem(KEYS["ed25519"]())))
    pem = public_pem(rsa.generate_private_key(65537, 2048))
    with pytest.raises(RefusedError, match="of no kind that devices sign with"):
        proofs.public_key(kept(tmp_path / "key", pem))


def test_without_cryptography_it_is_said_what_to_install(tmp_path):
    """[versions-3.6]"""
    kept(tmp_path / "key", private_pem(KEYS["ed25519"]()))
    script = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from pathlib import Path; from agent.adapters.device_key import DeviceKey\n"
        "from agent.core.errors import RefusedError\n"
        "try: DeviceKey(Path(sys.argv[1]))\n"
        "except RefusedError as error: print(error)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "key")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "pip install 'edge-model-agent[fast]'" in done.stdout, done.stderr


def test_check_says_whether_receipts_will_be_signed(tmp_path):
    """[versions-3.6]"""

    def finding(**device):
        (found,) = look([("receipts", lambda: check._receipts(Config(device=device)))])
        return found.ok, found.sentence

    assert finding() == (True, "not signed: device.key_file is not set")
    key = kept(tmp_path / "key", private_pem(KEYS["ed25519"]()))
    told = f"signed with the ed25519 key {DeviceKey(key).keyid[:8]}"
    assert finding(key_file=str(key)) == (True, told)
    key.chmod(0o604)
    assert finding(key_file=str(key)) == (
        False,
        f"the key {key} is open to others: chmod 600 {key}",
    )


def test_what_was_kept_in_the_real_journal_is_genuine_after_a_restart(tmp_path, key):
    """[versions-3.1] [versions-3.4]"""
    signer = DeviceKey(kept(tmp_path / "key", private_pem(key)))
    public = proofs.public_key(kept(tmp_path / "pub", public_pem(key)))

    async def once(*, take):
        database = Database(tmp_path / "agent.db")
        try:
            journal = SqliteJournal(database)
            if take:
                journal.save("m", journal.load("m"))
            archive = Archive(journal, device="d", signer=signer, tell=lambda *_, **__: None)
            await archive.reopen()
            if take:
                archive.take("m", SwapTrace("swap", ref(1), ref(2), why="é\ud800", pause_ms=0.1))
            await archive.close()
            return archive.envelopes()["m"]
        finally:
            database.close()

    asyncio.run(once(take=True))
    (told,) = asyncio.run(once(take=False))
    assert proofs.doubt(told, public) == ""


# ---- the command ---------------------------------------------------------------------------------


def edge_agent(*words, stdin=b"", url="mqtt://127.0.0.1:1"):
    env = {"EDGE_AGENT__MQTT__URL": url, "COLUMNS": "200"}
    return CliRunner().invoke(app, [*map(str, words)], input=stdin, env=env)


def test_verify_takes_every_form_in_which_receipts_come(tmp_path):
    """[control-3.5]"""
    private = KEYS["ed25519"]()
    signer = DeviceKey(kept(tmp_path / "key", private_pem(private)))
    public = kept(tmp_path / "pub", public_pem(private))
    one, two = envelope(signer), envelope(signer, 3)
    forms = {
        "envelope": one,
        "event": {"schema": 1, "type": "swap", "why": "", **one},
        "page": {"schema": 1, "receipts": {"m": [one | {"words": []}], "n": [two]}},
    }
    for name, form in forms.items():
        raw = json.dumps(form).encode()
        done = edge_agent("verify", "-", "--key", public, stdin=raw)
        assert done.exit_code == 0, (name, done.stderr)
        assert done.stdout.count("[genuine]") == (2 if name == "page" else 1)
    bad = two | {"receipt": two["receipt"] | {"to": {"release": 9}}}
    file = kept(tmp_path / "all.json", json.dumps({"receipts": {"m": [one, bad]}}).encode())
    done = edge_agent("verify", file, "--key", public)
    assert (done.exit_code, done.stderr) == (1, "edge-agent: 1 of 2 are not genuine\n")
    assert done.stdout.count("[genuine]") == 1
    told = json.loads(edge_agent("verify", file, "--key", public, "--json").stdout)
    assert [r["genuine"] for r in told["receipts"]] == [True, False]
    assert edge_agent("verify", "-", "--key", public, stdin=b"{}").exit_code == 1
    for wrong in (b"[]", b"{", b""):
        assert edge_agent("verify", "-", "--key", public, stdin=wrong).exit_code == 2
    assert edge_agent("verify", tmp_path / "none", "--key", public).exit_code == 2


def test_list_asks_the_device_and_checks_what_it_gets(broker, tmp_path):
    """[control-3.5]"""
    private = KEYS["p256"]()
    signer = DeviceKey(kept(tmp_path / "key", private_pem(private)))
    public = kept(tmp_path / "pub", public_pem(private))
    asked = []

    def answers(name, body):
        asked.append((name, body["args"]))
        if body["args"].get("model") == "x":
            return {"code": 404, "why": "this device has no model x"}
        return {"code": 200, "state": {}, "receipts": {"m": [envelope(signer)], "n": []}}

    with StandIn(broker.url, "pump-7") as device:
        device.answers = answers
        where = ("list", "--device", "pump-7")
        done = edge_agent(*where, url=broker.url)
        assert done.exit_code == 0, done.stderr
        assert f"[signed by {signer.keyid[:8]}, not checked]" in done.stdout
        assert "\n    swap none → 2: pause 1.5 ms; é\n" in done.stdout
        done = edge_agent(*where, "--model", "m", "--key", public, url=broker.url)
        assert (done.exit_code, "[genuine]" in done.stdout) == (0, True)
        other = kept(tmp_path / "other", public_pem(KEYS["p256"]()))
        done = edge_agent(*where, "--key", other, url=broker.url)
        assert done.exit_code == 1
        assert "NOT GENUINE: it is signed by another key" in done.stdout
        done = edge_agent(*where, "--model", "x", url=broker.url)
        assert done.exit_code == 1
        assert done.stderr == "edge-agent: pump-7 says 404: this device has no model x\n"
    assert asked[:2] == [("diagnostics", {}), ("diagnostics", {"model": "m"})]


def test_the_digest_of_this_page_of_the_specification_is_what_is_signed():
    """[versions-3.4] The example of docs/spec/versions.md, so that others can test theirs."""
    example = {"schema": 1, "device": "pump-7", "model": "m", "number": 3, "gap": 0, "time": 1.5}
    digest = hashlib.sha256(signed_bytes(example)).hexdigest()
    page = Path(__file__).parents[2] / "docs" / "spec" / "versions.md"
    assert digest in page.read_text(encoding="utf-8")
