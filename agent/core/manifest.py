"""What a model version is, needs and promises: `model.toml`, parsed and checked (interface.md §4).

The manifest says nothing of its own identity beyond its name: release, version and digest come from
the repository's metadata, which is what is trusted.  Unknown members are refused here, unlike in
documents from the wire: an author's typo should be heard.
"""

import tomllib
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from agent.core.accelerators import PROVIDERS
from agent.core.bars import Bars
from agent.core.errors import UnfitError
from agent.core.fields import Name, Part, Seconds, duration_s, first_complaint
from agent.core.names import FILE_PATTERN

MANIFEST = "model.toml"
MANIFEST_BYTES_MAX = 256 * 1024
FEATURES_MAX = 4096
WINDOW_READINGS_MAX = 1_000_000


class Scale(Part):
    """z = (x - mean) / std, per feature, before the model sees it."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @field_validator("std")
    @classmethod
    def _not_zero(cls, std: tuple[float, ...]) -> tuple[float, ...]:
        if any(s <= 0 for s in std):
            msg = "every std must be above 0"
            raise ValueError(msg)
        return std


Missing = Literal["hold", "nan", "reject"] | float
Rate = Annotated[float, Field(gt=0.0, le=1e9)]


class Features(Part):
    """What the model wants of a reading, in input order.

    `missing`: `hold` (the sensor's last value; a reading with none yet is rejected), `nan` (passed
    on), `reject`, or a number; one policy for all, or one per feature.

    `rates`: how often one sensor should send each, in Hz; a stream that does not is refused before
    anything is fetched (`contract`).
    """

    names: Annotated[tuple[str, ...], Field(min_length=1, max_length=FEATURES_MAX)]
    units: tuple[str, ...] | None = None
    ranges: tuple[tuple[float, float], ...] | None = None
    rates: tuple[Rate, ...] | None = None
    missing: Missing | tuple[Missing, ...] = "hold"
    scale: Scale | None = None

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        n = len(self.names)
        if len(set(self.names)) != n:
            msg = "names has a name twice"
            raise ValueError(msg)
        parts: dict[str, Any] = {
            "units": self.units,
            "ranges": self.ranges,
            "rates": self.rates,
        }
        if isinstance(self.missing, tuple):
            parts["missing"] = self.missing
        if self.scale is not None:
            parts |= {"scale.mean": self.scale.mean, "scale.std": self.scale.std}
        for what, values in parts.items():
            if values is not None and len(values) != n:
                msg = f"{what} has {len(values)} entries for {n} names"
                raise ValueError(msg)
        for name, (low, high) in zip(self.names, self.ranges or (), strict=False):
            if low >= high:
                msg = f"the range of {name} is empty: {low} to {high}"
                raise ValueError(msg)
        return self

    @property
    def missing_each(self) -> tuple[Missing, ...]:
        """One policy per feature."""
        if isinstance(self.missing, tuple):
            return self.missing
        return (self.missing,) * len(self.names)


class Span(Part):
    """So many readings, or so much event time: exactly one of the two is set."""

    readings: Annotated[int, Field(ge=1, le=WINDOW_READINGS_MAX)] | None = None
    seconds: Annotated[float, Field(gt=0.0)] | None = None


def _span(value: object) -> object:
    """`"64"` or 64: readings; `"10s"`: event time."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return {"readings": value}
    if isinstance(value, str):
        if value.strip().isdecimal():
            return {"readings": int(value)}
        if isinstance(seconds := duration_s(value), float):
            return {"seconds": seconds}
        msg = f"{value!r} is neither a number of readings nor a duration such as '10s'"
        raise ValueError(msg)
    return value


SpanField = Annotated[Span, BeforeValidator(_span)]


class Window(Part):
    """A span of one sensor's readings that is scored together.

    tumbling  spans of `size` that touch and do not overlap
    sliding   spans of `size`, one each `step`
    count     as tumbling, by readings; kept as a word users know
    session   readings with no gap above `gap`, closed by silence or at `size`

    A span in event time holds a varying number of readings: `rows` says how many the model takes;
    the newest `rows` are kept and missing ones are filled by repeating the oldest.
    """

    kind: Literal["tumbling", "sliding", "session", "count"]
    size: SpanField
    step: SpanField | None = None
    gap: Seconds | None = None
    rows: Annotated[int, Field(ge=1, le=WINDOW_READINGS_MAX)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind == "session" and self.gap is None:
            msg = "a session window needs gap, such as '30s'"
            raise ValueError(msg)
        if self.kind == "count" and self.size.readings is None:
            msg = "a count window has its size in readings"
            raise ValueError(msg)
        if self.kind == "sliding" and self.step is None:
            msg = "a sliding window needs step"
            raise ValueError(msg)
        if self.step is not None and (self.step.readings is None) != (self.size.readings is None):
            msg = "size and step must both be readings or both be durations"
            raise ValueError(msg)
        if self.rows is None and (self.size.readings is None or self.kind == "session"):
            msg = "this window holds a varying number of readings: say how many (rows)"
            raise ValueError(msg)
        return self

    @property
    def length(self) -> int:
        """Rows the model sees per window."""
        if self.rows is not None:
            return self.rows
        assert self.size.readings is not None
        return self.size.readings


class TensorInput(Part):
    """One input tensor: which features it is made of, in order, and its element type."""

    features: tuple[str, ...] | None = None
    dtype: Literal[
        "float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "bool"
    ] = "float32"


class Score(Part):
    """Which output is the score; `column` picks one of several; at or above `threshold` alarms."""

    tensor: str
    column: int | None = None
    threshold: float | None = None


class Label(Part):
    """Which output is the class, and what the classes are called."""

    tensor: str
    names: tuple[str, ...] | None = None


class Output(Part):
    """How output tensors become score rows."""

    score: Score
    label: Label | None = None


class Runtime(Part):
    """What the version needs of the device."""

    providers: tuple[str, ...] = ("cpu",)
    require: str = "any"
    memory: Literal["roomy", "tight"] = "roomy"
    memory_mb: Annotated[float, Field(gt=0, le=1_048_576)] | None = None
    latency_ms_p99: Annotated[float, Field(gt=0)] | None = None
    threads: Annotated[int, Field(ge=1, le=256)] = 1

    @field_validator("providers")
    @classmethod
    def _known(cls, providers: tuple[str, ...]) -> tuple[str, ...]:
        for name in providers:
            if name not in (*PROVIDERS, "auto"):
                msg = f"unknown provider {name!r}; known are {', '.join(PROVIDERS)}"
                raise ValueError(msg)
        return providers

    @field_validator("require")
    @classmethod
    def _requires(cls, require: str) -> str:
        if require not in ("any", "accelerated", *PROVIDERS):
            msg = f"require is 'any', 'accelerated' or a provider, not {require!r}"
            raise ValueError(msg)
        return require


class Golden(Part):
    """Samples whose outputs the version must reproduce: |got - want| ≤ atol + rtol·|want|."""

    file: Annotated[str, Field(pattern=FILE_PATTERN)] = "golden.npz"
    rtol: Annotated[float, Field(ge=0)] = 1e-3
    atol: Annotated[float, Field(ge=0)] = 1e-4


class Manifest(Part):
    """One `model.toml`, whole and checked."""

    name: Name
    description: str = ""
    tags: dict[str, str] = Field(default_factory=dict)
    features: Features
    window: Window | None = None
    input: dict[str, TensorInput] | None = None
    layout: Literal["rows", "columns"] = "rows"
    state: dict[str, str] = Field(default_factory=dict)
    output: Output
    runtime: Runtime = Runtime()
    golden: Golden = Golden()
    rollout: Bars = Bars()

    @model_validator(mode="before")
    @classmethod
    def _layout_in_input(cls, raw: object) -> object:
        """`[input] layout = "columns"` is how authors write it; it is no tensor."""
        if (
            isinstance(raw, dict)
            and isinstance(raw.get("input"), dict)
            and "layout" in raw["input"]
        ):
            tensors = {k: v for k, v in raw["input"].items() if k != "layout"}
            return {**raw, "layout": raw["input"]["layout"], "input": tensors or None}
        return raw

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for tensor, spec in (self.input or {}).items():
            for feature in spec.features or ():
                if feature not in self.features.names:
                    msg = (
                        f"input {tensor} wants the feature {feature!r}, which features.names lacks"
                    )
                    raise ValueError(msg)
        if self.layout == "columns" and self.window is not None:
            msg = "layout 'columns' has one scalar tensor per feature and takes no window"
            raise ValueError(msg)
        return self


def parse(raw: bytes) -> Manifest:
    """The manifest in `raw` (`model.toml`).

    Raises:
        UnfitError: it is no TOML, or says something a manifest cannot; the text names the member.
    """
    if len(raw) > MANIFEST_BYTES_MAX:
        msg = f"model.toml has {len(raw)} bytes; at most {MANIFEST_BYTES_MAX} are read"
        raise UnfitError(msg)
    try:
        document = tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:  # of syntax, of text, of a number too long
        msg = f"model.toml is not TOML: {error}"
        raise UnfitError(msg) from error
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        raise UnfitError(f"model.toml: {first_complaint(error)}") from error
