"""Evidence and receipts in words: the same ones in `deploy --wait`, in `status` and on the page.

Documents in, sentences out.  A document may come from a device of another version, so whatever is
missing or no figure is left out, and no text in it can break out of its line.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

WHY_MAX = 300


def evidence_words(evidence: Mapping[str, Any]) -> str:
    """What a phase has shown, as `shadow: 120 of 200 windows, 99.2 % agree, 0 errors`."""
    bars = _part(evidence, "bars")
    parts = [
        _windows(evidence),
        _seconds(evidence),
        _told(_share(evidence.get("agreement")), "{} % agree"),
        _distance(evidence, bars),
        _count(evidence.get("errors"), "error", always=True),
        _told(_some(evidence.get("saturated"), 100.0), "{} % saturated"),
        _told(_some(evidence.get("skipped")), "{} skipped"),
        _count(evidence.get("deaths"), "worker death"),
        _count(evidence.get("hangs"), "hang"),
        _latency(evidence, bars),
    ]
    words = f"{_line(evidence.get('phase')) or 'rollout'}: {', '.join(p for p in parts if p)}"
    match evidence.get("verdict"):
        case "PASS":
            return f"{words}; passed"
        case "FAIL":
            why = _line(evidence.get("why"))
            return f"{words}; failed: {why}" if why else f"{words}; failed"
    return words


def receipt_words(receipt: Mapping[str, Any]) -> str:
    """What a swap or a rollback did, as `swap 6 → 7: no gap, no duplicates, pause 12 ms, …`."""
    old, new = (_part(receipt, end).get("release") for end in ("from", "to"))
    rss = _part(receipt, "rss_mb")
    p99 = [_figure(_part(receipt, "p99_ms").get(when)) for when in ("before", "during", "after")]
    parts = [
        _count(receipt.get("gap"), "row lost", "rows lost", none="no gap"),
        _count(receipt.get("duplicates"), "duplicate", none="no duplicates"),
        _told(_figure(receipt.get("pause_ms")), "pause {} ms"),
        f"p99 {' → '.join(f or '–' for f in p99)} ms" if any(p99) else "",
        _memory(rss),
    ]
    words = f"{_line(receipt.get('kind')) or 'swap'} {_release(old)} → {_release(new)}"
    if said := ", ".join(p for p in parts if p):
        words = f"{words}: {said}"
    if why := _line(receipt.get("why")):
        words = f"{words}; {why}"
    return words if receipt.get("complete", True) else f"{words} (not yet complete)"


def receipt_lines(receipt: Mapping[str, Any]) -> list[str]:
    """The receipt in words, and below it each phase it has evidence of."""
    evidence = receipt.get("evidence")
    phases = evidence if isinstance(evidence, Sequence) and not isinstance(evidence, str) else ()
    lines = [receipt_words(receipt)]
    return lines + [evidence_words(phase) for phase in phases if isinstance(phase, Mapping)]


def words_of(evidence: Mapping[str, Any]) -> str:
    """The words that came with `evidence`, else ours: so that all faces use the same ones."""
    return _line(evidence.get("words")) or evidence_words(evidence)


def worded(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """`evidence` with its words beside it, for faces that have none of their own."""
    return {**evidence, "words": evidence_words(evidence)}


def _windows(evidence: Mapping[str, Any]) -> str:
    seen, wanted = _figure(evidence.get("windows")), _some(evidence.get("wanted"))
    if not seen:
        return ""
    return f"{seen} of {wanted} windows" if wanted else f"{seen} windows"


def _seconds(evidence: Mapping[str, Any]) -> str:
    """Only where time is a part of the bar."""
    timed = evidence.get("phase") in ("probation", "watch")
    return _told(_figure(evidence.get("seconds")), "{} s") if timed else ""


def _distance(evidence: Mapping[str, Any], bars: Mapping[str, Any]) -> str:
    distance = _figure(evidence.get("score_distance"))
    at_most = _told(_figure(bars.get("score_distance")), " (≤ {})")
    return f"score distance {distance}{at_most}" if distance else ""


def _latency(evidence: Mapping[str, Any], bars: Mapping[str, Any]) -> str:
    p99 = _figure(_part(evidence, "latency_ms").get("p99"))
    before, ratio = _figure(evidence.get("before_p99_ms")), _figure(bars.get("latency_ratio"))
    if not p99 or not before:
        return ""
    return f"p99 {p99} ms ({f'≤ {ratio} × ' if ratio else ''}{before} ms before)"


def _memory(rss: Mapping[str, Any]) -> str:
    before, after = _figure(rss.get("before")), _some(rss.get("after"))
    return f"memory {before} → {after} MB" if before and after else ""


def _release(value: object) -> str:
    return _figure(value) or "none"


def _count(value: object, one: str, many: str = "", *, none: str = "", always: bool = False) -> str:
    figure = _figure(value)
    if not figure or (figure == "0" and not always):
        return none if figure else ""
    return f"{figure} {one if figure == '1' else many or f'{one}s'}"


def _some(value: object, times: float = 1.0) -> str:
    """The figure, unless it is none or nothing."""
    figure = _figure(value, times)
    return "" if figure == "0" else figure


def _share(value: object) -> str:
    """Per cent, cut off and not rounded: 99.96 is no 100."""
    whole = isinstance(value, int | float) and math.isfinite(value)
    return _figure(math.floor(value * 1000) / 10) if whole else ""  # type: ignore[operator]


def _figure(value: object, times: float = 1.0) -> str:
    """A number as people read it: whole ones whole, others with three digits; else empty."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return ""
    number = value * times
    if isinstance(number, int) or abs(number) >= 100:
        return f"{number:.0f}"
    return f"{number:.3g}"


def _told(figure: str, words: str) -> str:
    return words.format(figure) if figure else ""


def _part(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, Mapping) else {}


def _line(value: object) -> str:
    if not isinstance(value, str):
        return ""
    shown = "".join(char if char.isprintable() else " " for char in value[: 2 * WHY_MAX])
    return " ".join(shown.split())[:WHY_MAX]
