"""Where the demo is performed: a folder under .demo/, free ports, and the processes it starts."""

import contextlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
NAME, DEVICE = "pump-anomaly", "pump-demo"
START_S_MAX = 60.0
PAGE_PORT = 8080
State = dict[str, Any]
say = Console(highlight=False)


class StoryError(Exception):
    """A step did not happen; the text says which, and what was seen instead."""


class Stage:
    """The folder, the ports and the processes of one performance."""

    def __init__(self, *, verbose: bool) -> None:
        (TOP / ".demo").mkdir(exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="run-", dir=TOP / ".demo"))
        self.repo = self.folder / "repo"
        broker, page = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port(PAGE_PORT)}"
        self.mqtt, self.page = f"mqtt://{broker}", f"http://{page}"
        self._verbose = verbose
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.environ = os.environ | {
            "EDGE_AGENT__MQTT__EMBEDDED_BIND": broker,
            "EDGE_AGENT__STORE__DIR": str(self.folder / "store"),
            "EDGE_AGENT__REPOSITORY__ROOT_FILE": str(self.repo / "root.json"),
            "EDGE_AGENT__HTTP__BIND": page,
            "PYTHONUNBUFFERED": "1",
        }

    def do(self, *words: str | Path, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `edge-agent WORDS` to its end."""
        command = self._command(words)
        done = subprocess.run(
            command, env=self.environ, capture_output=True, text=True, check=False, cwd=TOP
        )
        if ok and done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "it says nothing").splitlines()[
                -1
            ]
            raise StoryError(f"`edge-agent {shlex.join(map(str, words))}` failed: {last}")
        return done

    def start(self, name: str, command: list[str]) -> None:
        """Start `command` in the background; what it says goes to NAME.log."""
        if self._verbose:
            say.print(f"[dim]$ {shlex.join(command)}")
        with (self.folder / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(
                command, env=self.environ, stdout=log, stderr=subprocess.STDOUT, cwd=TOP
            )

    def start_agent(self, name: str, *words: str | Path) -> None:
        """Start `edge-agent WORDS` in the background."""
        self.start(name, self._command(words, quiet=True))

    def check_alive(self) -> None:
        """Everything that was started still runs.  Raises StoryError."""
        for name, process in self._running.items():
            if process.poll() is not None:
                log = (self.folder / f"{name}.log").read_text(errors="replace").strip()
                last = log.splitlines()[-1] if log else "it said nothing"
                raise StoryError(f"{name} ended with {process.returncode}: {last}")

    def state(self) -> State:
        """What the agent says of itself; empty while it says nothing."""
        url = f"{self.page}/state"
        with (
            contextlib.suppress(OSError, ValueError),
            urllib.request.urlopen(url, timeout=5) as got,
        ):
            told: State = json.load(got)
            return told
        return {}

    def model(self) -> State:
        """Its part on our model."""
        told: State = self.state().get("models", {}).get(NAME) or {}
        return told

    def wait(self, what: str, until: Callable[[], Any], seconds: float = START_S_MAX) -> Any:
        """Poll; raises StoryError if it does not come true."""
        deadline = time.monotonic() + seconds
        while not (value := until()):
            self.check_alive()
            if time.monotonic() > deadline:
                raise StoryError(f"{what}: not within {seconds:g} s")
            time.sleep(0.2)
        return value

    def close(self, *, keep: bool) -> None:
        """End what was started, the agent last."""
        for process in reversed(self._running.values()):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            process.kill()
            process.wait()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _command(self, words: tuple[str | Path, ...], *, quiet: bool = False) -> list[str]:
        texts = [str(word) for word in words]
        if self._verbose and not quiet:
            say.print(f"[dim]$ edge-agent {shlex.join(texts)}")
        return [sys.executable, "-m", "agent", *texts]


def free_port(wish: int = 0) -> int:
    """A free TCP port of the loopback, the one above it free too; `wish` if it can be."""
    for port in (wish, *[0] * 100):
        with contextlib.suppress(OSError), socket.socket() as probe, socket.socket() as above:
            if os.name == "posix":  # what was closed a moment ago is free; elsewhere it would steal
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            found = int(probe.getsockname()[1])
            above.bind(("127.0.0.1", found + 1))
            return found
    raise StoryError("there is no free port on this machine")
