"""The receipts of each model: numbered, signed if the device has a key, kept across restarts.

A receipt is written at the swap, so that no power cut can take it away, and again under the same
number when more is known; the last edition counts.  The newest few of each model are kept.

Each is told once, when it is complete.  One that a death has left incomplete is told at the next
start as it is: who keeps the books of what was taken back learns of it all the same.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from agent.core.envelope import plain, signed_bytes
from agent.core.errors import RefusedError, UnavailableError
from agent.core.strict import read_object
from agent.ports import Journal, Signer
from agent.runtime.receipts import SwapTrace

logger = structlog.get_logger(__name__)

SCHEMA = 1
RECEIPTS_MAX = 32  # of one model
BYTES_MAX = 128 * 1024  # of one model's, as they are stored

Envelope = Mapping[str, Any]  # {"receipt", "signature"}, see core.envelope


@dataclass(slots=True)
class _Page:
    """The trace whose receipt is being written, and how often it was."""

    trace: SwapTrace
    number: int
    edition: int = 0


class Archive:
    """One event loop's; what `envelopes` gives is never changed, so others may read it.

    Args:
        signer: the device's key; None: receipts are not signed, `unsigned` says why.
        tell: is told each receipt: kind, model, why, and the envelope.  What it was told is durable
            before what the journal is given afterwards.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        device: str,
        signer: Signer | None,
        tell: Callable[..., None],
        unsigned: str = "",
    ) -> None:
        self.signing = f"{signer.scheme} {signer.keyid[:8]}" if signer else f"none: {unsigned}"
        self._journal = journal
        self._device = device
        self._signer = signer
        self._tell = tell
        self._kept: dict[str, tuple[Envelope, ...]] = {}  # the oldest first
        self._open: dict[str, _Page] = {}
        self._owed: dict[str, set[int]] = {}  # numbers of those that nobody was told
        self._unsaved: set[str] = set()
        self._saving: asyncio.Task[None] | None = None

    def envelopes(self) -> Mapping[str, Sequence[Envelope]]:
        """What is kept, by model, the newest first."""
        return {model: kept[::-1] for model, kept in self._kept.items()}

    def newest(self, model: str) -> Mapping[str, Any]:
        """The last receipt of `model`; empty if there is none."""
        kept = self._kept.get(model)
        return kept[-1]["receipt"] if kept else {}

    async def reopen(self) -> None:
        """After a start: what was kept, and what is owed is told.  What is damaged is dropped: it
        is proof of nothing.
        """
        for model in await asyncio.to_thread(self._journal.models):
            raw = await asyncio.to_thread(self._journal.load_document, _name(model))
            if raw is None:
                continue
            try:
                self._kept[model], owed = _read(raw)
            except RefusedError as error:
                logger.warning("kept receipts are damaged, dropped", model=model, why=str(error))
                continue
            for envelope in self._kept[model]:
                if (receipt := envelope["receipt"])["number"] in owed:
                    self._tell(str(receipt.get("kind")), model, str(receipt.get("why")), **envelope)
            if owed:
                self._save(model)

    def take(self, model: str, trace: SwapTrace) -> "asyncio.Task[None]":
        """Write the receipt of `trace`, or write it again; on the event loop.  What is given back
        ends when that is durable, or cannot be.
        """
        page = self._open.get(model)
        if page is None or page.trace is not trace:
            page = _Page(trace, self.newest(model).get("number", 0) + 1)
            self._open[model] = page
            self._owed.setdefault(model, set()).add(page.number)
        page.edition += 1
        receipt = plain(
            {
                "schema": SCHEMA,
                "device": self._device,
                "model": model,
                "number": page.number,
                "edition": page.edition,
                **trace.document(),
            }
        )
        envelope = {"receipt": receipt, "signature": self._signature(receipt)}
        others = [e for e in self._kept.get(model, ()) if e["receipt"]["number"] != page.number]
        self._kept[model] = _bounded([*others, envelope])
        if trace.finished and page.number in self._owed[model]:
            self._owed[model].discard(page.number)
            self._tell(trace.kind, model, trace.why, **envelope)
        return self._save(model)

    async def close(self) -> None:
        """What was taken is durable, or cannot be."""
        if self._saving is not None:
            await self._saving

    def _signature(self, receipt: Mapping[str, Any]) -> Mapping[str, str] | None:
        if self._signer is None:
            return None
        sig = self._signer.sign(signed_bytes(receipt))
        return {"keyid": self._signer.keyid, "scheme": self._signer.scheme, "sig": sig}

    def _save(self, model: str) -> "asyncio.Task[None]":
        self._unsaved.add(model)
        if self._saving is None or self._saving.done():
            self._saving = asyncio.create_task(self._write(), name="receipts")
        return self._saving

    async def _write(self) -> None:
        failed = set()
        while self._unsaved:
            model = self._unsaved.pop()
            body = _bytes(self._kept[model], self._owed.get(model, ()))
            try:
                await asyncio.to_thread(self._journal.save_document, _name(model), body)
            except UnavailableError as error:
                failed.add(model)  # it goes along with the next
                logger.warning("receipts not kept", model=model, why=str(error))
        self._unsaved |= failed


def _name(model: str) -> str:
    return f"receipts:{model}"


def _bytes(envelopes: Sequence[Envelope], owed: Collection[int] = ()) -> bytes:
    return msgspec.json.encode({"schema": SCHEMA, "receipts": envelopes, "owed": sorted(owed)})


def _bounded(envelopes: Sequence[Envelope]) -> tuple[Envelope, ...]:
    """The newest of them, as many as are kept."""
    kept = tuple(envelopes)[-RECEIPTS_MAX:]
    while len(kept) > 1 and len(_bytes(kept)) > BYTES_MAX:
        kept = kept[1:]
    return kept


def _read(raw: bytes) -> tuple[tuple[Envelope, ...], Collection[int]]:
    """The receipts, and the numbers of those that nobody was told.

    Raises RefusedError: it is not what was written.
    """
    document = read_object(raw, "the receipts", bytes_max=2 * BYTES_MAX)
    envelopes, owed = document.get("receipts"), document.get("owed", [])
    if not isinstance(envelopes, list) or not all(map(_is_envelope, envelopes)):
        raise RefusedError("the receipts are no list of receipts")
    if not isinstance(owed, list):
        raise RefusedError("what is owed is no list of numbers")
    return _bounded(envelopes), owed


def _is_envelope(value: object) -> bool:
    if not isinstance(value, dict) or not isinstance(receipt := value.get("receipt"), dict):
        return False
    return isinstance(receipt.get("number"), int) and isinstance(
        value.get("signature"), dict | None
    )
