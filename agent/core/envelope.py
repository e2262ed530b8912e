"""What is signed of a receipt, byte for byte, so that anybody can check it without this agent.

The receipt is put as canonical JSON (RFC 8785: sorted keys, no blanks, numbers as ECMAScript writes
them) into the pre-authentication encoding of DSSE, which says what it is: a key that is used
elsewhere too, such as for TLS, can then never be made to sign one thing for another.

An envelope is `{"receipt": {…}, "signature": {"keyid", "scheme", "sig"} or null}`.  Pure; keys and
their files are elsewhere.
"""

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from agent.core.errors import RefusedError

KIND = "application/vnd.edge-agent.receipt+json"
PLAIN_MIN, PLAIN_MAX = 1e-6, 1e21  # between them ECMAScript writes no exponent


def signed_bytes(receipt: Mapping[str, Any]) -> bytes:
    """What the signature of `receipt` is over.  Raises RefusedError as `canonical` does."""
    body = canonical(receipt)
    return b"DSSEv1 %d %s %d %s" % (len(KIND), KIND.encode(), len(body), body)


def canonical(value: object) -> bytes:
    """`value` as RFC 8785 has it.

    Raises:
        RefusedError: there is something in it that has no such form: a number that is no finite
            IEEE 754 double, half a character, or what JSON does not know.
    """
    try:
        return _text(value).encode()
    except (UnicodeEncodeError, RecursionError) as error:
        raise RefusedError(f"it has no canonical form: {type(error).__name__}") from error


def plain(value: object) -> Any:
    """`value` with only what has a canonical form: numbers JSON lacks become null."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return value if _is_double(value) else None
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return plain(str(value))


def _text(value: object) -> str:
    if value is None or isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int | float) and _is_double(value):
        return _number(float(value))
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_text, value)) + "]"
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{_text(key)}:{_text(value[key])}" for key in keys) + "}"
    raise RefusedError(f"{str(value)[:60]!r} has no canonical form")


def _is_double(value: float) -> bool:
    try:
        return math.isfinite(float(value))  # a whole one is read as a double, as ECMAScript does
    except OverflowError:
        return False


def _number(value: float) -> str:
    """As ECMAScript writes it; the digits are Python's own, which are the same: the fewest."""
    if value == 0:
        return "0"
    if PLAIN_MIN <= abs(value) < PLAIN_MAX:
        text = format(Decimal(repr(value)), "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    return re.sub(r"(\.0)?e([+-])0*", r"e\2", repr(value))
