"""What documents that people write are made of: names, shares, durations; how they complain.

For manifest, configuration and desired document; what each of them holds is said there.
"""

import math
import re
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from agent.core.names import ID_PATTERN

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)$")
_ADDRESS = re.compile(r"^(\[[0-9a-fA-F:]+\]|[^:\s]+):(\d{1,5})$")
_PORT_MAX = 65535
_PLAIN = {  # where pydantic has a Python word for what stands in a document
    "tuple_type": "input should be a list",
    "dict_type": "input should be a table (in JSON: an object)",
    "model_type": "input should be a table (in JSON: an object)",
}
_UNKNOWN = "extra_forbidden"  # as pydantic calls a member that no model has
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

Name = Annotated[str, Field(pattern=ID_PATTERN)]
Count = Annotated[int, Field(ge=0, le=10**9)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


def duration_s(value: object) -> object:
    """`"10s"`, `"1.5m"`, `"200ms"` or a bare number, as seconds; anything else is left to fail."""
    if isinstance(value, str) and (found := _DURATION.match(value.strip())):
        return float(found[1]) * _UNIT_S[found[2]]
    return value


Seconds = Annotated[float, BeforeValidator(duration_s), Field(ge=0.0, le=10 * 365 * 86400.0)]


def _address(value: str) -> str:
    found = _ADDRESS.match(value)
    if not found or int(found[2]) > _PORT_MAX:
        msg = f"{value!r} is no address; write host:port, such as 127.0.0.1:8080"
        raise ValueError(msg)
    return value


Address = Annotated[str, AfterValidator(_address)]


class Part(BaseModel):
    """A part of a document whose author should hear of a typo: unknown members are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def first_complaint(error: ValidationError) -> str:
    """The first thing wrong, as `path.to.member: what is wrong with it`, and how many more.

    A name that is not known goes first: where it was misspelt, the right one is missing as well.
    """
    complaints = error.errors(include_url=False)
    first, *more = sorted(complaints, key=lambda complaint: complaint["type"] != _UNKNOWN)
    where = ".".join(str(part) for part in first["loc"]) or "document"
    text = _PLAIN.get(first["type"], first["msg"].removeprefix("Value error, "))
    if first["type"] == _UNKNOWN:
        text = "there is no such name here"
    tail = f" (and {len(more)} more)" if more else ""
    return f"{where}: {text[0].lower()}{text[1:]}{tail}"


def finite(value: float) -> float | None:
    """`value`, or None where JSON has no word for it (NaN, infinities)."""
    return value if math.isfinite(value) else None
