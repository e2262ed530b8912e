"""One model on one stream, turned by hand as the lane would: readings in, scores out, books kept.

Readings are whole numbers that rise, and a score is the newest reading it was made of: so whatever
happens on the way, scores that rise came out in order and none is there twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import orjson

from agent.core.blocks import Block, Keys
from agent.core.manifest import Manifest
from agent.core.names import Digest, ModelRef
from agent.ports import Array, Burst, Record, TensorSpec
from agent.runtime.accounts import Account
from agent.runtime.holds import Hold, Holds
from agent.runtime.receipts import SwapTrace
from agent.runtime.scoring import Limits, Scoring
from agent.runtime.seats import Seat, ready
from tests.world.hours import HandClock
from tests.world.scripted import ListSource, ScriptedSession

TUMBLING_3 = {"kind": "tumbling", "size": "3"}


def ref(release: int, name: str = "m") -> ModelRef:
    """A version of `name`."""
    return ModelRef(name, release, Digest(f"sha256:{release:064x}"))


def manifest(**members: Any) -> Manifest:
    """The least a manifest must say, of one feature `v`, with `members` beside it."""
    least = {
        "name": "m",
        "features": {"names": ["v"]},
        "output": {"score": {"tensor": "y"}},
    }
    return Manifest.model_validate({**least, **members})


@dataclass
class River:
    """The scoring under test and all that came of it."""

    limits: Limits = field(default_factory=lambda: Limits(rows_max=4, tries_max=3))
    clock: HandClock = field(default_factory=HandClock)
    released: list[Seat] = field(default_factory=list)
    lost: list[tuple[Seat, str]] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    holds: Holds = field(default_factory=Holds)
    account: Account = field(default_factory=Account)

    def __post_init__(self) -> None:
        keys = Keys()
        for name in "abc":
            keys.index(name)
        self.scoring = Scoring(
            model="m",
            stream="s",
            topic="edge/d/scores/m",
            epoch=1,
            keys=keys,
            account=self.account,
            limits=self.limits,
            released=self.released.append,
            lost=lambda _, seat, why: self.lost.append((seat, why)),
        )
        self._source = ListSource()
        self._next = 1
        self._sessions: list[ScriptedSession] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()
        for session in self._sessions:
            session.close()

    def seat(self, release: int, *, late_s: float = 0.0, **members: Any) -> Seat:
        """A seat of release `release`; its session is scripted and closed with the river."""
        told = manifest(**members)
        window = None if told.window is None else told.window.length
        self._sessions.append(ScriptedSession(ref(release), window=window))
        return ready(told, self._sessions[-1], late_s)

    def stateful(self, release: int, *, width: int = 1) -> Seat:
        """A seat that adds up what each sensor sends: y = h' = h + x, `width` times."""

        def run(inputs: Sequence[Array]) -> Sequence[Array]:
            total = inputs[0] + inputs[1]
            return [total[:, :1], total]

        session = ScriptedSession(
            ref(release),
            inputs=[
                TensorSpec("x", "float32", (None, 1)),
                TensorSpec("h", "float32", (None, width)),
            ],
            outputs=[
                TensorSpec("y", "float32", (None, 1)),
                TensorSpec("k", "float32", (None, width)),
            ],
            run=run,
        )
        self._sessions.append(session)
        return ready(manifest(state={"h": "k"}), session, 0.0)

    def push(self, count: int = 1, keys: list[int] | None = None, rejected: int = 0) -> Hold:
        """A burst of `count` readings, each one more than the last."""
        values = np.arange(self._next, self._next + count, dtype=np.float64)
        self._next += count
        hold = self.holds.open(self._source, Burst("s", [b"x"] * count, self.clock.monotonic()))
        numbers = np.zeros(count, np.int32) if keys is None else np.array(keys, np.int32)
        block = Block(numbers, values, {"v": values}, self.clock.monotonic())
        if rejected:
            block.rejected["malformed"] = rejected
        self.scoring.push(block, hold, self.clock.monotonic())
        hold.parts -= 1
        return hold

    def turn(self) -> list[Record]:
        """One turn of the lane."""
        scoring, now = self.scoring, self.clock.monotonic()
        for one in scoring.seats():
            if not one.lost:
                scoring.collect(one, now)
        records = scoring.emit(now, self.clock.wall())
        scoring.due(now)
        scoring.hung(now)
        scoring.pump(now)
        self.records += records
        return records

    def swap(self, new: Seat | None, trace: SwapTrace | None = None) -> None:
        """`new` takes the stream."""
        self.scoring.swap(new, trace)

    def take_back(self, bad: Seat, good: Seat | None) -> None:
        """As a rollback does it: `good` takes the stream and what `bad` has not answered."""
        self.scoring.swap(good)
        self.scoring.take_from(bad, good)

    def finish(self) -> None:
        """Bring every worker back and let it answer until nothing is on its way."""
        for _ in range(10_000):
            if self.scoring.idle:
                self.turn()  # what was given up is settled in the turn after
                return
            for one in self.scoring.seats():
                if one.lost:
                    one.session.revive()
                    one.revived()
                one.session.answer(100)  # type: ignore[attr-defined]
            self.turn()
        raise AssertionError("it never comes to rest")

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The messages that went out."""
        return [orjson.loads(record.payload) for record in self.records]

    @property
    def scores(self) -> list[float]:
        """Every score, in the order they went out."""
        return [score for body in self.bodies for score in body["score"]]

    @property
    def by_release(self) -> list[tuple[int, float]]:
        """Every score with the release that gave it."""
        return [(body["release"], score) for body in self.bodies for score in body["score"]]

    def check(self) -> None:
        """The laws that hold at every moment."""
        counts = self.account.counts()
        assert counts.balanced, counts
        assert self.account.held >= 0, self.account
        assert self.account.flying >= 0, self.account
        assert self.scores == sorted(set(self.scores)), "repeated or out of order"
        next_seq = 0
        for record, body in zip(self.records, self.bodies, strict=True):
            assert body["seq"] == record.first_seq == next_seq, "a hole in the numbers"
            assert record.rows == len(body["score"])
            next_seq += record.rows
        assert self.account.next_seq == next_seq
