"""What `edge-agent check` reports: one finding per part of the device, as a table or as JSON.

A probe looks at one part and answers with a sentence; an error of ours is a finding too.  Which
probes there are is the command's choice.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agent.core.errors import MisfitError, RefusedError, UnavailableError, UnfitError

SCHEMA = 1

Probe = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether a part of the device is as the agent needs it, and a sentence on it."""

    part: str  # configuration | store | broker | trust | providers | http …
    ok: bool
    sentence: str


def look(probes: Iterable[tuple[str, Probe]]) -> list[Finding]:
    """Ask each probe; one that fails does not keep the others from being asked."""
    return [_ask(part, probe) for part, probe in probes]


def _ask(part: str, probe: Probe) -> Finding:
    try:
        return Finding(part, ok=True, sentence=probe())
    except (RefusedError, UnavailableError, MisfitError, UnfitError) as error:
        return Finding(part, ok=False, sentence=str(error))


def document(findings: Iterable[Finding]) -> Mapping[str, Any]:
    """The findings as one JSON value."""
    found = list(findings)
    parts = {f.part: {"ok": f.ok, "why": f.sentence} for f in found}
    return {"schema": SCHEMA, "ok": all(f.ok for f in found), "parts": parts}


def show(findings: Iterable[Finding], console: Console | None = None) -> None:
    """The findings as a table for people, on stdout."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("part", style="bold", no_wrap=True)
    table.add_column("ok", no_wrap=True)
    table.add_column("sentence", overflow="fold")
    for finding in findings:
        word = "[green]ok[/]" if finding.ok else "[red]no[/]"
        table.add_row(finding.part, word, escape(finding.sentence))
    (console or Console(file=sys.stdout, highlight=False)).print(table)


def exit_code(findings: Iterable[Finding]) -> int:
    """0 if the device could run, else 1."""
    return 0 if all(finding.ok for finding in findings) else 1
