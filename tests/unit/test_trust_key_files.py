"""Private keys: for their owner only, opened by their passphrase alone, and never guessed at."""

import os
import stat
import subprocess
import sys

import pytest

from agent.core.errors import RefusedError
from agent.repository.keys import KeyFolder, read_secret
from agent.repository.signing import Signing
from tests.world.tuf_repository import NOW, package

PROFILES = ("solo", "team")


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.skipif(os.name != "posix", reason="rights are kept elsewhere")
def test_keys_are_for_their_owner_only(tmp_path, clock):
    """[trust-7.1]"""
    Signing.create(tmp_path, "team", keys_dir=tmp_path / "away", clock=clock)
    assert not (tmp_path / "keys").exists()
    assert stat.S_IMODE((tmp_path / "away").stat().st_mode) == 0o700
    paths = list((tmp_path / "away").iterdir())
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}
    paths[0].chmod(0o640)
    with pytest.raises(RefusedError, match="chmod 600"):
        Signing.open(tmp_path, tmp_path / "away", clock=clock)


def test_solo_keeps_two_key_files(tmp_path, clock):
    """[trust-7.1]"""
    Signing.create(tmp_path, clock=clock)
    labels = sorted(path.name.split(".")[0] for path in (tmp_path / "keys").iterdir())
    assert labels == ["online", "owner"]


def test_keys_under_a_passphrase_open_with_it_alone(tmp_path, clock):
    """[trust-7.2]"""
    Signing.create(tmp_path, passphrase=b"correct horse", clock=clock)
    for path in (tmp_path / "keys").iterdir():
        assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    with pytest.raises(RefusedError, match="--passphrase-file"):
        Signing.open(tmp_path, clock=clock)
    with pytest.raises(RefusedError, match="passphrase is wrong"):
        Signing.open(tmp_path, passphrase=b"wrong", clock=clock)
    signing = Signing.open(tmp_path, passphrase=b"correct horse", clock=clock)
    signing.rotate("timestamp")
    signing.publish([package("pump", 1)])
    with pytest.raises(RefusedError, match="is empty"):
        KeyFolder(tmp_path / "keys", b"")


def test_a_key_file_that_is_none_is_said(tmp_path, clock):
    Signing.create(tmp_path, clock=clock)
    odd = tmp_path / "keys" / "odd.pem"
    odd.touch(0o600)
    odd.write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(RefusedError, match="does not open"):
        Signing.open(tmp_path, clock=clock)


def test_the_passphrase_is_the_first_line_of_its_file(tmp_path):
    path = tmp_path / "passphrase"
    path.write_bytes(b"correct horse\r\nnot this\n")
    assert read_secret(path) == b"correct horse"
    path.write_bytes(b"\n")
    with pytest.raises(RefusedError, match="empty"):
        read_secret(path)
    with pytest.raises(RefusedError, match="cannot be read"):
        read_secret(tmp_path / "none")


WITHOUT_NATIVE_CODE = """
import sys
from pathlib import Path
sys.modules["cryptography"] = None
from agent.core.errors import RefusedError
from agent.repository.signing import Signing
try:
    Signing.create(Path(sys.argv[1]))
except RefusedError as error:
    print(error.code, error)
"""


def test_signing_without_cryptography_says_what_to_install(tmp_path):
    """[trust-7.8]"""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NATIVE_CODE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.startswith("501 signing needs"), done.stderr
    assert "edge-model-agent[publish]" in done.stdout
    assert list(tmp_path.iterdir()) == []
