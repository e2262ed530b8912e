"""Where the time of a live session goes: its first runs, profiled, share by share.

The profile is written by onnxruntime to a file, read once and removed; it never stays on, because
it grows without bound.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.worker import providers

PROFILE_BYTES_MAX = 64 * 2**20


def ended(session: Any) -> dict[str, float]:
    """End profiling; shares of the last run's time by our names, empty where it cannot be told."""
    try:
        path = Path(session.end_profiling())
        try:
            if path.stat().st_size > PROFILE_BYTES_MAX:
                return {}
            return shares(json.loads(path.read_text(encoding="utf-8")))
        finally:
            shutil.rmtree(path.parent, ignore_errors=True)
    except (OSError, ValueError):
        return {}


def shares(events: Sequence[Any]) -> dict[str, float]:
    """Share of node time by provider, within the last `model_run` of a Chrome trace."""
    runs = [e for e in events if isinstance(e, dict) and e.get("name") == "model_run"]
    if not runs:
        return {}
    start = max(runs, key=lambda run: run["ts"])["ts"]
    took: dict[str, float] = {}
    for event in events:
        if not isinstance(event, dict) or event.get("cat") != "Node" or event["ts"] < start:
            continue
        name = event.get("args", {}).get("provider", "")
        if name and str(event.get("name", "")).endswith("_kernel_time"):
            name = providers.short(name)
            took[name] = took.get(name, 0.0) + float(event["dur"])
    total = sum(took.values())
    return {name: time / total for name, time in took.items()} if total else {}
