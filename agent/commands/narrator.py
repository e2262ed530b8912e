"""A rollout as it happens: one bar per device on a terminal, elsewhere a line per phase."""

from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from agent.repository import fleet


class Narrator:
    """Tells on stderr, so that stdout stays with the outcome."""

    def __init__(self, what: str) -> None:
        self._console = Console(stderr=True)
        self._what = what
        self._last: dict[str, str] = {}
        self._tasks: dict[str, TaskID] = {}
        self._bars = Progress(
            TextColumn("{task.fields[device]}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[phase]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            auto_refresh=False,
        )

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bars.stop()

    def tell(self, device: fleet.Device, progress: fleet.Progress) -> None:
        """Where the wish stands on `device`; says nothing twice."""
        offline = " (offline)" if device.online is False else ""
        text = f"{progress.phase}{offline}"
        if self._console.is_terminal:
            if device.name not in self._tasks:
                name = f"{self._what} on {device.name}"
                self._tasks[device.name] = self._bars.add_task("", total=1.0, device=name, phase="")
            self._bars.update(self._tasks[device.name], completed=progress.share, phase=text)
        elif self._last.get(device.name) != text:
            why = f": {progress.why}" if progress.why else ""
            self._console.print(Text(f"{device.name}: {self._what} {text}{why}"), soft_wrap=True)
        self._last[device.name] = text

    def tick(self) -> None:
        """Redraw, for the clocks."""
        if self._console.is_terminal:
            self._bars.refresh()
