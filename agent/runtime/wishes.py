"""What is desired: documents in, resolved packages out to the drivers.  Level-triggered.

The last good document of each source is kept in the journal, so a device that starts without a
network knows what it was told.  A document that cannot be taken changes nothing and is answered in
`reported`.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Protocol

import structlog

from agent.core.errors import RefusedError, UnavailableError
from agent.core.packages import Package, describe, read
from agent.core.retry import delays
from agent.core.rollout import Desired as Wish
from agent.core.rollout import Floor, kept
from agent.core.wire import Desired, DesiredModel, overlay, parse_desired
from agent.ports import Fetcher, Journal
from agent.runtime.models import Model, Models

logger = structlog.get_logger(__name__)

OWN = "desired"
RETRY_S_FIRST, RETRY_S_MAX = 1.0, 120.0
FIRST_S_MAX = 10.0


class Resolver(Protocol):
    """Says which package a release is, out of metadata; the trust room is behind it."""

    def resolve(self, metadata: Mapping[str, bytes], name: str, release: int) -> Package:
        """Raises RefusedError where the metadata is not to be trusted or lacks the release."""
        ...

    def permits(self, name: str, release: int) -> bool:
        """Whether a release that is on this device already may be activated again."""
        ...

    def refresh(self, metadata: Mapping[str, bytes], names: Sequence[str]) -> None:
        """Learn keys, floors and the time, of the models `names` too.  Raises RefusedError."""
        ...

    def doubts(self, running: Mapping[str, int]) -> Sequence[str]:
        """What should be seen to, in sentences; `running` is model -> active release."""
        ...


class Wishes:
    """`code` and `why` say what became of the last document, as HTTP would."""

    def __init__(
        self,
        models: Models,
        journal: Journal,
        fetcher: Fetcher,
        resolver: Resolver,
        *,
        streams: list[str],
        factory: Mapping[str, tuple[str, Package]],
        refused: Callable[[str, str], None],
        changed: Callable[[], None],
        random: Random,
    ) -> None:
        self.code = 200
        self.why = ""
        self.revision = 0
        self.refusals: dict[str, str] = {}  # model -> why its wish cannot be taken
        self._models = models
        self._journal = journal
        self._fetcher = fetcher
        self._resolver = resolver
        self._streams = streams
        self._factory = factory
        self._refused = refused
        self._changed = changed
        self._random = random
        self._documents: dict[str, Desired] = {}
        self._raw: dict[str, bytes] = {}
        self._unsaved: dict[str, bytes] = {}  # of these, what the disk would not take yet
        self._renewed = asyncio.Event()

    async def remember(self, groups: list[str]) -> None:
        """Take up what was desired when the agent last ran, or came with the device, and every
        model that was there.

        Streams are read after this: factory models have their rows by then, and what is for them
        is left with its source while they load, for `FIRST_S_MAX` at the most; in the next start
        too, where none of their versions has come to be active.
        """
        for source in [OWN, *(f"{OWN}:{group}" for group in groups)]:
            raw = await asyncio.to_thread(self._journal.load_document, source)
            if raw:
                try:
                    self._documents[source] = parse_desired(raw)
                except RefusedError as error:  # of another version of this agent
                    logger.warning("what was desired is not understood", why=str(error))
                else:
                    self._raw[source] = raw
        self.revision = self._whole().revision
        firsts = {} if self._documents else self._factory
        await self._models.reopen(dict.fromkeys(firsts, FIRST_S_MAX))
        for name, (stream, _) in firsts.items():
            with contextlib.suppress(RefusedError):  # told when it is held against its wish
                await self._models.open(name, stream, waits_s=FIRST_S_MAX)
        self._renewed.set()

    async def take(self, group: str | None, raw: bytes) -> None:
        """A document came; empty means that it was taken down, which changes nothing."""
        source = OWN if group is None else f"{OWN}:{group}"
        if not raw or self._raw.get(source) == raw:
            return
        try:
            document = parse_desired(raw)
            before = self._documents.get(source)
            if before is not None and document.revision < before.revision:
                why = f"desired: revision {document.revision} is older than {before.revision}"
                raise RefusedError(why, 409)
        except RefusedError as error:
            logger.warning("desired refused", source=source, why=str(error))
            self.code, self.why = error.code, str(error)
            self._refused("", str(error))
            self._changed()
            return
        self._documents[source], self._raw[source] = document, raw
        self._unsaved[source] = raw
        await self._save()
        self.code, self.why = 200, ""
        self.refusals.clear()
        self.renew()

    async def _save(self) -> bool:
        """False if the disk says no.  Until it says yes the next start hears it from the broker,
        which retains it: nobody has to wait for that.
        """
        for source, raw in list(self._unsaved.items()):
            try:
                await asyncio.to_thread(self._journal.save_document, source, raw)
            except UnavailableError as error:
                logger.warning("what is desired is not stored yet", source=source, why=str(error))
                return False
            if self._unsaved.get(source) is raw:
                del self._unsaved[source]
        return True

    def wants(self, name: str) -> bool:
        """Whether a version of `name` is desired, or came with a device that was told nothing."""
        return name in (self._whole().models if self._documents else self._factory)

    def renew(self) -> None:
        """Hold every model against its wish once more."""
        self._renewed.set()

    def permits(self, name: str, release: int) -> bool:
        """Whether a release that is on this device already may be activated again."""
        return self._resolver.permits(name, release)

    async def run(self) -> None:
        """Until cancelled: whenever something is desired anew, tell the drivers."""
        waits = delays(RETRY_S_FIRST, RETRY_S_MAX, self._random)
        while True:
            await self._renewed.wait()
            self._renewed.clear()
            if await self._apply():
                waits = delays(RETRY_S_FIRST, RETRY_S_MAX, self._random)
            else:  # the weather: again later, or sooner if something new is desired
                try:
                    async with asyncio.timeout(next(waits)):
                        await self._renewed.wait()
                except TimeoutError:
                    self._renewed.set()

    def _whole(self) -> Desired:
        groups = [d for source, d in self._documents.items() if source != OWN]
        return overlay(groups, self._documents.get(OWN))

    async def _apply(self) -> bool:
        """False if a wish has to wait for the weather."""
        settled = await self._save()
        if not self._documents:
            for name, (stream, package) in self._factory.items():
                try:
                    await self._desire(name, DesiredModel(package.ref.release, stream), package)
                except RefusedError as error:
                    self._refuse(name, error)
                except UnavailableError as error:
                    settled = False
                    self.refusals[name] = f"waiting for the disk: {error}"
            return settled
        whole = self._whole()
        self.revision = whole.revision
        for name, wish in whole.models.items():
            try:
                package = await self._resolve(whole, name, wish)
                await self._desire(name, wish, package)
                if self.refusals.pop(name, None) == self.why:
                    self.code, self.why = 200, ""
            except RefusedError as error:
                self._refuse(name, error)
            except UnavailableError as error:
                settled = False
                self.refusals[name] = f"waiting for the repository: {error}"
        for name, model in self._models.rows.items():
            if name not in whole.models:
                await model.driver.submit(Wish(None))
            await self._outlaw(model)
        self._changed()
        return settled

    async def _outlaw(self, model: Model) -> None:
        """What may not be activated again is not gone back to, by nobody."""
        now = model.driver.now
        known = [ref for ref in (now.known_good, now.previous) if ref is not None]
        for ref in known:
            if ref.release >= now.floor and not self.permits(ref.name, ref.release):
                await model.driver.submit(Floor(ref.release + 1))

    def _refuse(self, name: str, error: RefusedError) -> None:
        why = str(error)
        if self.refusals.get(name) != why:
            logger.warning("wish refused", model=name, why=why)
            self._refused(name, why)
        self.refusals[name] = why
        self.code, self.why = error.code, why

    async def _desire(self, name: str, wish: DesiredModel, package: Package) -> None:
        model = await self._models.open(name, self._stream_of(name, wish))
        model.works.wished(package, wish.rollout)
        await model.driver.submit(Wish(package.ref))

    def _stream_of(self, name: str, wish: DesiredModel) -> str:
        """The stream that the wish names, or the one the model is on, or the only one there is."""
        if wish.stream is not None:
            return wish.stream
        if (model := self._models.rows.get(name)) is not None:
            return model.stream
        if name in self._factory:
            return self._factory[name][0]
        if len(self._streams) == 1:
            return self._streams[0]
        there = ", ".join(self._streams) or "none"
        raise RefusedError(f"{name}: say on which stream; this device has {there}", 400)

    async def _resolve(self, whole: Desired, name: str, wish: DesiredModel) -> Package:
        known = await asyncio.to_thread(self._known, name, wish.release)
        if known is not None:
            if not self._resolver.permits(name, wish.release):
                why = f"{name}:{wish.release} is below the security floor its repository has signed"
                raise RefusedError(why, 403)
            return known
        bundle: Mapping[str, bytes] = whole.metadata or {}
        if whole.metadata is not None:
            try:
                package = await asyncio.to_thread(
                    self._resolver.resolve, bundle, name, wish.release
                )
            except RefusedError as error:
                if error.code != 404:  # 404: the document came with older metadata
                    raise
                package = None
            if package is not None:
                await self._keep(package)
                return package
        bundle = await self._fetcher.metadata()
        package = await asyncio.to_thread(self._resolver.resolve, bundle, name, wish.release)
        await self._keep(package)
        return package

    def _known(self, name: str, release: int) -> Package | None:
        """A package that was resolved before and is still in play: no network is needed for it."""
        model: Model | None = self._models.rows.get(name)
        rollout = model.driver.now if model is not None else self._journal.load(name)
        if not any(ref.release == release for ref in kept(rollout)):
            return None
        raw = self._journal.load_document(f"package:{name}:{release}")
        return read(json.loads(raw)) if raw else None

    async def _keep(self, package: Package) -> None:
        raw = json.dumps(describe(package)).encode()
        name = f"package:{package.ref.name}:{package.ref.release}"
        await asyncio.to_thread(self._journal.save_document, name, raw)


__all__ = ["Resolver", "Wishes"]
