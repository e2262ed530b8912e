"""The nouns every other module speaks in."""

import re
from dataclasses import dataclass
from typing import NewType

Digest = NewType("Digest", str)  # "sha256:<64 hex>"

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"  # interface.md §1: device, group, model, stream
FILE_PATTERN = (
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"  # packages are flat: no separators, no dots first
)
_ID = re.compile(ID_PATTERN)
_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")


def is_id(text: str) -> bool:
    """Whether `text` may name a device, group, model or stream: stand in topics and paths."""
    return _ID.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Whether `text` is `sha256:` and 64 lower-case hexadecimal digits."""
    return _DIGEST.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, order=True)
class ModelRef:
    """One release of one model; `digest` pins its exact bytes (every file of the package)."""

    name: str
    release: int
    digest: Digest

    def __str__(self) -> str:
        return f"{self.name}:{self.release}"
