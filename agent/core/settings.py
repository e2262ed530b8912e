"""Settings out of the environment's names: `SECTION__KEY` into nested tables.  Pure."""

import json
from collections.abc import Mapping
from typing import Any


def overlay(document: dict[str, Any], environ: Mapping[str, str], prefix: str) -> None:
    """Put every variable whose name begins with `prefix` over its key in `document`.

    Lists and tables are JSON; everything else is taken as text, and converted by its field.
    """
    for name, value in environ.items():
        if name.startswith(prefix):
            _put(document, name.removeprefix(prefix).lower().split("__"), value)


def _put(document: dict[str, Any], where: list[str], value: str) -> None:
    for part in where[:-1]:
        inner = document.setdefault(part, {})
        if not isinstance(inner, dict):
            return
        document = inner
    document[where[-1]] = _value(value)


def _value(text: str) -> Any:
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text
