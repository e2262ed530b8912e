"""The data connection: every MQTT stream of the device over one socket, read in bulk.

Driven by the lane's thread alone, through `ports.Source`; only the dial (DNS, TCP, TLS, CONNECT)
happens in a short-lived thread of its own, because it may wait.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.adapters.mqtt.connection import TAKEN_OVER
from agent.adapters.mqtt.dialler import Dialler
from agent.adapters.mqtt.feed import Feed
from agent.adapters.mqtt.options import CONNACK_S_MAX, Options
from agent.adapters.mqtt.packets import MalformedError, Scan, scan
from agent.adapters.mqtt.sorting import Sorter
from agent.config import Mqtt
from agent.core.errors import RefusedError
from agent.ports import Burst, Source

TICK_S = 1.0

log = structlog.get_logger(__name__)


class MqttSource(Source):
    """Readings of all MQTT streams, from one persistent session.

    Exactly once, as far as the broker keeps its side: a message is acknowledged when its burst is
    accepted, and one that comes again is not delivered again, neither after a lost connection nor,
    with the mark of `Burst.mark` given to `resume`, after a crash.  A message that matches several
    streams goes to each.  Retained messages are taken when the session is new, not at reconnects.
    What waits in `wants_write` is sent by `read`, `accept` and `tick`.

    Args:
        settings: the `[mqtt]` section, with a real address as `url`; `inflight_max` bounds how many
            QoS 1 messages an MQTT 5 broker sends ahead of their acceptance.
        client_id: MQTT client id and session name, not the link's.
        streams: (stream, topic filter, QoS 0 or 1).
        leaving: filters to unsubscribe; what the session still holds of them is read all the same.
        resends_plainly: the broker sends unacknowledged messages again without DUP and under new
            packet ids, as the embedded one does.
        clock: monotonic seconds; must agree with the `now` given to `tick`.

    Raises:
        RefusedError: `settings.url` is no address, or filters overlap without one covering the
            other.
    """

    def __init__(
        self,
        settings: Mqtt,
        *,
        client_id: str,
        streams: Sequence[tuple[str, str, int]],
        leaving: Sequence[str] = (),
        resends_plainly: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = f"mqtt:{client_id}"
        # A message that is too big comes too, to be counted: a broker that was told would drop it.
        self._options = Options(
            settings, client_id, receive_max=settings.inflight_max, takes_any=True
        )
        self._sorter = Sorter(streams, plain=resends_plainly)
        self._filters = {t: q for t, q in self._sorter.subscriptions.items() if t not in leaving}
        self._obsolete = list(leaving)
        self._clock = clock
        self._redial = self._options.redial()
        self._dialler = Dialler(self._options)
        self._next_dial = self._look_at = 0.0  # when the connection is next made, or seen to
        self._client: Feed | None = None
        self._parts: list[bytes] = []  # of a packet that has not come whole
        self._skip = 0  # bytes to come of a packet that is not taken in
        self._have, self._need = 0, 2
        self._answered = False  # CONNACK came: packet ids of this connection may be used
        self._is_up = False
        self._began = 0.0
        self._up_since = 0.0
        self._taken_over = False
        self._goodbye = ""  # what the broker said when it closed the connection
        self._why = f"not yet connected to {self._options.where}"

    @property
    def repeats(self) -> int:
        """Messages that the broker sent again and that were not delivered again."""
        return self._sorter.repeats

    # ---- the port ----

    def fileno(self) -> int | None:
        """The broker's socket; while dialling, one that tells of the end of the dial."""
        sock = self._client.socket() if self._client else None
        if sock is not None:
            return sock.fileno()
        return self._dialler.fileno() if self._dialler.is_busy else None

    def wants_write(self) -> bool:
        """Whether acknowledgements or the like wait to go out."""
        return self._client is not None and self._client.want_write()

    def read(self, readings_max: int) -> Sequence[Burst]:
        """All that the socket has, up to about `readings_max` messages."""
        self._take_dialled()
        client = self._client
        if client is None:
            return ()
        found = Scan()
        lost = ""
        try:
            while len(found.payloads) < readings_max or client.pending():
                chunk = client.receive()
                if chunk is None:
                    break
                self._digest(client, chunk, found)
                if client.is_drained(chunk):
                    break
        except (ConnectionError, MalformedError) as error:
            lost = str(error)
        # What came before the end counts, and may still be acknowledged on the next connection.
        bursts, acks, settled = self._sorter.sort(found, self._clock())
        if lost:
            self._drop(lost)
        elif acks:
            client.acknowledge(acks, settled)
        self._flush()
        return bursts

    def accept(self, tokens: Sequence[object]) -> None:
        """Acknowledge these bursts; ids of an earlier connection are not sent on this one."""
        mids, done = self._sorter.accept(tokens)
        if self._client is None or not self._answered:
            return  # the ids died with their connection; the sorter will know them if they return
        if mids:
            self._client.acknowledge(mids, done)
            self._flush()
        else:
            self._sorter.confirm(done)

    def resume(self, mark: bytes) -> None:
        """Before the first read, once per stream: what was accounted for when it last stopped.

        A filter that brought it then and is not wanted any more is unsubscribed, so the marks of
        streams that are gone are welcome too.  A mark that cannot be
        read is said in the log: the worst that comes of it is a repeated reading.
        """
        try:
            obsolete = self._sorter.resume(mark)
        except RefusedError as error:
            log.warning("mark_ignored", source=self.name, why=str(error))
            return
        if obsolete:
            self._obsolete.append(obsolete)

    def tick(self, now: float) -> float:
        """Keep-alive and reconnect; returns the monotonic time of the next call."""
        self._take_dialled()
        self._flush()
        client = self._client
        if client is None:
            if not self._dialler.is_busy and now >= self._next_dial:
                self._dialler.start()
            return now + TICK_S if self._dialler.is_busy else self._next_dial
        if now < self._look_at:  # we are asked after each read
            return self._look_at
        self._look_at = now + TICK_S
        client.keep_alive()
        if client.socket() is None:
            self._drop(f"the broker {self._options.where} does not answer any more")
        elif not self._answered and now - self._began > CONNACK_S_MAX:
            self._drop(f"the broker {self._options.where} took the connection but does not answer")
        elif self._is_up and self._options.renewed():
            self._drop("there are new certificates: connecting afresh")
        return now + TICK_S if self._client else self._next_dial

    def trouble(self) -> str:
        """Why no readings can come, in a sentence; also a subscription that the broker refused."""
        return self._why

    def close(self) -> None:
        """Disconnect.  The session stays with the broker, and in it what was not accepted."""
        self._dialler.close()
        client, self._client = self._client, None
        if client is not None:
            client.on_disconnect = None
            if self._answered:
                client.disconnect()
            client.hang_up()

    # ---- connecting ----

    def _take_dialled(self) -> None:
        outcome = self._dialler.take() if self._dialler.is_busy else None
        if outcome is None:
            return
        client, why = outcome
        if client is None:
            self._retry(self._redial.failed(), why)
            return
        client.ponged = self._sorter.confirm
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        self._parts, self._have, self._need, self._skip = [], 0, 2, 0
        self._taken_over, self._goodbye = False, ""
        self._began = self._clock()
        self._client = client

    def _retry(self, delay_s: float, why: str) -> None:
        if why != self._why:  # said once, not at each attempt
            log.warning("data_connection_down", why=why, retry_s=round(delay_s, 1))
        self._why = why
        self._next_dial = self._clock() + delay_s

    def _drop(self, why: str) -> None:
        """The connection is over; `why` where the broker has not said so itself."""
        client, self._client = self._client, None
        if client is None:
            return
        client.on_disconnect = None
        client.hang_up()
        was_up, self._is_up, self._answered = self._is_up, False, False
        why = self._goodbye or why
        if not was_up:
            self._retry(self._redial.failed(), why)
            return
        now = self._clock()
        told = self._taken_over if self._options.is_v5 else None
        delay_s, fight = self._redial.lost(now, lived_s=now - self._up_since, taken_over=told)
        self._retry(delay_s, fight or why)

    # ---- bytes ----

    def _digest(self, client: Feed, chunk: bytes, found: Scan) -> None:
        if self._skip:
            self._skip, chunk = max(0, self._skip - len(chunk)), chunk[self._skip :]
        self._parts.append(chunk)
        self._have += len(chunk)
        if self._have < self._need:  # joined once per packet, however many pieces it comes in
            return
        data = b"".join(self._parts)
        limit = self._options.packet_bytes_max
        while True:
            taken, self._need = scan(data, found, is_v5=self._options.is_v5, packet_bytes_max=limit)
            self._skip, found.skip = found.skip, 0
            others, found.others = found.others, []
            for head, body in others:
                client.feed(head, body)
            if found.payloads and not self._answered:
                found.clear()
                raise MalformedError("the broker sent messages before it let us in")
            data = data[taken:]
            if not taken or len(data) < self._need:
                break
        self._parts, self._have = [data], len(data)

    def _flush(self) -> None:
        client = self._client
        if client is not None:
            client.flush()
            if client.socket() is None:
                self._drop(f"the connection to {self._options.where} was lost while sending")

    # ---- told by paho, from within feed and tick ----

    def _on_connect(self, client: Any, _u: Any, flags: Any, reason: ReasonCode, _p: Any) -> None:
        if reason.is_failure:
            raise ConnectionRefusedError(self._options.refusal(reason))
        self._answered = True
        self._sorter.reconnected(kept=flags.session_present)
        if self._obsolete:
            client.unsubscribe(self._obsolete)
            self._obsolete = []
        if not self._filters:
            self._on_subscribe(client, None, 0, [], None)
        elif self._options.is_v5:
            # Retain handling 1: retained messages only where the subscription is new.
            asked = {t: SubscribeOptions(qos=q, retainHandling=1) for t, q in self._filters.items()}
            client.subscribe(list(asked.items()))
        else:
            client.subscribe(list(self._filters.items()))

    def _on_subscribe(self, _c: Any, _u: Any, _m: int, codes: list[ReasonCode], _p: Any) -> None:
        refused = [t for t, c in zip(self._filters, codes, strict=False) if c.is_failure]
        self._is_up = True
        self._up_since = self._clock()
        self._why = ""
        if refused:
            self._why = f"the broker refused the subscription to {', '.join(refused)}"
            log.warning("subscription_refused", topics=refused)
        log.info("data_connection_up", broker=self._options.where)

    def _on_disconnect(self, _c: Any, _u: Any, flags: Any, reason: ReasonCode, _p: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self._taken_over = reason.value == TAKEN_OVER
            self._goodbye = f"the broker {self._options.where} closed the data connection: {reason}"
