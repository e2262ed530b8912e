"""Whether this device can have a version: asked before it is fetched, and before it is loaded.

Asks the machine, the engine and the stream; the verdicts are the core's (`requirements`,
`contract`, `fitting`).  Every refusal is a MisfitError: the bytes are not to blame.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import structlog

import agent
from agent.core import contract, manifest, requirements
from agent.core.errors import MisfitError
from agent.core.fitting import MB, DropFirst, Have, Need, Overlap, Unschedulable, plan
from agent.core.names import ModelRef
from agent.core.packages import FileEntry, Package
from agent.core.requirements import Device
from agent.core.survey import Seen
from agent.ports import Engine, Machine, Memory, Store

logger = structlog.get_logger(__name__)


def manifest_first(package: Package) -> Sequence[FileEntry]:
    """Its files in the order to fetch them: what tells whether the rest is worth it, and the rest
    from small to large.
    """
    return sorted(package.files, key=lambda file: (file.path != manifest.MANIFEST, file.size))


class Assessor:
    """One for the device; its calls belong to the event loop."""

    def __init__(self, machine: Machine, engine: Engine, *, called: Sequence[str] = ()) -> None:
        """`called`: further names that signed metadata may know this hardware by."""
        self._machine = machine
        self._engine = engine
        self._called = tuple(called)
        self._placing = asyncio.Lock()

    async def demands(self, package: Package) -> None:
        """Before anything is fetched: what the signed metadata demands of the device.

        Raises:
            MisfitError: the device cannot meet it; the text says what would help.
        """
        requirements.check(package, await asyncio.to_thread(self._device))

    def _device(self) -> Device:
        return Device(
            agent=agent.__version__,
            onnxruntime=self._engine.version(),
            providers=self._engine.providers(),
            hardware=(self._machine.architecture(), *self._called),
            memory_mb=_have(self._machine.memory(), None).most_mb,
        )

    async def stream(
        self, package: Package, store: Store, look: Callable[[], Awaitable[Seen]]
    ) -> Sequence[str]:
        """Between the manifest and the rest: what the stream carries, held against the manifest.

        Gives warnings.  A manifest that is not there or damaged is not judged here: verifying does.

        Args:
            package: of which `model.toml` has been fetched.
            store: where it was fetched to.
            look: asks the stream's survey, on the lane's thread.

        Raises:
            MisfitError: the stream does not carry what the model wants.
            UnfitError: the manifest is none.
        """
        entry = next((file for file in package.files if file.path == manifest.MANIFEST), None)
        raw = await asyncio.to_thread(store.fetched, package, entry) if entry else None
        if raw is None:
            return ()
        findings = contract.check(manifest.parse(raw), await look())
        if findings.refusals:
            raise MisfitError(f"{package.ref} wants another stream: {'; '.join(findings.refusals)}")
        for warning in findings.warnings:
            logger.warning("contract", model=str(package.ref), why=warning)
        return tuple(findings.warnings)

    @asynccontextmanager
    async def placed(
        self, ref: ModelRef, need: Need, wish: str, *, active_bytes: int | None
    ) -> AsyncIterator[Overlap | DropFirst]:
        """While `ref` is loaded: how, and nothing else is loaded meanwhile, so that two versions
        are not both promised the same memory.

        Args:
            ref: what is to be loaded.
            need: what it needs.
            wish: `runtime.memory` of its manifest.
            active_bytes: what the active version uses; None where none is active.

        Raises:
            MisfitError: it fits neither beside the active version nor after it.
        """
        async with self._placing:
            memory = await asyncio.to_thread(self._machine.memory)
            decided = plan(
                need, _have(memory, active_bytes), "tight" if wish == "tight" else "roomy"
            )
            if isinstance(decided, Unschedulable):
                raise MisfitError(f"{ref} does not fit this device: {decided.why}")
            if decided.warning:
                logger.warning("memory", model=str(ref), why=decided.warning)
            yield decided


def _have(memory: Memory, active_bytes: int | None) -> Have:
    return Have(
        limit_mb=_mb(memory.limit_bytes),
        free_mb=_mb(memory.free_bytes),
        active_mb=_mb(active_bytes),
        source=memory.source,
    )


def _mb(size: int | None) -> float | None:
    return None if size is None else size / MB
