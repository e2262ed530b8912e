"""The documents that travel over MQTT, and the topics they travel on (interface.md §5).

Pure: bytes in, values out, and back.  What the documents mean is decided elsewhere.  Documents from
outside are read strictly where two readers could disagree, and leniently where a newer control
plane may know more than this agent: unknown members are ignored.

The reported document is `core.health.HealthReport.document`; scores are written by the data plane.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from agent.core.bars import Bars
from agent.core.enclosed import pack_metadata, unpack_metadata, version_of
from agent.core.errors import RefusedError
from agent.core.fields import Name, first_complaint
from agent.core.names import is_id
from agent.core.strict import read_object
from agent.core.topics import Topics

__all__ = [
    "COMMANDS",
    "Command",
    "Desired",
    "DesiredModel",
    "Topics",
    "answer",
    "apply_bars",
    "command",
    "command_id",
    "event",
    "overlay",
    "pack_metadata",
    "parse_command",
    "parse_desired",
    "status",
    "unknown_bars",
    "unpack_metadata",
]

SCHEMA = 1
DESIRED_BYTES_MAX = 256 * 1024
COMMAND_BYTES_MAX = 256 * 1024
MODELS_MAX = 256  # in one desired document
EVENT_TYPES = ("swap", "rollback", "refusal", "gap", "degraded", "recovered", "breach", "trust")

# What each command must be given.  `score` takes `inputs` as well, which its engine checks.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "ping": (),
    "rollback": ("model",),
    "retry": ("model",),
    "pause": ("stream",),
    "resume": ("stream",),
    "score": ("model",),
    "diagnostics": (),
}
_MS_FROM = 1e11  # as seconds this is the year 5138; whoever writes more means milliseconds


# ---- desired -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DesiredModel:
    """One wish: this release, on this stream (None: the one the device has for it), these bars."""

    release: int
    stream: str | None = None
    rollout: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Desired:
    """All that should run, whole; `metadata` is the signed bundle by file name, if it came."""

    revision: int
    models: Mapping[str, DesiredModel]
    metadata: Mapping[str, bytes] | None = None


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    release: Annotated[StrictInt, Field(ge=0, lt=2**53)]
    stream: Name | None = None
    rollout: dict[str, Any] = {}


class _Desired(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    revision: Annotated[StrictInt, Field(ge=0, lt=2**53)]
    models: Annotated[dict[Name, _Model], Field(max_length=MODELS_MAX)]
    metadata: StrictStr | None = None


def parse_desired(raw: bytes) -> Desired:
    """The desired document in `raw`.

    Raises:
        RefusedError: it cannot be taken; 413 if it is too large, else 400 and a sentence that
            names the member.
    """
    document = read_object(raw, "the desired document", bytes_max=DESIRED_BYTES_MAX)
    _check_schema(document, "the desired document")
    try:
        wish = _Desired.model_validate(document)
    except ValidationError as error:
        raise RefusedError(f"desired: {first_complaint(error)}") from error
    for name, model in wish.models.items():
        try:
            apply_bars(Bars(), model.rollout)
        except RefusedError as error:
            raise RefusedError(f"desired: models.{name}.{error}", error.code) from error
    return Desired(
        revision=wish.revision,
        models={
            name: DesiredModel(model.release, model.stream, model.rollout)
            for name, model in wish.models.items()
        },
        metadata=None if wish.metadata is None else unpack_metadata(wish.metadata),
    )


def overlay(groups: Sequence[Desired], own: Desired | None) -> Desired:
    """What the device should run: its groups' wishes, overlaid model by model by its own.

    Of two groups that name the same model the later wins.  The revision is the device's own, else
    the highest of the groups.  Of several metadata bundles the newest is taken, so that an old
    document of the device's own does not hide what a group's document came with.
    """
    wishes = [*groups, *([own] if own is not None else [])]
    models: dict[str, DesiredModel] = {}
    for wish in wishes:
        models.update(wish.models)
    bundles = [wish.metadata for wish in reversed(wishes) if wish.metadata is not None]
    if own is not None:
        revision = own.revision
    else:
        revision = max((wish.revision for wish in groups), default=0)
    return Desired(revision, models, max(bundles, key=version_of, default=None))


def apply_bars(bars: Bars, overrides: Mapping[str, Any]) -> Bars:
    """`bars` with the members of `overrides` put over them, e.g. {"shadow": {"windows": 50}}.

    Members that no bar has are ignored; `unknown_bars` finds them.

    Raises:
        RefusedError: a member says what a bar cannot; the text names it.
    """
    merged = bars.model_dump()
    for part, values in overrides.items():
        if part not in merged:
            continue
        if not isinstance(values, Mapping):
            raise RefusedError(f"rollout.{part}: an object such as {{'windows': 50}} is wanted")
        merged[part].update({k: v for k, v in values.items() if k in merged[part]})
    try:
        return Bars.model_validate(merged, strict=True)
    except ValidationError as error:
        raise RefusedError(f"rollout.{first_complaint(error)}") from error


def unknown_bars(overrides: Mapping[str, Any]) -> list[str]:
    """The members of `overrides` that no bar has, as `shadow.windwos`: an operator's typos."""
    known = Bars().model_dump()
    unknown = [part for part in overrides if part not in known]
    for part, values in overrides.items():
        if part in known and isinstance(values, Mapping):
            unknown += [f"{part}.{key}" for key in values if key not in known[part]]
    return unknown


# ---- commands ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Command:
    """One command; `expires` in seconds since 1970-01-01 UTC."""

    id: str
    name: str
    args: Mapping[str, Any]
    expires: float


def parse_command(name: str, raw: bytes, now: float) -> Command:
    """The command `name` (the last level of its topic) with body `raw`; `now` in wall seconds.

    Raises:
        RefusedError: 404 unknown, 410 expired, 413 too large, else 400 and a sentence.
    """
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        raise RefusedError(f"{name[:64]!r} is no command; known are {known}", 404)
    document = read_object(raw, f"the command {name}", bytes_max=COMMAND_BYTES_MAX)
    _check_schema(document, f"the command {name}")
    ident = document.get("id")
    if not isinstance(ident, str) or not is_id(ident):
        raise RefusedError(f"{name}: id is missing or no id; letters, digits, . _ - and at most 64")
    expires = _wall_s(document.get("expires"))
    if expires is None:
        raise RefusedError(f"{name}: expires is missing; write seconds since 1970, or ISO 8601")
    if expires <= now:
        raise RefusedError(f"{name}: expired {now - expires:.0f} s ago by this device's clock", 410)
    args = document.get("args", {})
    if not isinstance(args, dict):
        raise RefusedError(f"{name}: args must be an object")
    for need in COMMANDS[name]:
        value = args.get(need)
        if not isinstance(value, str) or not is_id(value):
            raise RefusedError(f"{name}: args.{need} is missing or no name")
    return Command(ident, name, args, expires)


def command(id: str, expires: float, args: Mapping[str, Any]) -> bytes:  # noqa: A002
    """The body of a command; `expires` in seconds since 1970-01-01 UTC."""
    return _encode({"schema": SCHEMA, "id": id, "expires": round(expires, 3), "args": args})


def command_id(raw: bytes) -> str:
    """The id of a command, if it has one that can be answered to, even when it is refused."""
    try:
        ident = read_object(raw, "the command", bytes_max=COMMAND_BYTES_MAX).get("id")
    except RefusedError:
        return ""
    return ident if isinstance(ident, str) and is_id(ident) else ""


def answer(id: str, *, code: int = 200, why: str = "", **result: Any) -> bytes:  # noqa: A002
    """What a command came to: `code` as HTTP would say it, a sentence if it failed, and figures."""
    return _encode({"schema": SCHEMA, "id": id, "code": code, "why": why, **result})


# ---- what we say ---------------------------------------------------------------------------------


def status(*, online: bool, since: str = "", agent: str = "") -> bytes:
    """The status document; offline, which is also the will, says nothing but that."""
    if not online:
        return _encode({"schema": SCHEMA, "online": False})
    return _encode({"schema": SCHEMA, "online": True, "since": since, "agent": agent})


def event(type: str, *, now_iso: str, model: str, why: str, **more: Any) -> bytes:  # noqa: A002
    """One event; `more` joins it as it stands (a receipt, a gap), numbers JSON lacks as null."""
    assert type in EVENT_TYPES, f"unknown event type {type}"
    document = {"schema": SCHEMA, "type": type, "time": now_iso, "model": model, "why": why}
    return _encode({**more, **document})


# ---- parts ---------------------------------------------------------------------------------------


def _check_schema(document: Mapping[str, Any], what: str) -> None:
    schema = document.get("schema", SCHEMA)
    if schema != SCHEMA or isinstance(schema, bool):
        raise RefusedError(f"{what} has schema {schema!r}; this agent reads schema {SCHEMA}")


def _wall_s(value: object) -> float | None:
    """Seconds since 1970 out of a number (s or ms) or ISO 8601 text; None if it is neither."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value / 1000 if value > _MS_FROM else float(value)
    if isinstance(value, str):
        try:
            when = datetime.fromisoformat(value)
            return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return None
    return None


def _encode(document: Mapping[str, Any]) -> bytes:
    return json.dumps(
        _speakable(document), ensure_ascii=False, separators=(",", ":"), allow_nan=False
    ).encode()


def _speakable(value: Any) -> Any:
    """`value` without the numbers that JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _speakable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_speakable(v) for v in value]
    return value
