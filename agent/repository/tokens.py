"""Private keys that never leave a PKCS#11 token: a YubiKey, a smart card, a network HSM, SoftHSM.

Talks to tokens through securesystemslib's HSMSigner, which needs the `hsm` extra, and the path of
the token's PKCS#11 module in the environment as PYKCS11LIB.  A key is named by a URI: its id on the
token and the token's label, as in `hsm:2?label=edge`.  Such keys are ECDSA P-256 (few tokens have
Ed25519), so devices need the `fast` extra to check them.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import HSMSigner, SSlibKey

from agent.adapters.files.durable import write_atomic
from agent.core.errors import RefusedError

SUFFIX = ".uri"
SCHEME_TAKEN = "ecdsa-sha2-nistp256"


def enrol(uri: str, pin: bytes | None) -> SSlibKey:
    """The public half of the key that `uri` names, asked of the token.

    Raises:
        RefusedError: no such token or key, a key that devices do not take, or the extra is missing.
    """
    ident, label = _parse(uri)
    with speaking(uri):
        _, key = HSMSigner.import_(ident, label, _teller(pin))
    if key.scheme != SCHEME_TAKEN:
        raise RefusedError(f"the key {uri} is {key.scheme}; devices take {SCHEME_TAKEN} of tokens")
    return key


def note(path: Path, uri: str, key: SSlibKey) -> None:
    """Remember durably which key of which token this is; nothing in the file is secret."""
    document = {"uri": uri, "keyid": key.keyid, "key": key.to_dict()}
    write_atomic(path, json.dumps(document, indent=2).encode(), mode=0o600)


def signer_of(path: Path, pin: bytes | None) -> HSMSigner:
    """What signs with the key noted in `path`.  The token is asked when something is signed.

    Raises:
        RefusedError: the note cannot be read, or the extra is missing.
    """
    try:
        document = json.loads(path.read_bytes())
        key = SSlibKey.from_dict(document["keyid"], document["key"])
        ident, label = _parse(document["uri"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RefusedError(f"{path} does not say which key of which token: {error}") from error
    with speaking(document["uri"]):
        return HSMSigner(ident, key, _teller(pin), label)


@contextmanager
def speaking(what: str) -> Iterator[None]:
    """Say in our words what tokens, and the library before them, have against it."""
    try:
        yield
    except UnsupportedLibraryError as error:
        raise RefusedError(
            f"{what} is on a PKCS#11 token: pip install 'edge-model-agent[hsm]'", 501
        ) from error
    except (ValueError, RuntimeError) as error:  # what python-pkcs11 raises are RuntimeErrors
        why = str(error) or type(error).__name__
        raise RefusedError(f"the key {what} cannot be used: {why}") from error


def _parse(uri: str) -> tuple[int, str | None]:
    parts = urlsplit(uri)
    ident = parts.path or str(HSMSigner.SCHEME_KEYID)
    if parts.scheme != HSMSigner.SCHEME or not ident.isdecimal():
        raise RefusedError(f"{uri!r} names no key of a token; write hsm:2?label=TOKEN")
    return int(ident), dict(parse_qsl(parts.query)).get("label")


def _teller(pin: bytes | None) -> Callable[[str], str]:
    def tell(what: str) -> str:
        if pin is None:
            raise RefusedError(f"the token asks for its {what}: give --pin-file")
        return pin.decode()

    return tell
