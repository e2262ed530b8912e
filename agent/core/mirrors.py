"""Documents that a control plane keeps a copy of: merge patches, and how to fit into its limits.

Twins and shadows are both of this kind: members are merged, and a null takes one out.  Pure.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

INTEGER_MAX = 4503599627370495  # exact in every plane
_UNFIT = re.compile(r"[.$ %\x00-\x1f\x7f-\x9f]")  # in a twin's key; and what we escape with

Json = dict[str, Any]


def merge(document: Mapping[str, Any], patch: Mapping[str, Any]) -> Json:
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


def size_of(document: Mapping[str, Any]) -> int:
    """An upper bound of what a plane counts: keys and values."""
    return len(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())


def escaped(key: str) -> str:
    """A key without what a twin does not take; `urllib.parse.unquote` gives it back."""
    return _UNFIT.sub(lambda found: "".join(f"%{b:02X}" for b in found[0].encode()), key)


@dataclass(frozen=True, slots=True)
class Mirror:
    """What a plane takes of one document.

    escapes  whether keys are escaped; else they are taken as they are
    """

    text_bytes_max: int
    depth_max: int
    escapes: bool

    def image(self, document: Mapping[str, Any], bytes_max: int) -> Json:
        """The native reported document as the plane takes it.

        Nulls are left out, for there they mean "delete"; long texts are cut; what is too deep
        becomes a text.  What does not fit is left out, the least needed first, and named in
        `left_out`.
        """
        image: Json = self._fit(document, 1)
        left_out: list[str] = []
        for name, shed in _SHEDDING:
            if size_of(image) <= bytes_max:
                break
            shed(image)
            left_out.append(name)
            image["left_out"] = left_out
        while size_of(image) > bytes_max and image.get("models"):
            image["models"].popitem()
            image["left_out"] = [*left_out, "models"]
        return image

    def _fit(self, value: Any, depth: int) -> Any:
        if isinstance(value, Mapping):
            if depth >= self.depth_max:
                return self._cut(json.dumps(value, ensure_ascii=False))
            name = escaped if self.escapes else str
            return {name(k): self._fit(v, depth + 1) for k, v in value.items() if v is not None}
        if isinstance(value, list | tuple):
            return [self._fit(item, depth + 1) for item in value if item is not None]
        if isinstance(value, str):
            return self._cut(value)
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > INTEGER_MAX:
            return float(value)
        return value

    def _cut(self, text: str) -> str:
        raw = text.encode()
        if len(raw) <= self.text_bytes_max:
            return text
        return raw[: self.text_bytes_max - 4].decode("utf-8", "ignore") + "…"


def _of_models(*members: str) -> Callable[[Json], None]:
    def shed(image: Json) -> None:
        for model in image.get("models", {}).values():
            for member in members:
                model.pop(member, None)

    return shed


def _streams(image: Json) -> None:
    image.pop("streams", None)


FIGURES = ("latency_ms", "last_score", "rss_mb", "swaps", "rollbacks", "worker_deaths", "next_seq")
_SHEDDING: tuple[tuple[str, Callable[[Json], None]], ...] = (
    ("receipt", _of_models("receipt")),
    ("last_reject", _of_models("last_reject")),
    ("streams", _streams),
    ("quarantined", _of_models("quarantined")),
    ("figures", _of_models(*FIGURES)),
    ("known_good", _of_models("known_good")),
)
