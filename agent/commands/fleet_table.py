"""The fleet as a table: one row per device and model."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

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
_RIGHT = ("in", "scored", "rejected", "pending", "p99 ms")


def render(fleet: Mapping[str, Device]) -> Table:
    """The table; text of devices is shown as it is, never read as markup."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in COLUMNS:
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
            table.add_row(*_row(device, model))
    return table


def _row(device: Device, name: str) -> list[Text]:
    model = device.model(name)
    counts, state = part(model, "counts"), str(model.get("state", ""))
    ready = device.report.get("ready") if device.online is not False else None
    texts = [
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
    assert len(texts) == len(COLUMNS)
    return texts


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
    if device.report.get("ready") is False and isinstance(reasons, list):
        said += reasons
    texts = [str(text) for text in said if text]
    return "; ".join(dict.fromkeys(texts))
