"""Private keys in files and on tokens: made, kept and used by whoever publishes, never on a device.

One Ed25519 key per PKCS#8 PEM file, readable by its owner only, encrypted if there is a passphrase;
`openssl pkey -in FILE` reads them.  Of a key on a token the file only says where it is (`tokens`).
A file is named by what its key is for and by the key id, and found again by the key inside: files
may be carried to and from an offline machine at will.
"""

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from securesystemslib.signer import CryptoSigner, Signer, SSlibKey

from agent.core.errors import RefusedError
from agent.repository import tokens

try:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        KeySerializationEncryption,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )
except ImportError:
    CAN_SIGN = False
else:
    CAN_SIGN = True

KEY_FILE_BYTES_MAX = 16 * 1024
KEY_FILES_MAX = 256


class KeyFolder:
    """The private keys in `folder`; `passphrase` opens those encrypted with it, and seals new ones.

    `pin` opens the tokens that others are on.

    Raises:
        RefusedError: a file that is open to others, is no Ed25519 key, or does not open; or
            `cryptography` is not installed.
    """

    def __init__(
        self, folder: Path, passphrase: bytes | None = None, pin: bytes | None = None
    ) -> None:
        if not CAN_SIGN:
            raise RefusedError(
                "signing needs the package `cryptography`: pip install 'edge-model-agent[publish]'",
                501,
            )
        if passphrase is not None and not passphrase:
            raise RefusedError("the passphrase is empty; leave it out, or give one")
        self.folder = folder
        self._passphrase = passphrase
        self._pin = pin
        self._signers: dict[str, tuple[Signer, Path]] = {}
        for path in sorted(folder.glob("*.pem"))[:KEY_FILES_MAX]:
            signer = CryptoSigner(_load(path, passphrase))
            self._signers[signer.public_key.keyid] = (signer, path)
        for path in sorted(folder.glob(f"*{tokens.SUFFIX}"))[:KEY_FILES_MAX]:
            token = tokens.signer_of(path, pin)
            self._signers[token.public_key.keyid] = (token, path)

    def create(self, label: str, uri: str = "") -> SSlibKey:
        """Make a key, durably, for what `label` says; returns its public half.

        With `uri` none is made: the key is the one that lies on that token.

        Raises:
            RefusedError: the token has no such key, or it signs for something else here.
        """
        return self._enrol(label, uri) if uri else self._make(label)

    def _enrol(self, label: str, uri: str) -> SSlibKey:
        key = tokens.enrol(uri, self._pin)
        if key.keyid in self._signers:
            raise RefusedError(f"the key {uri} is in use here already, for {self.label(key.keyid)}")
        path = self.folder / f"{label}.{key.keyid[:8]}{tokens.SUFFIX}"
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tokens.note(path, uri, key)
        self._signers[key.keyid] = (tokens.signer_of(path, self._pin), path)
        return key

    def _make(self, label: str) -> SSlibKey:
        private = Ed25519PrivateKey.generate()
        signer = CryptoSigner(private)
        sealed: KeySerializationEncryption = (
            BestAvailableEncryption(self._passphrase) if self._passphrase else NoEncryption()
        )
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / f"{label}.{signer.public_key.keyid[:8]}.pem"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        self._signers[signer.public_key.keyid] = (signer, path)
        return signer.public_key

    def create_all(self, labels: Collection[str], uris: Mapping[str, str]) -> list[SSlibKey]:
        """`create` for each of `labels`, or for none; `uris` are keys on tokens, by label."""
        if strange := sorted(uris.keys() - set(labels)):
            there = ", ".join(sorted(labels))
            raise RefusedError(f"there is no key {strange[0]!r} to put on a token, but {there}")
        made: list[SSlibKey] = []
        try:
            for label in labels:
                made.append(self.create(label, uris.get(label, "")))  # noqa: PERF401  # so far
        except BaseException:
            self.discard(key.keyid for key in made)
            raise
        return made

    def signers(self, keyids: Iterable[str]) -> list[Signer]:
        """The signers among `keyids` that are here, in that order."""
        return [self._signers[keyid][0] for keyid in keyids if keyid in self._signers]

    def label(self, keyid: str) -> str:
        """What the key was made for; its short id if it is not here."""
        found = self._signers.get(keyid)
        return found[1].name.split(".")[0] if found else keyid[:8]

    def retire(self, keyids: Iterable[str]) -> list[Path]:
        """Put keys out of use: their files stay, as `*.retired`, to be destroyed by hand."""
        gone = []
        for keyid in keyids:
            if keyid in self._signers:
                path = self._signers.pop(keyid)[1]
                gone.append(path.rename(path.with_suffix(".retired")))
        return gone

    def discard(self, keyids: Iterable[str]) -> None:
        """Destroy keys that were made for nothing."""
        for keyid in keyids:
            self._signers.pop(keyid)[1].unlink()


def read_secret(path: Path, what: str = "passphrase") -> bytes:
    """The passphrase or PIN in a file: its first line.

    Raises:
        RefusedError: the file cannot be read, or has none.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise RefusedError(f"the {what} file {path} cannot be read: {error.strerror}") from error
    if not lines or not lines[0].strip():
        raise RefusedError(f"the {what} file {path} is empty")
    return lines[0].strip()


def _load(path: Path, passphrase: bytes | None) -> "Ed25519PrivateKey":
    # Windows keeps rights elsewhere than in the mode; there the folder's own rights must do.
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise RefusedError(f"the key {path} is open to others: chmod 600 {path}")
    with path.open("rb") as file:
        pem = file.read(KEY_FILE_BYTES_MAX)
    encrypted = b"ENCRYPTED" in pem.partition(b"\n")[0]
    if encrypted and passphrase is None:
        raise RefusedError(f"the key {path} is encrypted: give --passphrase-file")
    try:
        key = load_pem_private_key(pem, passphrase if encrypted else None)
    except ValueError as error:
        why = "the passphrase is wrong, or it is damaged" if encrypted else "it is damaged"
        raise RefusedError(f"the key {path} does not open: {why}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise RefusedError(f"the key {path} is no Ed25519 key; devices take no other")
    return key
