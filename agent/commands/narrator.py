"""A rollout as it happens: one bar per device on a terminal, elsewhere a line per step."""

import json
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from agent.core.names import ModelRef
from agent.repository import fleet
from agent.repository.chronicle import Chronicle, Step


class Narrator:
    """Tells on stderr, so that stdout stays with the outcome; `as_json`, an object on each line."""

    def __init__(self, ref: ModelRef, *, as_json: bool = False) -> None:
        self._console = Console(stderr=True)
        self._ref = ref
        self._as_json = as_json
        self._told: dict[str, tuple[str, str]] = {}  # by device: why, and what replaces the wish
        self._away = ""  # why the broker cannot be heard, as last told
        self._tasks: dict[str, TaskID] = {}
        self._bars = Progress(
            TextColumn("{task.fields[device]}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[phase]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            auto_refresh=False,
        )

    @property
    def _draws(self) -> bool:
        return self._console.is_terminal and not self._as_json

    def __enter__(self) -> Self:
        if self._draws:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._draws:
            self._bars.stop()

    def tell(self, device: fleet.Device, progress: fleet.Progress, chronicle: Chronicle) -> None:
        """Where the wish stands on `device`; says nothing twice."""
        model = device.model(self._ref.name)
        steps = list(chronicle.see(progress.phase, model))
        news, last = (progress.why, progress.instead), self._told.get(device.name, ("", ""))
        self._told[device.name] = news
        if news != last and any(news) and not any(step.what == "entered" for step in steps):
            steps.append(Step("told", progress.phase))
        for step in steps:
            if self._as_json:
                self._console.out(self._object(device, progress, step), highlight=False)
            elif step.what == "left":
                self._print(f"{device.name}: {self._ref} {step.words}")
            elif not self._draws:
                said = f"{step.phase}{_offline(device)}{_because(progress)}"
                self._print(f"{device.name}: {self._ref} {said}")
        if self._draws:
            now = Step("entered", progress.phase, chronicle.evidence(model))
            self._draw(device, progress, f"{now.words}{_because(progress)}")

    def tick(self, away: str = "") -> None:
        """Redraw, for the clocks; `away` says why nothing can come from the broker, if so."""
        if away != self._away:
            self._away = away
            words = away or "the broker is back"
            if self._as_json:
                self._console.out(json.dumps({"step": "broker", "words": words}), highlight=False)
            else:
                self._print(words)
        if self._draws:
            self._bars.refresh()

    def _draw(self, device: fleet.Device, progress: fleet.Progress, words: str) -> None:
        if device.name not in self._tasks:
            name = f"{self._ref} on {device.name}"
            self._tasks[device.name] = self._bars.add_task("", total=1.0, device=name, phase="")
        text = f"{words}{_offline(device)}"
        self._bars.update(self._tasks[device.name], completed=progress.share, phase=text)

    def _print(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)

    def _object(self, device: fleet.Device, progress: fleet.Progress, step: Step) -> str:
        document = {
            "device": device.name,
            "model": self._ref.name,
            "release": self._ref.release,
            "step": step.what,
            "phase": step.phase,
            "words": step.words,
            "evidence": step.evidence,
            "why": progress.why,
            "instead": progress.instead,
            "online": device.online,
        }
        return json.dumps(document, ensure_ascii=False)


def _because(progress: fleet.Progress) -> str:
    said = dict.fromkeys(part for part in (progress.why, progress.instead) if part)
    return f": {'; '.join(said)}" if said else ""


def _offline(device: fleet.Device) -> str:
    return " (offline)" if device.online is False else ""
