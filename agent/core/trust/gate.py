"""What metadata must look like before a signature library sees it: bounds, strict JSON, our keys.

Only Ed25519 keys are taken, and ECDSA P-256 where `cryptography` is installed to check them; every
other type is refused whole, as is one key under two names, which would count twice for a threshold.
"""

import base64
import binascii
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

from agent.core.errors import RefusedError
from agent.core.strict import read_object
from agent.core.trust.refusal import Kind, UntrustedError

BUNDLE_BYTES_MAX = 256 * 1024  # all metadata that is read out of one bundle
ROOTS_MAX = 16  # root rotations in one bundle
KEYS_MAX = 64  # in one file
_HAS_CRYPTOGRAPHY = importlib.util.find_spec("cryptography") is not None
_ED25519_BYTES = 32
# The one DER header of an uncompressed P-256 key (RFC 5480): a second spelling is a second name.
_P256_DER = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
_P256_DER_BYTES = 91


def check(what: str, raw: bytes) -> None:
    """Let `raw` pass if it is JSON that has one reading, and holds only keys we take.

    Raises:
        UntrustedError: `bounds`, `malformed` or `key`.
    """
    try:
        document = read_object(raw, what, bytes_max=BUNDLE_BYTES_MAX)
    except RefusedError as error:
        kind = Kind.BOUNDS if error.code == 413 else Kind.MALFORMED
        raise UntrustedError(kind, str(error)) from error
    for keys in _key_tables(document):
        if len(keys) > KEYS_MAX:
            raise UntrustedError(
                Kind.BOUNDS, f"{what} lists {len(keys)} keys; at most {KEYS_MAX} are taken"
            )
        seen: set[bytes] = set()
        for keyid, key in keys.items():
            public = _public(what, keyid, key)
            if public in seen:
                raise UntrustedError(Kind.KEY, f"{what} lists one key twice, as {keyid} and before")
            seen.add(public)


def _key_tables(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    signed = document.get("signed")
    if isinstance(signed, Mapping):
        for holder in (signed, signed.get("delegations")):
            if isinstance(holder, Mapping) and isinstance(keys := holder.get("keys"), Mapping):
                yield keys


def _public(what: str, keyid: str, key: object) -> bytes:
    """The key itself, in the one spelling that is taken."""
    if isinstance(key, Mapping) and isinstance(value := key.get("keyval"), Mapping):
        public = value.get("public")
        named = (key.get("keytype"), key.get("scheme"))
        if isinstance(public, str):
            if named == ("ed25519", "ed25519") and (raw := _ed25519(public)):
                return raw
            p256 = named == ("ecdsa", "ecdsa-sha2-nistp256") and _HAS_CRYPTOGRAPHY
            if p256 and (raw := _p256(public)):
                return raw
    raise UntrustedError(
        Kind.KEY,
        f"{what}: key {keyid[:16]} is of a type this device does not take; use Ed25519"
        " (or ECDSA P-256 where the `fast` extra is installed)",
    )


def _ed25519(text: str) -> bytes | None:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        return None
    return raw if len(raw) == _ED25519_BYTES else None


def _p256(text: str) -> bytes | None:
    lines = text.strip().splitlines()
    if len(lines) < 3 or "PUBLIC KEY" not in lines[0] or "PUBLIC KEY" not in lines[-1]:
        return None
    try:
        raw = base64.b64decode("".join(lines[1:-1]), validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == _P256_DER_BYTES and raw.startswith(_P256_DER) else None
