"""The fleet as a table: one row per device and model; below it, what is being tried has shown."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from agent.core.wording import words_of
from agent.repository.fleet import Device, number, part

_COLOURS = {
    "Healthy": "green",
    "Transitioning": "cyan",
    "Unhealthy": "yellow",
    "Unschedulable": "yellow",
    "Failed": "red",
}
COLUMNS = (
    "device",
    "online",
    "ready",
    "model",
    "state",
    "phase",
    "active",
    "known good",
    "provider",
    "in",
    "scored",
    "rejected",
    "pending",
    "p99 ms",
    "why",
)
_WIDE = ("known good", "provider", "in", "rejected", "pending")  # left out where room is short
WIDTH_WHOLE = 140
_RIGHT = ("in", "scored", "rejected", "pending", "p99 ms")


def render(fleet: Mapping[str, Device], width: int) -> Group:
    """What `status` shows on a screen `width` columns wide, which may have room for less than all.

    Text of devices is shown as it is, never read as markup.
    """
    table = Table(box=None, header_style="bold", pad_edge=False)
    shown = [c for c in COLUMNS if width >= WIDTH_WHOLE or c not in _WIDE]
    for column in shown:
        table.add_column(
            column,
            justify="right" if column in _RIGHT else "left",
            no_wrap=column != "why",
            overflow="fold" if column == "why" else "ellipsis",
        )
    for name in sorted(fleet):
        device = fleet[name]
        models = part(device.report, "models")
        for model in sorted(models) or [""]:
            row = dict(zip(COLUMNS, _row(device, model), strict=True))
            table.add_row(*(row[column] for column in shown))
    return Group(table, *_evidence(fleet))


def _evidence(fleet: Mapping[str, Device]) -> Iterator[Text]:
    """One line for each model that has evidence, in the words of `deploy --wait`."""
    for device in (fleet[name] for name in sorted(fleet)):
        for name in sorted(part(device.report, "models")):
            if evidence := part(device.model(name), "evidence"):
                release = number(evidence.get("release"))
                what = f"{name}:{release}" if release else name
                yield Text(f"{device.name}: {what} {words_of(evidence)}")


def _row(device: Device, name: str) -> list[Text]:
    model = device.model(name)
    counts, state = part(model, "counts"), str(model.get("state", ""))
    ready = device.report.get("ready") if device.online is not False else None
    return [
        Text(device.name),
        _yes(device.online),
        _yes(ready),
        Text(name or "-"),
        Text(state, _COLOURS.get(state, "")),
        Text(_phase(model)),
        Text(_version(part(model, "active"))),
        Text(_version(part(model, "known_good"))),
        Text(_provider(part(model, "active"))),
        *(Text(_count(counts.get(key)), "") for key in ("in", "scored", "rejected", "pending")),
        Text(_figure(part(model, "latency_ms").get("p99"))),
        Text(_why(device, model)),
    ]


def _yes(value: object) -> Text:
    if value is True:
        return Text("yes", "green")
    return Text("no", "red") if value is False else Text("?", "dim")


def _phase(model: Mapping[str, Any]) -> str:
    phase = str(model.get("phase", ""))
    share = model.get("progress")
    is_moving = phase not in ("", "steady") and isinstance(share, int | float)
    return f"{phase} {share:.0%}" if is_moving else phase


def _version(version: Mapping[str, Any]) -> str:
    if not version:
        return "-"
    text, release = str(version.get("version", "")), number(version.get("release"))
    return text if text == str(release) or not release else f"{text or '?'} (r{release})"


def _provider(version: Mapping[str, Any]) -> str:
    provider, wanted = version.get("provider"), version.get("wanted")
    if not provider:
        return "-"
    fallen = wanted and wanted != provider
    return f"{provider} (wanted {wanted})" if fallen else str(provider)


def _count(value: object) -> str:
    if isinstance(value, Mapping):
        return str(sum(number(v) for v in value.values()))
    return str(value) if isinstance(value, int) else ""


def _figure(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, int | float) else ""


def _why(device: Device, model: Mapping[str, Any]) -> str:
    reasons = device.report.get("reasons")
    said = [device.trouble, device.report.get("why"), model.get("why")]
    if isinstance(reasons, list):  # of one that is ready they are doubts
        said += reasons
    texts = [str(text) for text in said if text]
    return "; ".join(dict.fromkeys(texts))
