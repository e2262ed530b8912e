"""The account of one stream and model: in = scored + rejected(reason) + expired + pending, exactly.

`pending` is kept in two parts, because they fare differently when the power goes: `held` readings
are in open windows, `flying` ones wait for their scores.  An account is stored in the same
transaction as the scores it counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Self

import orjson

from agent.core.health import Counts
from agent.runtime.shares import AHEAD, Shares


@dataclass(slots=True)
class Rescored:
    """How far a version's rows have been scored again, from row `since` on: all batches numbered
    below `seq` (-1: none), and the first `at` rows of those that have this number.
    """

    since: int
    seq: int = -1
    at: int = 0
    rows: int = 0  # that were scored again
    refused: int = 0  # that could not be

    def passed(self, seq: int, rows: int) -> None:
        """The next `rows` of a batch numbered `seq` are done."""
        self.seq, self.at = seq, rows + (self.at if seq == self.seq else 0)

    def document(self, kept: int) -> dict[str, int]:
        """For the receipt; `missing` are those of `kept` rows that the ring no longer had."""
        missing = max(0, kept - self.rows - self.refused)
        return {"rows": self.rows, "refused": self.refused, "missing": missing}


@dataclass(slots=True)
class Account:
    """In readings; `next_seq` and `tried` in score rows.  Touched by the lane's thread only."""

    readings: int = 0
    scored: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    expired: int = 0
    held: int = 0
    flying: int = 0
    next_seq: int = 0
    tried: int = 0  # rows ever of versions on trial, that might have had to be taken back
    last_score: float = 0.0  # wall seconds; 0: never
    rescored: Rescored | None = None  # of what the version tried last has said; None: nothing is

    def reject(self, reasons: Mapping[str, int]) -> None:
        """Count readings that will have no score, by reason."""
        for reason, n in reasons.items():
            if n:
                self.rejected[reason] = self.rejected.get(reason, 0) + n

    def counts(self) -> Counts:
        """As the reports show them."""
        return Counts(
            readings=self.readings,
            scored=self.scored,
            rejected=dict(self.rejected),
            expired=self.expired,
            pending=self.held + self.flying,
        )

    def encode(self, shares: Shares, kept: int = 0) -> bytes:
        """For the store, with what a restart has to know of the bursts that are under way.

        `kept` readings are in windows that are stored with it.
        """
        readings, rejected = shares.undone()
        undone = {"readings": readings, "rejected": rejected}
        more = {"undone": undone, AHEAD: shares.done().hex(), "kept": kept}
        return orjson.dumps({name: getattr(self, name) for name in _NAMES} | more)

    @classmethod
    def restored(cls, raw: bytes, *, redelivered: bool) -> Self:
        """The account as it was stored, after the process that kept it is gone.

        Bursts that were under way come again where the source still holds them (`redelivered`), and
        are taken out of the account.  Readings in windows that were stored are held on, until it
        is known whether a version goes on with them.  What else had no fate yet is lost with the
        process: expired.
        """
        document = orjson.loads(raw)
        undone, _ = document.pop("undone"), document.pop(AHEAD)
        kept = document.pop("kept", 0)
        if (rescored := document.pop("rescored", None)) is not None:
            document["rescored"] = Rescored(**rescored)
        account = cls(**document)
        if redelivered:
            account.readings -= undone["readings"]
            account.reject({reason: -n for reason, n in undone["rejected"].items()})
            account.rejected = {reason: n for reason, n in account.rejected.items() if n}
        unscored = account.readings - account.scored - sum(account.rejected.values())
        account.held, account.flying = min(kept, unscored), 0
        account.expired = unscored - account.held
        return account


_NAMES = [one.name for one in fields(Account)]  # asked for with each commit: no place for asdict
