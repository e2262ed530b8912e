"""The account of one stream and model: in = scored + rejected(reason) + expired + pending, exactly.

`pending` is kept in two parts, because they fare differently when the power goes: `held` readings
are in open windows, `flying` ones wait for their scores.  An account is stored in the same
transaction as the scores it counts.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Self

import orjson

from agent.core.health import Counts


@dataclass(slots=True)
class Account:
    """Counts in readings; `next_seq` in score rows.  Touched by the lane's thread only."""

    readings: int = 0
    scored: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    expired: int = 0
    held: int = 0
    flying: int = 0
    next_seq: int = 0
    last_score: float = 0.0  # wall seconds; 0: never

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

    def encode(self) -> bytes:
        """For the store."""
        return orjson.dumps(asdict(self))

    @classmethod
    def restored(cls, raw: bytes, *, redelivered: bool) -> Self:
        """The account as it was stored, after the process that kept it is gone.

        Windows that were open are lost with it: their readings are expired.  Readings on their way
        come again where the source still holds them (`redelivered`), and are expired where not.
        """
        account = cls(**orjson.loads(raw))
        account.expired += account.held
        if redelivered:
            account.readings -= account.flying
        else:
            account.expired += account.flying
        account.held = account.flying = 0
        return account
