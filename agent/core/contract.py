"""Whether a stream carries what a model wants: its manifest held against what was seen.

Asked before any weights are fetched.  A refusal is about what cannot work: a field that is on no
reading, text where a number should be, another unit, ten times too slow.  What may still work is a
warning, and so is everything as long as too little was seen to be sure.
"""

import math
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

from agent.core.manifest import Manifest
from agent.core.survey import FieldSeen, Seen

SAMPLES_LEAST = 30  # below, nothing is refused: a share of 0.25 may be 0.1 as well
OUTSIDE_MAX = 0.25  # of its numbers outside of its range: it is not what the model knows
FAILED_MAX = 0.5
WORTH_SAYING = 0.01
RATE_RATIO_MAX = 2.0  # between wanted and seen: refused
RATE_RATIO_SAID = 1.25
_NAMES_SHOWN = 8
_UNITS = {
    **dict.fromkeys(("c", "degc", "°c", "celsius", "cel"), "°c"),
    **dict.fromkeys(("f", "degf", "°f", "fahrenheit"), "°f"),
    **dict.fromkeys(("%", "percent", "pct"), "%"),
}


@dataclass(slots=True)
class Findings:
    """Sentences: what forbids the model on this stream, and what is worth knowing."""

    refusals: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check(manifest: Manifest, seen: Seen) -> Findings:
    """What speaks against `manifest` on the stream that `seen` is of."""
    held = _Held(manifest, seen)
    held.units()
    if seen.samples:
        held.fields()
        held.findings.warnings += _window(manifest, seen)
        return held.findings
    why = "nothing seen yet"
    if seen.readings:
        why = f"{seen.readings} readings came and none could be looked into"
    held.warn(f"stream {seen.spec.name}: {why}, so the model is taken at its word")
    return held.findings


@dataclass(slots=True)
class _Held:
    """One manifest held against one stream, feature by feature."""

    manifest: Manifest
    seen: Seen
    findings: Findings = field(default_factory=Findings)

    def warn(self, sentence: str) -> None:
        self.findings.warnings.append(sentence)

    def refuse(self, sentence: str) -> None:
        """As far as enough was seen for that."""
        if self.seen.samples >= SAMPLES_LEAST:
            self.findings.refusals.append(sentence)
        else:
            few = f"of {self.seen.samples} readings looked into: too few to refuse it for"
            self.warn(f"{sentence} ({few})")

    def units(self) -> None:
        """What is declared needs no reading."""
        features, spec = self.manifest.features, self.seen.spec
        for name, wants in zip(features.names, features.units or (), strict=False):
            has = spec.units.get(name, "")
            if has and wants and _unit(has) != _unit(wants):
                self.findings.refusals.append(
                    f"feature {name} is wanted in {wants}, and the stream {spec.name} has it in"
                    f" {has}"
                )

    def fields(self) -> None:
        for i, name in enumerate(self.manifest.features.names):
            found = self.seen.fields.get(self.seen.spec.fields.get(name, name))
            if found is None:
                self._absent(i)
                continue
            self._typed(name, found)
            if len(found.values):
                self._missing(i, found)
                self._range(i, found)
                self._rate(i, found)

    def _absent(self, i: int) -> None:
        features = self.manifest.features
        name, policy = features.names[i], features.missing_each[i]
        has = listed(carried(self.seen)) or "nothing"
        stream = self.seen.spec.name
        sentence = f"feature {name} is on no reading of the stream {stream}; it has: {has}"
        if not self.seen.whole:
            self.warn(f"{sentence}, and more than could be looked at")
        elif policy in ("hold", "reject"):
            self.refuse(sentence)
        else:
            self.warn(f"{sentence}. The model gets {policy} in its place (features.missing)")

    def _typed(self, name: str, found: FieldSeen) -> None:
        if found.failed >= WORTH_SAYING:
            say = self.refuse if found.failed > FAILED_MAX else self.warn
            say(
                f"feature {name} is no number on {_share(found.failed)} of the readings of the"
                f" stream {self.seen.spec.name}, such as {found.example}"
            )

    def _missing(self, i: int, found: FieldSeen) -> None:
        features = self.manifest.features
        absent = 1.0 - found.present - found.failed
        if features.missing_each[i] == "reject" and absent >= WORTH_SAYING:
            self.warn(
                f"feature {features.names[i]} is missing from {_share(absent)} of the readings of"
                f" the stream {self.seen.spec.name}, and those will be rejected (features.missing)"
            )

    def _range(self, i: int, found: FieldSeen) -> None:
        features = self.manifest.features
        if features.ranges is None:
            return
        low, high = features.ranges[i]
        if (outside := found.outside(low, high)) >= WORTH_SAYING:
            say = self.refuse if outside > OUTSIDE_MAX else self.warn
            say(
                f"feature {features.names[i]}: {_share(outside)} of what was seen lies outside its"
                f" range {low:g}…{high:g}; most lies within {found.quantile(0.05):g}…"
                f"{found.quantile(0.95):g}"
            )

    def _rate(self, i: int, found: FieldSeen) -> None:
        """Of one sensor; a field that is on every other reading comes half as often."""
        features = self.manifest.features
        if features.rates is None or self.seen.rate_hz is None:
            return
        wants, has = features.rates[i], self.seen.rate_hz * found.present
        if (ratio := max(wants / has, has / wants)) > RATE_RATIO_SAID:
            say = self.refuse if ratio > RATE_RATIO_MAX else self.warn
            say(f"feature {features.names[i]} wants {hertz(wants)}, seen {hertz(has)}")


def _window(manifest: Manifest, seen: Seen) -> Iterator[str]:
    """A window of so much time is made of so many rows; the stream may bring others."""
    window = manifest.window
    if window is None or window.size.seconds is None or window.kind == "session":
        return
    if seen.rate_hz is None:
        return
    brings = seen.rate_hz * window.size.seconds
    text = f"a window of {window.size.seconds:g} s has {window.length} rows for the model, and"
    if brings * RATE_RATIO_MAX < window.length:
        yield f"{text} about {brings:.3g} readings come in that time; the oldest is repeated"
    elif brings > window.length * RATE_RATIO_MAX:
        yield f"{text} about {brings:.3g} readings come in that time; only the newest are used"


def carried(seen: Seen) -> list[str]:
    """What the stream has, by the names a model would use, numbers first."""
    names = {path: name for name, path in reversed([*seen.spec.fields.items()])}
    order = sorted(seen.fields, key=lambda path: not len(seen.fields[path].values))
    return [names.get(path, path) for path in order]


def listed(names: list[str]) -> str:
    """Names for a sentence; not all of a thousand."""
    shown = ", ".join(names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def hertz(rate: float) -> str:
    """A rate for a sentence: `1 kHz`, `100 Hz`, `1 in 20 s`."""
    if rate >= 1000:
        return f"{rate / 1000:.3g} kHz"
    if rate >= 0.1:
        return f"{rate:.3g} Hz"
    return f"1 in {1 / rate:.3g} s"


def _share(share: float) -> str:
    return f"{math.floor(share * 100 + 0.5)} %" if share >= 0.005 else "less than 1 %"


def _unit(text: str) -> str:
    """One spelling of a unit.  Case counts where it does: mm is not Mm."""
    plain = "".join(unicodedata.normalize("NFKC", text).split())
    return _UNITS.get(plain.casefold(), plain)
