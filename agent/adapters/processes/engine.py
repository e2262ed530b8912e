"""The Engine of `isolation = "process"`: each version in a jailed process of its own."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from agent.adapters.processes.child import DIALS, Child
from agent.adapters.processes.choosing import Chooser, resolved
from agent.adapters.processes.compiled import Compiled, Shelf
from agent.adapters.processes.limits import Limits
from agent.adapters.processes.session import WorkerSession
from agent.core.accelerators import AUTO, CPU, Outfit, Trial, key_of
from agent.core.brief import Brief, brief
from agent.core.manifest import Manifest
from agent.core.names import ModelRef
from agent.ports import Notes, WorkerLostError
from agent.worker.providers import satisfies

PROBE_ARENA_BYTES = 1 << 16

log = structlog.get_logger(__name__)


class ProcessEngine:
    """See `agent.ports.Engine`.  onnxruntime is never imported into this process."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        dial: bool = DIALS,
        sealed: bool = True,
        outfit: Outfit | None = None,
        compiled: Compiled | None = None,
        notes: Notes | None = None,
    ) -> None:
        """`dial`: workers connect over the loopback, as on Windows.

        `sealed`: a folder must hold what the digest of its ref was made from, and nothing else;
        without, it may be one that its author still works in.

        `outfit`: what the configuration gives onnxruntime.  `compiled`: where compiled code is
        kept; None: nowhere.  `notes`: where it is remembered which provider was the fastest.
        """
        self._outfit = outfit or Outfit()
        self._compiled = compiled
        self._chooser = Chooser(notes)
        self._doing: dict[ModelRef, tuple[str, float]] = {}
        self._dial = dial
        self._sealed = sealed
        self._limits = limits or Limits()
        self._lock = threading.Condition()
        self._hello: Mapping[str, Any] | None = None
        self._on_their_way = 0  # workers that have not said hello yet

    def load(
        self, ref: ModelRef, folder: Path, manifest: Manifest, *, background: bool
    ) -> WorkerSession:
        """A session on the first wished provider that works; see the port for what it raises."""
        told = brief(
            manifest,
            sealed=ref if self._sealed else None,
            domains=self._limits.domains,
            outfit=self._outfit,
        )
        trials: Sequence[Trial] = ()
        if AUTO in told["providers"]:
            trials = self._trials(ref, folder, manifest, told)
            told["providers"] = resolved(told, trials)

        while True:
            session = self._session(
                ref, folder, manifest, told, background=background, trials=trials
            )
            if session.provider == CPU or not (doubt := _doubt(session)):
                return session
            session.close()
            log.warning("engine.not_trusted", model=str(ref), provider=session.provider, why=doubt)
            told["avoid"][session.provider] = doubt  # the next may do better; the CPU is the judge

    def _session(
        self,
        ref: ModelRef,
        folder: Path,
        manifest: Manifest,
        told: Brief,
        *,
        background: bool,
        trials: Sequence[Trial] = (),
    ) -> WorkerSession:
        def doing(provider: str) -> None:
            if provider:
                self._doing[ref] = (provider, time.monotonic())
            else:
                self._doing.pop(ref, None)

        shelf = self._shelf(ref, told)  # asks: not while a worker is awaited
        with self._awaited() as hello:
            return WorkerSession(
                ref,
                folder,
                manifest,
                told,
                self._limits,
                background=background,
                dial=self._dial,
                shelf=shelf,
                hello=hello,
                told=doing,
                trials=trials,
            )

    def doing(self, ref: ModelRef) -> str:
        """On whom `ref` is being loaded just now and for how long, for a person; empty if it is
        not.
        """
        provider, since = self._doing.get(ref, ("", 0.0))
        if not provider:
            return ""
        return f"being built for {provider}, {time.monotonic() - since:.0f} s so far"

    def _trials(
        self, ref: ModelRef, folder: Path, manifest: Manifest, told: Brief
    ) -> Sequence[Trial]:
        """What each provider that would do made of `ref` on this device."""

        def load(provider: str) -> WorkerSession:
            alone = {**told, "providers": [provider], "require": provider, "avoid": {}}
            alone["outfit"] = dict(told["outfit"])
            return self._session(ref, folder, manifest, alone, background=True)

        here = [one for one in self.providers() if satisfies(told["require"], one)]
        key = key_of(self._place(), told["outfit"], told["threads"], here)
        return self._chooser.trials(ref, key, here, load)

    def _shelf(self, ref: ModelRef, told: Brief) -> Shelf:
        """Where the compiled code of `ref` lies: by all that it depends on."""
        mode = self._outfit.compiled
        accelerated = any(one != CPU for one in told["providers"])
        if self._compiled is None or mode == "off" or not (accelerated or mode == "all"):
            return Shelf()
        if not self._sealed:
            return Shelf()  # the author's bytes may be others the next time
        first = told["providers"][0]  # what was tried alone is found again when it is chosen
        parts = (self._place(), asdict(self._outfit), told["threads"], first)
        return self._compiled.shelf(f"{ref.digest.partition(':')[2][:16]}-{key_of(*parts)}")

    def _place(self) -> tuple[Any, ...]:
        known = self._known()
        return known["version"], known["devices"]

    def providers(self) -> Sequence[str]:
        """Providers of this build of onnxruntime, best first, by our names."""
        return list(self._known()["providers"])

    def jail(self) -> str:
        """The layers that have held every worker so far, and those that some went without."""
        known = self._known()
        on = "+".join(known["jail"]) or "none"
        return f"{on} without {', '.join(known['without'])}" if known["without"] else on

    def version(self) -> str:
        """Of onnxruntime."""
        return str(self._known()["version"])

    def _known(self) -> Mapping[str, Any]:
        """What workers said of themselves; if there is none, nor about to be, an empty one is
        asked.
        """
        with self._lock:
            self._lock.wait_for(lambda: self._hello or not self._on_their_way)
            hello = self._hello
        return hello or self._meet(self._probed())

    @contextmanager
    def _awaited(self) -> Iterator[Callable[[Mapping[str, Any]], object]]:
        """A worker is about to say what others may be waiting to know: long before its model has
        been loaded.
        """
        with self._lock:
            self._on_their_way += 1
        try:
            yield self._meet
        finally:
            with self._lock:
                self._on_their_way -= 1
                self._lock.notify_all()

    def _probed(self) -> Mapping[str, Any]:
        probe = Child(
            None,
            providers=(CPU,),
            memory_bytes=self._limits.memory_bytes,
            arena_bytes=PROBE_ARENA_BYTES,
            start_s=self._limits.start_s,
            dial=self._dial,
            outfit=self._outfit.document(),
        )
        probe.close()
        return probe.hello

    def _meet(self, hello: Mapping[str, Any]) -> Mapping[str, Any]:
        """Remember what a worker said: a layer that one went without, nobody is said to have."""
        with self._lock:
            if self._hello is None:
                for name, why in hello["failed"].items():
                    log.warning("engine.library_failed", library=name, why=why)
            met = self._hello or {**hello, "without": []}
            news = [layer for layer in hello["without"] if layer not in met["without"]]
            if news:
                log.warning("engine.jail_incomplete", without=", ".join(news))
            without = [*met["without"], *news]
            on = [layer for layer in met["jail"] if layer not in without]
            self._hello = {**hello, "jail": on, "without": without}
            self._lock.notify_all()
            return self._hello


def _doubt(session: WorkerSession) -> str:
    """Why an accelerator does not run this version right; empty if it does."""
    try:
        golden = session.golden()
    except WorkerLostError as error:
        if session.device_lost:
            return str(error)
        session.close()
        raise
    return "" if golden.ok else golden.why
