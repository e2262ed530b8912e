"""A rollout as one device reports it, phase by phase.

Reports come when something changes and some are missed, so what a phase had shown in the end is
taken from the trail that the device keeps of it, not from the last report before it changed.  Pure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agent.core.wording import words_of
from agent.repository.fleet import number, part

TRAIL_MAX = 16  # phases we look at in a report


@dataclass(frozen=True, slots=True)
class Step:
    """A phase begins, or has ended with this evidence; or something is to be told within it."""

    what: Literal["entered", "left", "told"]
    phase: str
    evidence: Mapping[str, Any] | None = None

    @property
    def words(self) -> str:
        """What it shows, in the device's words; the phase alone if it shows nothing."""
        return words_of(self.evidence) if self.evidence is not None else self.phase


class Chronicle:
    """The steps of one release on one device; none is told twice.

    Args:
        before: what the device said of the model before this release was wished for.
    """

    def __init__(self, release: int, before: Mapping[str, Any]) -> None:
        self._release = release
        self._told = list(_trail(before))
        self._receipt = part(before, "receipt").get("number")
        self._phase = ""
        self._seen: Mapping[str, Any] | None = None

    def see(self, phase: str, model: Mapping[str, Any]) -> Iterator[Step]:
        """What is new in `model`, the device's report of it; `phase` is the follower's word."""
        trail = [e for e in _trail(model) if self._is_ours(e) and e not in self._told]
        for evidence in trail:
            yield Step("left", str(evidence.get("phase")), evidence)
        self._told += trail
        if phase != self._phase:
            if self._seen is not None and self._seen["phase"] not in [e["phase"] for e in trail]:
                yield Step("left", str(self._seen["phase"]), self._seen)
            self._phase, self._seen = phase, None
            yield Step("entered", phase)
        self._seen = self.evidence(model)

    def evidence(self, model: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What the phase in hand has shown so far."""
        evidence = part(model, "evidence")
        phase = evidence.get("phase")
        is_now = isinstance(phase, str) and phase == model.get("phase")
        return evidence if is_now and self._is_ours(evidence) else None

    def receipt(self, model: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """That of the swap to the release, or of its rollback; None if it is still another's."""
        receipt = part(model, "receipt")
        ends = (part(receipt, end).get("release") for end in ("from", "to"))
        is_new = receipt.get("number") != self._receipt
        return receipt if is_new and self._release in ends else None

    def _is_ours(self, evidence: Mapping[str, Any]) -> bool:
        return number(evidence.get("release")) in (0, self._release)


def _trail(model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    trail = model.get("trail")
    found = trail if isinstance(trail, list) else []
    return [e for e in found[-TRAIL_MAX:] if isinstance(e, Mapping) and e.get("phase")]
