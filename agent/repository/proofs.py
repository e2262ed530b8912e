"""Whether a receipt is what the device signed: the operator's side of `core.envelope`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Signature, SSlibKey

from agent.core.envelope import signed_bytes
from agent.core.errors import RefusedError

try:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificate
except ImportError:
    CAN_READ_KEYS = False
else:
    CAN_READ_KEYS = True

KEY_FILE_BYTES_MAX = 64 * 1024
SCHEMES = ("ed25519", "ecdsa-sha2-nistp256")  # that devices sign with


def public_key(path: Path) -> SSlibKey:
    """The public key, or that of the certificate, in the PEM file at `path`.

    Raises:
        RefusedError: there is none that devices sign with, or `cryptography` is not installed.
    """
    if not CAN_READ_KEYS:
        why = "reading keys needs the package `cryptography`: pip install 'edge-model-agent[fast]'"
        raise RefusedError(why, 501)
    try:
        with path.open("rb") as file:
            pem = file.read(KEY_FILE_BYTES_MAX)
    except OSError as error:
        raise RefusedError(f"cannot read the key {path}: {error.strerror}") from error
    try:
        found: object = (
            load_pem_x509_certificate(pem).public_key()
            if b"BEGIN CERTIFICATE" in pem
            else load_pem_public_key(pem)
        )
    except ValueError as error:
        raise RefusedError(
            f"{path} is no public key in PEM; openssl pkey -in DEVICE_KEY -pubout makes it"
        ) from error
    if isinstance(found, Ed25519PublicKey | EllipticCurvePublicKey):
        key = SSlibKey.from_crypto(found)
        if key.scheme in SCHEMES:
            return key
    raise RefusedError(f"the key {path} is of no kind that devices sign with: {', '.join(SCHEMES)}")


def envelopes_in(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every receipt with its signature in `document`, in order.

    It may be one envelope, an event that carries one, what /receipts answers, or the answer to
    `diagnostics`.
    """
    if isinstance(document.get("receipt"), Mapping):
        yield document
    kept = document.get("receipts")
    for envelopes in kept.values() if isinstance(kept, Mapping) else ():
        for envelope in envelopes if isinstance(envelopes, list) else ():
            if isinstance(envelope, Mapping) and isinstance(envelope.get("receipt"), Mapping):
                yield envelope


def doubt(envelope: Mapping[str, Any], key: SSlibKey) -> str:
    """Why the receipt is not to be taken for what the owner of `key` signed; empty if it is."""
    signature = envelope.get("signature")
    if not isinstance(signature, Mapping):
        return "it is not signed"
    keyid, scheme, sig = (signature.get(part) for part in ("keyid", "scheme", "sig"))
    if keyid != key.keyid:
        return f"it is signed by another key, {str(keyid)[:8]}, not by {key.keyid[:8]}"
    if scheme != key.scheme or not isinstance(sig, str):
        return f"the signature is no {key.scheme}"
    try:
        key.verify_signature(Signature(key.keyid, sig), signed_bytes(envelope["receipt"]))
    except (UnverifiedSignatureError, VerificationError, RefusedError, ValueError):
        return "the signature is wrong: this is not what the device wrote"
    return ""
