"""JSON that came from outside, read strictly: one text, one meaning, bounded cost.

Python's own reader takes NaN, overflowing numbers, duplicate keys (the last wins) and lone
surrogates; two readers of such a document may see two different wishes.  Here they are refused.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

from agent.core.errors import RefusedError

DEPTH_MAX = 32
NUMBER_DIGITS_MAX = 64


def read_object(raw: bytes, what: str, *, bytes_max: int) -> dict[str, Any]:
    """The JSON object in `raw`; `what` names the document in the sentence of a refusal.

    Raises:
        RefusedError: 413 if it is longer than `bytes_max`, else 400: not UTF-8, not JSON, not an
            object, a key twice, a number JSON has no word for, text that is no Unicode, too deep.
    """
    if len(raw) > bytes_max:
        raise RefusedError(f"{what} has {len(raw)} bytes; at most {bytes_max} are read", 413)
    try:
        document = json.loads(
            raw.decode(),
            object_pairs_hook=_pairs,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_int,
        )
    except UnicodeDecodeError as error:
        raise RefusedError(f"{what} is not UTF-8: {error.reason} at byte {error.start}") from error
    except RecursionError as error:
        raise RefusedError(_too_deep(what)) from error
    except ValueError as error:
        raise RefusedError(f"{what} is not JSON we take: {error}") from error
    if not isinstance(document, dict):
        raise RefusedError(f"{what} is a JSON {_kind(document)}; an object is wanted")
    _walk(document, what)
    return document


def _pairs(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        msg = f"the key {twice!r} is there twice"
        raise ValueError(msg)
    return document


def _constant(text: str) -> Any:
    msg = f"{text} is no number"
    raise ValueError(msg)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        msg = f"the number {text[:NUMBER_DIGITS_MAX]} is too large"
        raise ValueError(msg)
    return value


def _int(text: str) -> int:
    if len(text) > NUMBER_DIGITS_MAX:
        msg = f"a number has {len(text)} digits"
        raise ValueError(msg)
    return int(text)


def _walk(document: dict[str, Any], what: str) -> None:
    """Depth and text, without recursion of our own."""
    level: list[Any] = [document]
    for _ in range(DEPTH_MAX):
        below: list[Any] = []
        for value in level:
            if isinstance(value, str):
                _check_text(value, what)
            elif isinstance(value, dict):
                below.extend(value)
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
        if not below:
            return
        level = below
    raise RefusedError(_too_deep(what))


def _check_text(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RefusedError(f"{what} has half a character (a lone surrogate) in a string") from error


def _too_deep(what: str) -> str:
    return f"{what} is nested too deep; at most {DEPTH_MAX} levels are read"


def _kind(value: object) -> str:
    if value is None:
        return "null"
    kinds = {list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return kinds[type(value)]
