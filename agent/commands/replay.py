"""`edge-agent replay`: plays a recording as a sensor."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from agent.commands.saying import AsJson, Broker, ending, usage
from agent.core.errors import RefusedError, UnavailableError
from agent.repository import dial
from agent.repository.conversation import Conversation
from agent.repository.recording import Reading, encode, readings, time_of, topic_of

TELL_S = 5.0  # between two lines where there is no terminal
REDRAW_S = 0.2
BEHIND_S_MAX = 1.0  # what was missed longer ago is not made up for
NAP_S_MIN = 0.0005  # shorter naps cost more than they give


def replay(
    file: Annotated[Path, typer.Argument(help="A CSV file with a header.", metavar="FILE.csv")],
    *,
    topic: Annotated[
        str, typer.Option("--topic", help="Where to; {column} stands for a row's own value.")
    ],
    rate: Annotated[
        float, typer.Option("--rate", help="Rows a second; 0: as fast as they are taken.", min=0)
    ] = 0.0,
    loop: Annotated[bool, typer.Option("--loop", help="Again and again, until Ctrl-C.")] = False,
    column: Annotated[
        str, typer.Option("--time", help="Keep the pace of this column.", metavar="COLUMN")
    ] = "",
    speed: Annotated[float, typer.Option("--speed", help="With --time: how much faster.")] = 1.0,
    as_json: AsJson = False,
    mqtt: Broker = "",
) -> None:
    """Play a recording as a sensor: each row is one JSON object, published with QoS 1.

    Numbers are sent as numbers, times as they stand in the file, empty cells not at all.

    Example: edge-agent replay machine.csv --topic plant/line1/pump/p1/telemetry --rate 20
    """
    with ending():
        with usage():
            settings = dial.settings(mqtt, "", os.environ)
            _check(topic, rate, column, speed)
            if not file.is_file():
                raise RefusedError(f"there is no file {file}")
        with Conversation(settings) as talk, _Teller(file) as teller:
            try:
                while True:
                    pace = _ByTime(column, speed) if column else _ByRate(rate)
                    for reading in _rows(file, teller):
                        pace.wait(reading)
                        talk.post(topic_of(topic, reading), encode(reading))
                        teller.sent()
                    if not loop:
                        break
                    if not teller.rows:
                        raise RefusedError(f"{file} has no rows to loop over")
            except KeyboardInterrupt:
                if not loop:
                    raise
            talk.flush()
        typer.echo(json.dumps(teller.document()) if as_json else teller.line())


def _check(topic: str, rate: float, column: str, speed: float) -> None:
    if not topic or "+" in topic or "#" in topic or "\0" in topic:
        raise RefusedError(f"{topic!r} is no topic to publish on: no wildcards, and not empty")
    if rate and column:
        raise RefusedError("--rate and --time both set the pace; give one of them")
    if speed <= 0:
        raise RefusedError("--speed must be above 0")


def _rows(file: Path, teller: "_Teller") -> Iterator[Reading]:
    try:
        with file.open("rb") as raw:
            yield from readings(_lines(raw, teller), file.name)
    except OSError as error:
        raise UnavailableError(f"cannot read {file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RefusedError(f"{file} is not UTF-8 text: {error.reason}") from error


def _lines(raw: Iterator[bytes], teller: "_Teller") -> Iterator[str]:
    """Lines as text; counted in bytes, which is how far a file of unknown length has got."""
    for number, line in enumerate(raw):
        teller.read(len(line))
        yield line.decode("utf-8-sig" if number == 0 else "utf-8")


class _ByRate:
    """So many a second, by an absolute schedule: naps that are too long do not add up."""

    def __init__(self, rate: float) -> None:
        self._gap_s = 1.0 / rate if rate else 0.0
        self._due = time.monotonic()

    def wait(self, _reading: Reading) -> None:
        if not self._gap_s:
            return
        self._due = _nap_until(self._due) + self._gap_s


class _ByTime:
    """At the recording's own pace, `speed` times as fast; going back in time takes no time."""

    def __init__(self, column: str, speed: float) -> None:
        self._column, self._speed = column, speed
        self._last: float | None = None
        self._due = time.monotonic()

    def wait(self, reading: Reading) -> None:
        now = time_of(reading, self._column)
        if self._last is not None:
            self._due += max(now - self._last, 0.0) / self._speed
        self._last = now
        self._due = _nap_until(self._due)


def _nap_until(due: float) -> float:
    """Wait; the time from which to count on: `due`, or later if that is too long ago."""
    left = due - time.monotonic()
    if left > NAP_S_MIN:
        time.sleep(left)
    return due - left - BEHIND_S_MAX if left < -BEHIND_S_MAX else due


class _Teller:
    """How far it is and how fast it goes."""

    def __init__(self, file: Path) -> None:
        self.rows = 0
        self._size = max(file.stat().st_size, 1)
        self._bytes = 0
        self._start = self._told = time.monotonic()
        self._end: float | None = None
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn(file.name, markup=False),
            BarColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            console=self._console,
            auto_refresh=False,
        )
        self._task: TaskID = self._bar.add_task("", total=1.0, text="")

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end = time.monotonic()
        if self._console.is_terminal:
            self._bar.stop()

    def read(self, size: int) -> None:
        self._bytes += size

    def sent(self) -> None:
        self.rows += 1
        now = time.monotonic()
        if now - self._told < (REDRAW_S if self._console.is_terminal else TELL_S):
            return
        self._told = now
        if self._console.is_terminal:
            share = self._bytes % self._size / self._size
            self._bar.update(self._task, completed=share, text=self.line(), refresh=True)
        else:
            typer.echo(self.line(), err=True)

    def document(self) -> dict[str, float]:
        seconds = (self._end or time.monotonic()) - self._start
        return {
            "rows": self.rows,
            "seconds": round(seconds, 3),
            "rows_per_s": round(self.rows / seconds, 3) if seconds else 0.0,
        }

    def line(self) -> str:
        told = self.document()
        return f"{told['rows']} rows in {told['seconds']:.1f} s, {told['rows_per_s']:.1f}/s"
