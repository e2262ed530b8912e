"""One worker process, from its start to its end: who it is told to be, and how it died, in words.

Everything here may wait and belongs to control threads; `data` is the lane's alone.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.core.errors import UnavailableError
from agent.ports import WorkerLostError
from agent.worker import control, early, launch
from agent.worker.arena import Arena
from agent.worker.refusals import DEVICE_LOST

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SECRET_BYTES = 32
LAST_WORDS_BYTES = 8192
EXIT_S_MAX = 1.0
DIALS = sys.platform == "win32"  # no sockets are inherited there
REAP_S_MAX = 0.2


class Child:
    """A running worker: its process, its two sockets, its shared memory."""

    def __init__(
        self,
        folder: Path | None,
        *,
        providers: tuple[str, ...],
        memory_bytes: int,
        arena_bytes: int,
        start_s: float,
        dial: bool = DIALS,
        background: bool = False,
        outfit: "Mapping[str, Any] | None" = None,
    ) -> None:
        """Start it and wait for its hello.  `dial`: over the loopback, where nothing is inherited.

        `outfit`: what the configuration gives onnxruntime, see `agent.core.accelerators.Outfit`.
        `background`: at the lowest scheduling class from its first step, where it may leave that.

        Raises:
            UnavailableError: it could not be started.
        """
        self.killed = False
        self.doing = ""  # the provider that its model is being loaded on
        try:
            self._path = launch.package_folders()
        except ModuleNotFoundError as error:
            raise UnavailableError(str(error)) from error
        try:
            self.arena = Arena.create(arena_bytes)
        except OSError as error:
            raise UnavailableError(f"no shared memory for a worker: {error.strerror}") from error
        self._stderr = -1
        self._process: subprocess.Popen[bytes] | None = None
        errand = {
            "folder": str(folder) if folder else "",
            "providers": list(providers),
            "memory_bytes": memory_bytes,
            "arena": self.arena.fd,
            "arena_tag": self.arena.tag,
            "arena_bytes": arena_bytes,
            "background": background,
            "outfit": dict(outfit or {}),
        }
        try:
            if dial:
                self._start_dialling(errand, start_s)
            else:
                self._start(errand)
            self.control.settimeout(start_s)
            self.hello: Mapping[str, Any] = control.receive(self.control)
        except (OSError, control.GoneError) as error:
            why = f"it did not say hello within {start_s:g} s"
            if isinstance(error, control.GoneError):
                why = f"it {self.epitaph()}"
            elif not isinstance(error, TimeoutError):
                why = str(error)
            self.close(at_once=True)
            raise UnavailableError(f"no worker could be started: {why}") from error
        self.data.setblocking(False)

    # ---- life -----------------------------------------------------------------------------------

    def _start(self, errand: dict[str, Any]) -> None:
        """Of the one that waits, else a new one, with sockets that it inherits."""
        it = early.take()
        if it is not None:
            try:
                it.send(errand, self.arena.fd)
            except control.GoneError:
                it.close()
                it = None
        it = it or early.spawned(errand, more=(self.arena.fd,))
        self._process, self._stderr = it.process, it.stderr
        self.data, self.control = it.data, it.control

    def _start_dialling(self, errand: dict[str, Any], start_s: float) -> None:
        """Spawn it and wait for its two calls, which have to begin with a secret."""
        secret = secrets.token_bytes(SECRET_BYTES)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            errand |= {"data": -1, "control": -1, "parent": os.getpid()}
            errand["port"] = listener.getsockname()[1]
            self._process = launch.start(
                launch.command(self._path, errand),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=launch.environment(),
                pass_fds=[] if self.arena.fd < 0 else [self.arena.fd],
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
            assert self._process.stdin is not None
            with self._process.stdin as stdin:
                stdin.write(secret)
            deadline = time.monotonic() + start_s
            self.data = _admitted(listener, secret, deadline)
            self.control = _admitted(listener, secret, deadline)

    @property
    def pid(self) -> int | None:
        """Of the process, while it is there."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def kill(self) -> None:
        """End it at once."""
        self.killed = True
        if self._process is not None:
            self._process.kill()

    def close(self, *, at_once: bool = False) -> None:
        """End it, reap it, and give everything back.  Idempotent."""
        for name in ("data", "control"):
            if (sock := getattr(self, name, None)) is not None:
                sock.close()
        if (process := self._process) is not None:
            if at_once:
                process.kill()
            try:
                process.wait(EXIT_S_MAX)  # it ends by itself when its sockets close
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.arena.close()
        if self._stderr >= 0:
            os.close(self._stderr)
            self._stderr = -1

    # ---- talk -----------------------------------------------------------------------------------

    def ask(
        self,
        question: dict[str, Any],
        seconds: float,
        told: "Callable[[str], None]" = lambda _: None,
    ) -> dict[str, Any]:
        """One question, one answer; `told` hears meanwhile on whom it is at work.

        Raises:
            WorkerLostError: it is gone.
            TimeoutError: it did not answer in time; it is no longer of use, so end it.
        """
        deadline = time.monotonic() + seconds
        try:
            self.control.settimeout(seconds)
            control.send(self.control, question)
            while "doing" in (answer := control.receive(self.control)):
                self.doing = str(answer["doing"])
                told(self.doing)
                self.control.settimeout(max(0.001, deadline - time.monotonic()))
            return answer  # noqa: TRY300  what follows is for when there is none
        except TimeoutError:
            raise
        except (control.GoneError, OSError) as error:
            raise WorkerLostError(self.epitaph()) from error

    def signal_of_death(self) -> int:
        """The signal that ended it; 0 if none did."""
        if self._process is None:
            return 0
        try:
            code = self._process.wait(REAP_S_MAX)
        except subprocess.TimeoutExpired:
            return 0
        return -code if code < 0 else 0

    @property
    def lost_its_device(self) -> bool:
        """Whether it went because its accelerator did, and not for anything its model did."""
        return self._process is not None and self._process.poll() == DEVICE_LOST

    def epitaph(self) -> str:
        """How it ended, as the predicate of a sentence."""
        number = self.signal_of_death()
        if self.killed:
            return "was killed because it did not answer"
        words = f": {words}" if (words := self.last_words()) else ""
        if number:
            return f"was killed by {_signal_name(number)}{words}"
        if self.lost_its_device:
            return f"lost its device{words}"
        code = self._process.poll() if self._process is not None else None
        return "does not listen any more" if code is None else f"ended with code {code}{words}"

    def last_words(self) -> str:
        """The last line it wrote to its standard error."""
        if self._stderr < 0:
            return ""
        try:
            lines = os.read(self._stderr, LAST_WORDS_BYTES).decode(errors="replace").split("\n")
        except BlockingIOError:
            return ""
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _admitted(listener: socket.socket, secret: bytes, deadline: float) -> socket.socket:
    """The next connection that knows the secret; others are dropped."""
    while (left := deadline - time.monotonic()) > 0:
        listener.settimeout(left)
        sock, _ = listener.accept()
        sock.settimeout(left)
        try:
            if secrets.compare_digest(sock.recv(len(secret), socket.MSG_WAITALL), secret):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
        except OSError:
            pass
        sock.close()
    msg = "no worker dialled in"
    raise TimeoutError(msg)
