"""The twin: merge patches, its limits, and the native documents in its clothes.  Pure."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

SECTION_BYTES_MAX = 32 * 1024  # desired and reported, each
TEXT_BYTES_MAX = 4096
DEPTH_MAX = 10
INTEGER_MAX = 4503599627370495
_UNFIT = re.compile(r"[.$ %\x00-\x1f\x7f-\x9f]")  # in a key; and what we escape with

Json = dict[str, Any]


def merge(document: Json, patch: Mapping[str, Any]) -> Json:
    """`document` with `patch` merged in: nulls take members out, objects merge by member."""
    merged = dict(document)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            before = merged.get(key)
            merged[key] = merge(before if isinstance(before, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> Json:
    """The patch that makes `after` of `before`; empty if they are the same."""
    patch: Json = {key: None for key in before if key not in after}
    for key, value in after.items():
        was = before.get(key)
        if isinstance(value, Mapping) and isinstance(was, Mapping):
            if inner := difference(was, value):
                patch[key] = inner
        elif value != was or type(value) is not type(was) or key not in before:
            patch[key] = value
    return patch


def desired_document(section: Mapping[str, Any]) -> bytes | None:
    """The native desired document in the twin's desired properties; None if none was ever wished.

    Names are unescaped.  Metadata may be a list of texts, since the twin's are short.  A revision
    is the twin's own version where the wish has none.
    """
    if "models" not in section:
        return None
    document = {k: v for k, v in section.items() if not k.startswith("$")}
    document.setdefault("schema", 1)
    document.setdefault("revision", section.get("$version", 0))
    if isinstance(document["models"], Mapping):
        document["models"] = {unquote(k): v for k, v in document["models"].items()}
    pieces = document.get("metadata")
    if isinstance(pieces, list) and all(isinstance(piece, str) for piece in pieces):
        document["metadata"] = "".join(pieces)
    return json.dumps(document, ensure_ascii=False, sort_keys=True).encode()


def reported_section(document: Mapping[str, Any], bytes_max: int = SECTION_BYTES_MAX) -> Json:
    """The native reported document as the twin's reported properties.

    Nulls are left out, for there they mean "delete"; keys are escaped; long texts are cut.  What
    does not fit is left out, the least needed first, and named in `left_out`.
    """
    section: Json = _fit(document, 1)
    left_out: list[str] = []
    for name, shed in _SHEDDING:
        if size_of(section) <= bytes_max:
            break
        shed(section)
        left_out.append(name)
        section["left_out"] = left_out
    while size_of(section) > bytes_max and section.get("models"):
        section["models"].popitem()
        section["left_out"] = [*left_out, "models"]
    return section


def size_of(section: Mapping[str, Any]) -> int:
    """An upper bound of what the hub counts: keys and values."""
    return len(json.dumps(section, ensure_ascii=False, separators=(",", ":")).encode())


def escaped(key: str) -> str:
    """A key as the twin takes it."""
    return _UNFIT.sub(lambda found: "".join(f"%{b:02X}" for b in found[0].encode()), key)


def _fit(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping):
        if depth >= DEPTH_MAX:
            return _cut(json.dumps(value, ensure_ascii=False))
        return {escaped(k): _fit(v, depth + 1) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_fit(item, depth + 1) for item in value if item is not None]
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > INTEGER_MAX:
        return float(value)
    return value


def _cut(text: str) -> str:
    raw = text.encode()
    if len(raw) <= TEXT_BYTES_MAX:
        return text
    return raw[: TEXT_BYTES_MAX - 4].decode("utf-8", "ignore") + "…"


def _of_models(*members: str) -> Callable[[Json], None]:
    def shed(section: Json) -> None:
        for model in section.get("models", {}).values():
            for member in members:
                model.pop(member, None)

    return shed


def _streams(section: Json) -> None:
    section.pop("streams", None)


_SHEDDING: tuple[tuple[str, Callable[[Json], None]], ...] = (
    ("receipt", _of_models("receipt")),
    ("last_reject", _of_models("last_reject")),
    ("streams", _streams),
    ("quarantined", _of_models("quarantined")),
    (
        "figures",
        _of_models(
            "latency_ms", "last_score", "rss_mb", "swaps", "rollbacks", "worker_deaths", "next_seq"
        ),
    ),
    ("known_good", _of_models("known_good")),
)
