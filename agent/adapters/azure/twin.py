"""The native documents in a twin's clothes.  Pure."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from agent.core.mirrors import Mirror

SECTION_BYTES_MAX = 32 * 1024  # desired and reported, each
_MIRROR = Mirror(text_bytes_max=4096, depth_max=10, escapes=True)


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


def reported_section(document: Mapping[str, Any]) -> dict[str, Any]:
    """The native reported document as the twin's reported properties."""
    return _MIRROR.image(document, SECTION_BYTES_MAX)
