"""Settings out of the environment's names: `SECTION__KEY` into nested tables.  Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from agent.core.errors import RefusedError


def overlay(document: dict[str, Any], environ: Mapping[str, str], prefix: str) -> None:
    """Put every variable whose name begins with `prefix` over its key in `document`.

    Lists and tables are JSON; everything else is taken as text, and converted by its field.

    Raises:
        RefusedError: a variable names a key within a list.
    """
    for name, value in environ.items():
        if name.startswith(prefix):
            try:
                _put(document, _path(name, prefix), value)
            except TypeError as error:
                why = f"{name}: {error} is no table; set it whole, lists as JSON"
                raise RefusedError(why) from error


def setter(where: Sequence[str], environ: Mapping[str, str], prefix: str) -> str:
    """The variable that has set the key at `where`, or a table around it; "" if none has."""
    for name in environ:
        if name.startswith(prefix) and (path := _path(name, prefix)) == list(where[: len(path)]):
            return name
    return ""


def _path(name: str, prefix: str) -> list[str]:
    return name.removeprefix(prefix).lower().split("__")


def _put(document: dict[str, Any], where: list[str], value: str) -> None:
    for part in where[:-1]:
        inner = document.setdefault(part, {})
        if not isinstance(inner, dict):
            raise TypeError(part)
        document = inner
    document[where[-1]] = _value(value)


def _value(text: str) -> Any:
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except (json.JSONDecodeError, RecursionError):
            return text
    return text
