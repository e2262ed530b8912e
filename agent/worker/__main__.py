"""The child: goes into its jail, says hello, then scores on one thread and answers on another.

Started with an errand, in JSON, by `agent.adapters.processes.child`, which also tells the
interpreter where to find this package, numpy and onnxruntime; it looks nowhere else.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.core.accelerators import CPU, PROVIDERS
from agent.worker import arrival, control, frames, hardware, jail, making, priority, providers
from agent.worker.arena import Arena
from agent.worker.golden import Golden, failed, warm_up
from agent.worker.loaded import Loaded
from agent.worker.making import VERSION, compiled_in
from agent.worker.measuring import measure
from agent.worker.refusals import DEVICE_LOST, RefusalError, is_device, of_run

SWITCH_S = 0.0005  # golden samples on one thread may hold up a live batch on the other by so much
CHUNK_BYTES = 65536
SPARE_BYTES = 1 << 16  # of a frame, for its entries


class Worker:
    """One model, once it is loaded.  `turn` is held by whoever runs it."""

    def __init__(self, errand: dict[str, Any], data: socket.socket, asked: socket.socket) -> None:
        self._data, self._asked = data, asked
        self.folder = Path(errand["folder"]) if errand["folder"] else None
        self._arena = Arena(errand["arena_bytes"], fd=errand["arena"], tag=errand["arena_tag"])
        self._tasks: int | str = priority.TASKS
        if Path(priority.TASKS).is_dir():
            self._tasks = os.open(priority.TASKS, os.O_RDONLY)  # the jail has no /proc
        self._turn = threading.Lock()
        self._lowered = self._serves = False
        self._loaded: Loaded | None = None
        self._golden: Golden | None = None
        self._last: tuple[bytes, list[frames.Array], int] = (b"", [], 0)

    # ---- control --------------------------------------------------------------------------------

    def answer_questions(self) -> None:
        """Until the agent goes, and then go as well, whatever the other thread is doing."""
        doing = {
            "load": self._load,
            "golden": self._check_golden,
            "measure": self._measure,
            "serve": self._serve,
        }
        try:
            while True:
                question = control.receive(self._asked)
                try:
                    answer = doing[question["do"]](question)
                except RefusalError as refusal:
                    answer = {"refused": refusal.blame, "why": refusal.why}
                except MemoryError:
                    answer = {
                        "refused": "misfit",
                        "why": "it needs more memory than it may use here",
                    }
                control.send(self._asked, answer)
        finally:
            os._exit(0)

    def _load(self, question: dict[str, Any]) -> dict[str, Any]:
        if self.folder is None:
            raise RefusalError("unavailable", "this worker was started without a package")
        brief = question["brief"]
        started = time.perf_counter()
        with self._bounded(question):
            loaded, low = self._session(self.folder, brief, background=question["background"])
        load_ms = (time.perf_counter() - started) * 1e3
        golden = brief["golden"]
        self._golden = golden and Golden(
            self.folder / golden["file"], loaded, rtol=golden["rtol"], atol=golden["atol"]
        )
        if self._golden is not None:
            self._prove(loaded, self._golden, question)
        self._loaded = loaded
        return {
            "nodes": loaded.nodes,
            "time": loaded.time,
            "compiled": loaded.compiled,
            "inputs": loaded.inputs,
            "outputs": loaded.outputs,
            "provider": loaded.provider,
            "wanted": loaded.wanted,
            "fallback": loaded.fallback,
            "priority": low,
            "load_ms": load_ms,
            "golden_runs": self._golden.runs if self._golden else 0,
        }

    def _prove(self, loaded: Loaded, golden: Golden, question: dict[str, Any]) -> None:
        """Where the time goes.  What does not run here is told by the golden check that follows."""
        try:
            with self._bounded(question):
                loaded.prove(golden.inputs)
        except Exception as error:  # noqa: BLE001  onnxruntime's errors share no base but this
            _leave_if_lost(error, loaded.provider)

    def _session(
        self, folder: Path, brief: dict[str, Any], *, background: bool
    ) -> tuple[Loaded, str]:
        """The model, and at which scheduling class it was loaded."""
        if background and priority.may_return():
            self._lowered = True
            low = priority.lower(priority.threads(self._tasks) or (0,))
            return Loaded(folder, brief, self._tell), low  # and stays there until `serve`
        if background and brief["threads"] == 1:  # no pool that would never be raised
            return priority.aside(lambda: Loaded(folder, brief, self._tell)), "load-only"
        return Loaded(folder, brief, self._tell), "normal"

    def _tell(self, provider: str) -> None:
        """Whom the model is being loaded on: it may take minutes, or be the last thing we do."""
        control.send(self._asked, {"doing": provider})

    def _check_golden(self, question: dict[str, Any]) -> dict[str, Any]:
        if self._golden is None:
            return failed("no model is loaded", blame="unavailable")
        with self._turn, self._bounded(question):
            return self._golden.check(lost=self._lost)

    def _lost(self, error: BaseException) -> None:
        if self._loaded is not None:
            _leave_if_lost(error, self._loaded.provider)

    def _measure(self, question: dict[str, Any]) -> dict[str, Any]:
        golden, loaded = self._golden, self._loaded
        if golden is None or loaded is None:
            raise RefusalError("unavailable", "no model is loaded")
        threads = question["threads"]
        with self._turn, self._bounded(question):
            return priority.aside(lambda: measure(loaded, golden.inputs, threads=threads))

    @contextlib.contextmanager
    def _bounded(self, question: dict[str, Any]) -> Iterator[None]:
        """Until it serves, what it is asked may take so much processor time and no more."""
        if self._serves:
            yield
            return
        jail.bound_cpu(question["cpu_s"])
        try:
            yield
        finally:
            jail.bound_cpu(None)

    def _serve(self, _: dict[str, Any]) -> dict[str, Any]:
        self._serves = True
        if not self._lowered:
            return {"normal": True}
        return {"normal": priority.restore(priority.threads(self._tasks) or (0,))}

    # ---- data -----------------------------------------------------------------------------------

    def score(self) -> None:
        """Jobs in, answers out, until the agent goes."""
        reader = frames.Reader()
        while chunk := self._data.recv(CHUNK_BYTES):
            for frame in reader.feed(chunk):
                if frame.kind == frames.RUN:
                    self._data.sendall(self._run(frame))
                elif frame.kind == frames.ECHO:
                    self._data.sendall(frames.pack(frames.FAILED, job=frame.job, body=frame.body))
                elif frame.kind == frames.GREW:
                    self._last = (b"", [], 0)  # views of a mapping that may be another by now
                    self._arena.follow(frame.number, frame.body.decode())

    def _run(self, frame: frames.Frame) -> bytes:
        started = time.perf_counter_ns()
        try:
            inputs, end = self._inputs(frame)
            if self._loaded is None:
                return _failed(frame.job, "no model is loaded", started)
            with self._turn:
                outputs = self._loaded.run(inputs)
            took = time.perf_counter_ns() - started
            return self._answer(frame, outputs, end, took)
        except Exception as error:  # noqa: BLE001  onnxruntime's errors share no base but this
            self._lost(error)
            return _failed(frame.job, of_run(error).why, started)

    def _inputs(self, frame: frames.Frame) -> tuple[list[frames.Array], int]:
        """The input arrays, over the arena, and where outputs may begin."""
        body, arrays, end = self._last
        if frame.body != body:
            arrays, end = frames.views(frame.body, frame.tensors, self._arena.memory)
            self._last = (frame.body, arrays, end)
        return arrays, end

    def _answer(
        self, frame: frames.Frame, outputs: list[frames.Array], start: int, took: int
    ) -> bytes:
        """Outputs go behind the inputs in the same slot; where they do not fit, down the socket."""
        count = len(outputs)
        if start + frames.room(outputs) > frame.number:
            if frames.room(outputs) > frames.FRAME_BYTES_MAX - SPARE_BYTES:
                most = frames.FRAME_BYTES_MAX >> 20
                return _failed(frame.job, f"its outputs are more than {most} MiB", 0)
            body = frames.inline(outputs)
            return frames.pack(frames.INLINE, job=frame.job, tensors=count, number=took, body=body)
        body = frames.entries(outputs, start)
        places, _ = frames.views(body, count, self._arena.memory)
        for place, output in zip(places, outputs, strict=True):
            place[...] = output
        return frames.pack(frames.ANSWER, job=frame.job, tensors=count, number=took, body=body)


def _leave_if_lost(error: BaseException, provider: str) -> None:
    """After a lost device every call fails, and only a fresh process may find it again: go, and
    leave the batch to whoever comes next.
    """
    if is_device(error, provider):
        sys.stderr.write(f"{provider}: {of_run(error).why}\n")
        sys.stderr.flush()
        os._exit(DEVICE_LOST)


def _failed(job: int, why: str, started: int) -> bytes:
    took = time.perf_counter_ns() - started if started else 0
    return frames.pack(frames.FAILED, job=job, number=took, body=why.encode())


def main(errand: dict[str, Any]) -> None:
    """The whole life of a worker."""
    jail.die_with_parent(errand["parent"])
    for ignored in (signal.SIGINT, signal.SIGTERM):  # the agent says when; it still has to drain
        signal.signal(ignored, signal.SIG_IGN)
    sys.setswitchinterval(SWITCH_S)
    data, asked, errand = arrival.joined(errand)
    failed = making.register(errand["outfit"])
    built = compiled_in()
    seen = hardware.devices()
    worker = Worker(errand, data, asked)
    warm_up()  # what is imported late could not be read from inside the jail
    accelerated = any(
        wish != CPU and PROVIDERS[wish].name in built
        for wish in providers.wishes(errand["providers"], built)
    )
    outfit = errand["outfit"]
    if worker.folder is not None and not worker.folder.is_dir():
        sys.exit(f"{worker.folder} is not there any more")  # without it no jail holds, either
    layers = jail.close_in(
        worker.folder,
        errand["memory_bytes"],
        accelerated=accelerated,
        readable=[*outfit.get("libraries", ()), *outfit.get("plugins", {}).values()],
        cache=outfit.get("cache", ""),
        cache_bytes=outfit.get("cache_bytes", 0),
    )
    hello = {
        "version": VERSION,
        "providers": providers.known(built),
        "jail": layers,
        "without": jail.without(layers),
        "devices": seen,
        "failed": failed,
    }
    control.send(asked, hello)
    threading.Thread(target=worker.answer_questions, name="control", daemon=True).start()
    worker.score()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
