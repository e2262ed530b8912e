"""Keys on a PKCS#11 token: SoftHSM here, by the same interface as a YubiKey or a network HSM."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.core.errors import RefusedError
from agent.core.trust import begin, resolve
from agent.repository.layout import Repository
from agent.repository.signing import Signing
from tests.world import zoo
from tests.world.site import ROOT

MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/opt/homebrew/lib/softhsm/libsofthsm2.so")
MODULE = next((path for path in MODULES if Path(path).is_file()), "")
PIN = "2468"


def _softhsm() -> str:
    """Why there is no token to test with; empty if there is one."""
    if not MODULE or not shutil.which("softhsm2-util"):
        return "SoftHSM is not here, keys on tokens go untested (apt install softhsm2)"
    try:
        import pkcs11  # noqa: F401
    except ImportError:
        return "python-pkcs11 is not here, keys on tokens go untested (the `hsm` extra)"
    return ""


needs_token = pytest.mark.skipif(bool(_softhsm()), reason=_softhsm())

MAKE_KEYS = """
import sys, pkcs11
from pkcs11 import Attribute, KeyType
from pkcs11.util.ec import encode_named_curve_parameters
token = pkcs11.lib(sys.argv[1]).get_token(token_label="edge")
with token.open(user_pin=sys.argv[2], rw=True) as session:
    for number, curve in enumerate(("secp256r1", "secp256r1", "secp384r1"), 1):
        named = {Attribute.EC_PARAMS: encode_named_curve_parameters(curve)}
        made = session.create_domain_parameters(KeyType.EC, named, local=True)
        made.generate_keypair(store=True, id=bytes([number]), label=f"key {number}")
"""


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    """The environment in which there is a token `edge` with keys 1 and 2, and 3 that is too big."""
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\n")
    env = {**os.environ, "SOFTHSM2_CONF": str(folder / "softhsm2.conf"), "PYKCS11LIB": MODULE}
    made = ["softhsm2-util", "--init-token", "--free", "--label", "edge", "--so-pin", "13579"]
    subprocess.run([*made, "--pin", PIN], env=env, check=True, capture_output=True)
    make = [sys.executable, "-c", MAKE_KEYS, MODULE, PIN]
    subprocess.run(make, env=env, check=True, capture_output=True)
    return {**env, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def in_token(token, monkeypatch):
    """The same environment, for this very process."""
    for name in ("SOFTHSM2_CONF", "PYKCS11LIB"):
        monkeypatch.setenv(name, token[name])


@pytest.fixture
def cli(token, tmp_path):
    """Runs `edge-agent repo …` in a process; asserts the exit code; gives all that it said."""
    (tmp_path / "pin").write_text(f"{PIN}\n")

    def run(*arguments, code=0):
        command = [sys.executable, "-m", "agent", "repo", *map(str, arguments)]
        done = subprocess.run(
            command, env=token, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    return run


def newest(folder, state):
    """What a device takes from the repository in `folder`, and what it knows then."""
    files = Repository.open(folder).metadata_files()
    accepted = resolve(state, files, "m", None, now=_signed_at(files))
    return accepted.package.ref.release, accepted.state


def _signed_at(files):
    return float(json.loads(files["timestamp.json"])["signed"]["custom"]["issued"])


@needs_token
def test_a_repository_is_kept_with_a_key_that_never_leaves_its_token(cli, tmp_path):
    """[trust-7.10]"""
    pin = ("--pin-file", "pin")
    cli("init", "r", "--key", "owner=hsm:1?label=edge", *pin)
    state = begin((tmp_path / "r" / "root.json").read_bytes())
    owner = [path.name for path in (tmp_path / "r" / "keys").glob("owner.*")]
    assert [name.rsplit(".", 1)[1] for name in owner] == ["uri"]

    v1 = zoo.mlp(tmp_path / "v1", name="m")
    cli("add", v1, "--repo", "r", *pin)
    release, state = newest(tmp_path / "r", state)
    assert release == 1

    cli("rotate", "root", "--repo", "r", "--key", "owner=hsm:2?label=edge", *pin)
    assert len(list((tmp_path / "r" / "keys").glob("owner.*.retired"))) == 1
    cli("add", zoo.mlp(tmp_path / "v2", name="m", bias=2.0), "--repo", "r", *pin)
    release, state = newest(tmp_path / "r", state)
    assert release == 2
    assert json.loads(state.roles["root"])["signed"]["version"] == 2


@needs_token
@pytest.mark.parametrize(
    ("uris", "pin", "said"),
    [
        ({"owner": "hsm:1?label=edge"}, None, "give --pin-file"),
        ({"owner": "hsm:1?label=edge"}, b"0000", "cannot be used: PinIncorrect"),
        ({"owner": "hsm:9?label=edge"}, PIN.encode(), "could not find"),
        ({"owner": "hsm:1?label=none"}, PIN.encode(), "No PKCS#11 token"),
        ({"owner": "hsm:3?label=edge"}, PIN.encode(), "nistp384"),
        ({"owner": "hsm:1?label=edge", "online": "hsm:1?label=edge"}, PIN.encode(), "in use here"),
    ],
    ids=["no pin", "wrong pin", "no key", "no token", "too big", "twice"],
)
@pytest.mark.usefixtures("in_token")
def test_what_a_token_has_against_it_is_said_and_nothing_is_left(tmp_path, uris, pin, said):
    """[trust-7.10]"""
    with pytest.raises(RefusedError, match=said):
        Signing.create(tmp_path, uris=uris, pin=pin)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


WITHOUT_THE_EXTRA = """
import sys
from pathlib import Path
sys.modules["pkcs11"] = None
from agent.core.errors import RefusedError
from agent.repository.signing import Signing
try:
    Signing.create(Path(sys.argv[1]), uris={"owner": "hsm:1?label=edge"})
except RefusedError as error:
    print(error.code, error)
"""


def test_without_the_extra_it_says_what_to_install(tmp_path):
    """[trust-7.10]"""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_EXTRA, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.startswith("501 hsm:1?label=edge is on a PKCS#11 token"), done.stderr
    assert "edge-model-agent[hsm]" in done.stdout
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("uri", ["file:x", "hsm:two", "pkcs11:token=edge", "hsm:-1"])
def test_a_uri_that_names_no_key_is_said(tmp_path, uri):
    with pytest.raises(RefusedError, match=r"write hsm:2\?label=TOKEN"):
        Signing.create(tmp_path, uris={"owner": uri})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"uri": "hsm:1", "keyid": "a", "key": {}}'])
def test_a_note_that_says_nothing_is_said(tmp_path, text):
    Signing.create(tmp_path)
    (tmp_path / "keys" / "odd.uri").write_text(text)
    with pytest.raises(RefusedError, match="does not say which key"):
        Signing.open(tmp_path)
