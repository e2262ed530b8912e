"""The Engine of `isolation = "process"`: each version in a jailed process of its own."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from agent.adapters.processes.child import DIALS, Child
from agent.adapters.processes.limits import Limits
from agent.adapters.processes.session import WorkerSession
from agent.core.brief import brief
from agent.core.manifest import Manifest
from agent.core.names import ModelRef
from agent.worker.providers import CPU

PROBE_ARENA_BYTES = 1 << 16

log = structlog.get_logger(__name__)


class ProcessEngine:
    """See `agent.ports.Engine`.  onnxruntime is never imported into this process."""

    def __init__(
        self, limits: Limits | None = None, *, dial: bool = DIALS, sealed: bool = True
    ) -> None:
        """`dial`: workers connect over the loopback, as on Windows.

        `sealed`: a folder must hold what the digest of its ref was made from, and nothing else;
        without, it may be one that its author still works in.
        """
        self._dial = dial
        self._sealed = sealed
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self._hello: Mapping[str, Any] | None = None

    def load(
        self, ref: ModelRef, folder: Path, manifest: Manifest, *, background: bool
    ) -> WorkerSession:
        """A session on the first wished provider that works; see the port for what it raises."""
        session = WorkerSession(
            ref,
            folder,
            manifest,
            brief(manifest, sealed=ref if self._sealed else None, domains=self._limits.domains),
            self._limits,
            background=background,
            dial=self._dial,
        )
        self._meet(session.hello)
        return session

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
        """What workers said of themselves; before there was one, an empty one is asked."""
        with self._lock:
            hello = self._hello
        return hello or self._meet(self._probed())

    def _probed(self) -> Mapping[str, Any]:
        probe = Child(
            None,
            providers=(CPU,),
            memory_bytes=self._limits.memory_bytes,
            arena_bytes=PROBE_ARENA_BYTES,
            start_s=self._limits.start_s,
            dial=self._dial,
        )
        probe.close()
        return probe.hello

    def _meet(self, hello: Mapping[str, Any]) -> Mapping[str, Any]:
        """Remember what a worker said: a layer that one went without, nobody is said to have."""
        with self._lock:
            met = self._hello or {**hello, "without": []}
            news = [layer for layer in hello["without"] if layer not in met["without"]]
            if news:
                log.warning("engine.jail_incomplete", without=", ".join(news))
            without = [*met["without"], *news]
            on = [layer for layer in met["jail"] if layer not in without]
            self._hello = {**hello, "jail": on, "without": without}
            return self._hello
