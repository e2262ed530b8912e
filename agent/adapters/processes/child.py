"""One worker process, from its start to its end: who it is told to be, and how it died, in words.

Everything here may wait and belongs to control threads; `data` is the lane's alone.
"""

import importlib.util
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import agent
from agent.core.errors import UnavailableError
from agent.ports import WorkerLostError
from agent.worker import control
from agent.worker.arena import Arena

START = """\
import sys
sys.path += sys.argv[1].split(sys.argv[2])
from agent.worker.__main__ import main
main(__import__('json').loads(sys.argv[3]))
"""
# What native libraries look for; everything else, secrets foremost, stays behind.
ENVIRONMENT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "WINDIR", "TEMP", "TMP")
ENVIRONMENT_PREFIXES = ("CUDA_", "NVIDIA_", "HIP_", "ROCR_", "OPENVINO_")
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
SECRET_BYTES = 32
LAST_WORDS_BYTES = 8192
EXIT_S_MAX = 1.0
REAP_S_MAX = 0.2

# The kernel's parent-death signal fires when the *thread* that started the child ends; so one that
# never ends starts them all.
_starter: ThreadPoolExecutor | None = None


def _in_starter(*arguments: Any, **options: Any) -> "subprocess.Popen[bytes]":
    global _starter  # noqa: PLW0603  one per process, made when first needed
    if _starter is None:
        _starter = ThreadPoolExecutor(1, thread_name_prefix="worker-starter")
    started: Future[subprocess.Popen[bytes]] = _starter.submit(
        subprocess.Popen, *arguments, **options
    )
    return started.result()


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of every worker; see `agent.config.Engine` for those that users set."""

    start_s: float = 30.0
    load_s: float = 600.0
    run_s: float = 10.0
    memory_bytes: int = 4 * 2**30  # private memory of a worker whose manifest does not say
    arena_bytes: int = 512 * 2**20  # tensors of one worker in shared memory
    answers_bytes: int = 256 * 2**20  # outputs of one batch that do not fit in there


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
    ) -> None:
        """Start it and wait for its hello.

        Raises:
            UnavailableError: it could not be started.
        """
        self.killed = False
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
            "parent": os.getpid(),
        }
        try:
            self.data, self.control = self._start(errand, start_s)
            self.control.settimeout(start_s)
            self.hello: Mapping[str, Any] = control.receive(self.control)
        except (OSError, control.GoneError) as error:
            why = f"it did not say hello within {start_s:g} s"
            if not isinstance(error, TimeoutError):
                why = self.last_words() or str(error)
            self.close(at_once=True)
            raise UnavailableError(f"no worker could be started: {why}") from error
        self.data.setblocking(False)

    # ---- life -----------------------------------------------------------------------------------

    def _start(self, errand: dict[str, Any], start_s: float) -> tuple[socket.socket, socket.socket]:
        """Spawn it, with inherited socket pairs, or on Windows by the loopback with a secret."""
        if sys.platform == "win32":
            return self._start_dialling(errand, start_s)
        data, their_data = socket.socketpair()
        asked, their_asked = socket.socketpair()
        self.data, self.control = data, asked
        read, write = os.pipe()
        os.set_blocking(write, False)  # a worker that talks too much loses words, not time
        os.set_blocking(read, False)
        self._stderr = read
        try:
            theirs = [their_data.fileno(), their_asked.fileno()]
            errand |= {"data": theirs[0], "control": theirs[1], "port": 0}
            self._process = _in_starter(
                self._command(errand),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=write,
                env=_environment(),
                cwd="/",
                pass_fds=[*theirs, self.arena.fd],
                start_new_session=True,
            )
        finally:
            os.close(write)
            their_data.close()
            their_asked.close()
        return data, asked

    def _start_dialling(
        self, errand: dict[str, Any], start_s: float
    ) -> tuple[socket.socket, socket.socket]:
        secret = secrets.token_bytes(SECRET_BYTES)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            errand |= {"data": -1, "control": -1, "port": listener.getsockname()[1]}
            self._process = _in_starter(
                self._command(errand),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
            assert self._process.stdin is not None
            with self._process.stdin as stdin:
                stdin.write(secret)
            deadline = time.monotonic() + start_s
            self.data = _admitted(listener, secret, deadline)
            self.control = _admitted(listener, secret, deadline)
        return self.data, self.control

    @staticmethod
    def _command(errand: Mapping[str, Any]) -> list[str]:
        switches = ["-I", "-S", "-X", "utf8"]
        path = os.pathsep.join(_package_folders())
        return [
            *(sys.executable, *switches, "-c", START),
            *(path, os.pathsep, json.dumps(errand)),
        ]

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

    def ask(self, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        """One question, one answer.

        Raises:
            WorkerLostError: it is gone.
            TimeoutError: it did not answer in time; it is no longer of use, so end it.
        """
        try:
            self.control.settimeout(seconds)
            control.send(self.control, question)
            return control.receive(self.control)
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

    def epitaph(self) -> str:
        """How it ended, as the predicate of a sentence."""
        number = self.signal_of_death()
        if self.killed:
            return "was killed because it did not answer"
        if number:
            return f"was killed by {signal.Signals(number).name}"
        code = self._process.poll() if self._process is not None else None
        words = self.last_words()
        if code is None:
            return "does not listen any more"
        return f"ended with exit code {code}" + (f": {words}" if words else "")

    def last_words(self) -> str:
        """The last line it wrote to its standard error."""
        if self._stderr < 0:
            return ""
        try:
            lines = os.read(self._stderr, LAST_WORDS_BYTES).decode(errors="replace").split("\n")
        except BlockingIOError:
            return ""
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.upper() in ENVIRONMENT or name.upper().startswith(ENVIRONMENT_PREFIXES)
    }
    if sys.platform == "win32":
        kept["PATH"] = os.environ.get("PATH", "")  # where DLLs are found
    return kept | ONE_THREAD


def _package_folders() -> list[str]:
    """Where this package, numpy and onnxruntime lie, however they came to be importable here."""
    folders = {str(Path(agent.__file__).resolve().parent.parent): None}
    for name in ("numpy", "onnxruntime"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise UnavailableError(f"{name} is not installed; install edge-model-agent[cpu]")
        folders[str(Path(spec.origin).resolve().parent.parent)] = None
    return list(folders)


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
