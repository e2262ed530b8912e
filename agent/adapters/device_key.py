"""The device's own key, with which it signs its receipts: Ed25519 or ECDSA P-256, in a PEM file.

It may be the key of the MQTT client certificate.  Needs `cryptography`, which a device can do
without: then its receipts are not signed.
"""

import os
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from agent.core.errors import RefusedError, UnavailableError

try:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
except ImportError:
    CAN_SIGN = False
else:
    CAN_SIGN = True

KEY_FILE_BYTES_MAX = 16 * 1024


class DeviceKey:
    """The `Signer` port.

    Raises:
        RefusedError: `cryptography` is not installed, or the file is open to others or holds no
            key we can use.
        UnavailableError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        if not CAN_SIGN:
            why = "signing needs the package `cryptography`: pip install 'edge-model-agent[fast]'"
            raise RefusedError(why, 501)
        self._signer = CryptoSigner(_load(path))
        self.keyid = self._signer.public_key.keyid
        self.scheme = self._signer.public_key.scheme

    def sign(self, body: bytes) -> str:
        """The signature of `body`, in hexadecimal."""
        return str(self._signer.sign(body).signature)


def _load(path: Path) -> "Ed25519PrivateKey | EllipticCurvePrivateKey":
    try:
        # Windows keeps rights elsewhere than in the mode; there the folder's own rights must do.
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise RefusedError(f"the key {path} is open to others: chmod 600 {path}")
        with path.open("rb") as file:
            pem = file.read(KEY_FILE_BYTES_MAX)
    except OSError as error:
        raise UnavailableError(f"cannot read the key {path}: {error.strerror}") from error
    try:
        key = load_pem_private_key(pem, None)
    except TypeError as error:
        why = f"the key {path} is encrypted; a device has nobody to ask for the passphrase"
        raise RefusedError(why) from error
    except ValueError as error:
        raise RefusedError(f"{path} is no private key in PEM, or is damaged") from error
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return key
    if not isinstance(key, Ed25519PrivateKey):
        raise RefusedError(f"the key {path} is neither Ed25519 nor ECDSA P-256; make one of them")
    return key
