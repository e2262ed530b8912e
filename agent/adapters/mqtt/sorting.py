"""From scanned packets to bursts per stream, and from accepted bursts to packet ids.  Pure.

The common case, all topics of a read belonging to one stream and nothing sent again, moves whole
lists and looks at no message by itself.
"""

from collections.abc import Iterable, Sequence

from agent.adapters.mqtt.filters import levels, matches, plan
from agent.adapters.mqtt.ledger import Ledger, Token, key, pack, unpack
from agent.adapters.mqtt.packets import BEYOND, DUP, RETAIN, Scan
from agent.ports import Burst

_Columns = tuple[list[bytes], list[bytes], list[bytes]]  # topics, payloads, packet ids

TOPICS_MAX = 100_000  # remembered; the publishers choose topics, so their number is not ours


class Sorter:
    """Knows which stream wants which topic, and which messages the broker may send again.

    Args:
        streams: (name, topic filter, QoS) of each stream; a message may match several.
        plain: how the broker sends again, see `Ledger`.

    `subscriptions` is what to subscribe to, with QoS.  `repeats` counts messages that came again
    and were not delivered again, `strays` those that no stream wants (a subscription of an earlier
    configuration), `stale` retained ones, left out because they came when the session was new.
    """

    def __init__(self, streams: Sequence[tuple[str, str, int]], *, plain: bool = False) -> None:
        self._names = [name for name, _, _ in streams]
        self._levels = [levels(topic) for _, topic, _ in streams]
        self.subscriptions, self._bringers = plan(streams)
        self._ledgers = [Ledger(plain=plain) for _ in streams]
        self._routes: dict[bytes, tuple[int, ...]] = {}
        self._shares: dict[bytes, list[Token]] = {}
        self._session_kept = False
        self.repeats = self.strays = self.stale = 0

    # ---- in ----

    def sort(self, found: Scan, arrived: float) -> tuple[list[Burst], list[bytes], list[Token]]:
        """Bursts for the lane; packet ids to acknowledge at once; tokens these ids settle."""
        if not found.payloads:
            return [], [], []
        if len(self._routes) > TOPICS_MAX:
            self._routes.clear()
        routes = {topic: self._route(topic) for topic in set(found.topics)}
        kinds = set(routes.values())
        replays = any(ledger.is_replaying for ledger in self._ledgers)
        plain_sailing = not (found.odd or found.beyond or replays)
        if plain_sailing and len(kinds) == 1 and len(kind := kinds.pop()) == 1:
            columns = (found.topics, found.payloads, found.mids)
            burst = self._burst(kind[0], columns, (), arrived)
            return [burst], [], []
        return self._one_by_one(found, routes, arrived)

    def _one_by_one(
        self, found: Scan, routes: dict[bytes, tuple[int, ...]], arrived: float
    ) -> tuple[list[Burst], list[bytes], list[Token]]:
        odd = dict(found.odd)
        columns: dict[tuple[int, bool], _Columns] = {}  # those too big apart
        acks: list[bytes] = []
        settled: list[Token] = []
        shared: dict[bytes, list[Token]] = {}  # packet ids of more than one owner
        for index, (topic, payload, mid) in enumerate(
            zip(found.topics, found.payloads, found.mids, strict=True)
        ):
            wanted = routes[topic]
            owners: list[Token] = []
            head = odd.get(index, 0)
            if head & RETAIN and self._session_kept:
                self.stale += 1
                wanted = ()
            elif not wanted:
                self.strays += 1
            if mid and (head & DUP or any(self._ledgers[s].is_replaying for s in wanted)):
                wanted, owners = self._again(wanted, mid, key(mid, topic, payload))
            for stream in wanted:
                place = stream, payload is BEYOND
                topics, payloads, mids = columns.setdefault(place, ([], [], []))
                topics.append(topic)
                payloads.append(payload)
                mids.append(mid)
            if not mid:
                continue
            if not wanted and all(owner.accepted for owner in owners):
                acks.append(mid)
                settled += owners
            elif len(wanted) + len(owners) > 1:
                shared[mid] = owners
            elif owners:
                owners[0].mids.append(mid)
        self._shares.update(shared)
        bursts = [
            self._burst(stream, found_for_it, shared, arrived, beyond=beyond)
            for (stream, beyond), found_for_it in columns.items()
        ]
        for mid, tokens in shared.items():
            for token in tokens:
                token.shared.add(mid)
        return bursts, acks, settled

    def _again(
        self, wanted: tuple[int, ...], mid: bytes, its_key: bytes
    ) -> tuple[tuple[int, ...], list[Token]]:
        """Streams that have not had the message; bursts that hold it, for those that have."""
        fresh: list[int] = []
        owners: list[Token] = []
        for stream in wanted:
            token = self._ledgers[stream].find(mid, its_key)
            if token is None:
                fresh.append(stream)
                continue
            self.repeats += 1
            if token.accepted:
                token = Token(keys=its_key, accepted=True)
                self._ledgers[stream].add(token)
            owners.append(token)
        return tuple(fresh), owners

    def _burst(
        self,
        stream: int,
        columns: _Columns,
        shared: Iterable[bytes],
        arrived: float,
        *,
        beyond: bool = False,
    ) -> Burst:
        topics, payloads, mids = columns
        name = self._names[stream]
        token = mark = None
        ids = b""
        if any(mids):
            ledger = self._ledgers[stream]
            ledger.used(mids)
            with_mid = zip(mids, topics, payloads, strict=True)
            keys = b"".join([key(m, t, p) for m, t, p in with_mid if m])
            token = Token(keys, [m for m in mids if m])
            ids = keys if all(mids) else b""
            if shared:
                for mid in set(token.mids) & set(shared):
                    token.mids.remove(mid)
                    self._shares[mid].append(token)
            ledger.add(token)
            mark = pack(name, self._bringers[name], ledger.mark())
        if beyond:
            return Burst(name, (), arrived, (), token, mark, oversize=len(payloads))
        return Burst(name, payloads, arrived, topics, token, mark, ids)

    # ---- out ----

    def accept(self, tokens: Sequence[object]) -> tuple[list[bytes], list[Token]]:
        """Packet ids to acknowledge now; tokens that are settled once the broker has read them."""
        mids: list[bytes] = []
        done: list[Token] = []
        for token in tokens:
            if not isinstance(token, Token) or token.accepted:
                continue
            token.accepted = True
            mids += token.mids
            if not token.shared:
                done.append(token)
            for mid in tuple(token.shared):
                owners = self._shares[mid]
                if all(owner.accepted for owner in owners):
                    del self._shares[mid]
                    mids.append(mid)
                    for owner in owners:
                        owner.shared.discard(mid)
                    done += [owner for owner in owners if not owner.shared]
        return mids, done

    def confirm(self, tokens: Iterable[Token]) -> None:
        """The broker has read the acknowledgements of these."""
        for token in tokens:
            token.confirmed = True
        for ledger in self._ledgers:
            ledger.confirm()

    # ---- across connections and restarts ----

    def reconnected(self, *, kept: bool) -> None:
        """A connection stands; `kept`: the broker still has our session."""
        self._session_kept = kept
        self._shares.clear()
        for ledger in self._ledgers:
            ledger.reconnected(kept=kept)

    def resume(self, mark: bytes) -> str:
        """Take over what an earlier process had accounted for.

        Returns the topic filter that brought it if that is not subscribed any more, else "".  The
        mark of a stream that is gone is good for that as well.

        Raises:
            RefusedError: the mark is none.
        """
        name, topic_filter, keys = unpack(mark)
        if name in self._names:
            self._ledgers[self._names.index(name)].load(keys)
        return "" if topic_filter in self.subscriptions else topic_filter

    def _route(self, topic: bytes) -> tuple[int, ...]:
        known = self._routes.get(topic)
        if known is None:
            parts = topic.decode("utf-8", "surrogateescape").split("/")
            known = tuple(i for i, want in enumerate(self._levels) if matches(want, parts))
            self._routes[topic] = known
        return known
