"""Answers as text and JSON, which no report can break however odd the text in it."""

import json
from typing import Any

import orjson
from starlette.responses import Response


def say(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    """One line of plain text."""
    body = sentence.encode("utf-8", "replace") + b"\n"
    return Response(body, status, headers, "text/plain")


def refuse(path: str, status: int, why: str, headers: dict[str, str] | None = None) -> Response:
    """`why` as a line of text; under /v2 as the Open Inference Protocol has its errors."""
    if not path.startswith("/v2"):
        return say(status, why, headers)
    return Response(encode({"error": why}), status, headers, "application/json")


def encode(document: dict[str, Any]) -> bytes:
    """`document` as JSON; numbers that JSON lacks become null, what it does not know its text."""
    try:
        return orjson.dumps(document, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # half a surrogate pair, out of a file name for instance: escaped
        return json.dumps(document, default=str).encode("ascii")
