"""When to connect again.  Pure: told the time, and given the dice.

Full jitter, so that a fleet does not come back in one wave; a connection resets the count only once
it has lived a while, so that a broker which drops us at once is not hammered.  A cut concerns us
alone, and we are back soon.  A broker that hangs up or says it shuts down, or whose machine
is there without it, has left everybody, and everybody comes back: that is spread wider.  Two
clients with one id throw each other out for ever: that fight is noticed and left.
"""

import math
from collections import deque
from collections.abc import Callable

DELAY_S_MIN = 1.0
STEADY_S = 10.0  # a connection that lived this long counts as good
TAKEOVER_WINDOW_S = 600.0
TAKEOVERS_TOLD = 3  # the broker said that somebody else uses our id
TAKEOVERS_GUESSED = 6  # MQTT 3.1.1 cannot say so: dropped soon, and let in at once, again and again
TOLD_DELAY_S = 300.0  # to twice this
FIGHT_S = 2 * TOLD_DELAY_S + TAKEOVER_WINDOW_S  # without a takeover, and the fight is over
GUESSED_DELAY_S = 60.0


class Redial:
    """The delays of one client.

    Args:
        client_id: for the sentence about somebody else who uses it.
        delay_s_max: where doubling ends.
        delay_s_first: where it begins; many clients of one broker come back over that time.
        dice: uniform over [0, 1).
        spread_s: over how long to come back to a broker that went away from under a link that had
            stood for a while.
    """

    def __init__(
        self,
        client_id: str,
        *,
        delay_s_max: float,
        dice: Callable[[], float],
        delay_s_first: float = DELAY_S_MIN,
        spread_s: float = 0.0,
    ) -> None:
        self._client_id = client_id
        self._delay_s_max = delay_s_max
        self._delay_s_first = delay_s_first
        self._dice = dice
        self._spread_s = spread_s
        self._failures = 0
        self._stood = False  # the last connection did, for a while
        self._fought = -math.inf  # when the last takeover of a fight was
        self._told: deque[float] = deque(maxlen=TAKEOVERS_TOLD)
        self._quick: deque[float] = deque(maxlen=TAKEOVERS_GUESSED)

    def failed(self, *, refused: bool = False) -> float:
        """No connection came about; returns the seconds to wait.

        `refused`: the machine is there, and no broker.
        """
        self._quick.clear()  # the broker was away: no fight over an id
        return self._backed_off(everybody=refused)

    def lost(
        self, now: float, *, lived_s: float, taken_over: bool | None, going: bool = False
    ) -> tuple[float, str]:
        """A connection that stood has ended; returns the seconds to wait, and a sentence.

        `going`: the broker hung up, or said that it shuts down.  `taken_over`: what it said of
        that; None where the protocol has no word for it.  The sentence is empty as long as nothing
        speaks for a second client.
        """
        if taken_over:
            self._told.append(now)
            if _full(self._told, now) or now - self._fought <= FIGHT_S:
                self._fought = now
                return self._left_alone(TOLD_DELAY_S, "another client uses")
        elif taken_over is None and lived_s < STEADY_S:
            self._quick.append(now)
            if _full(self._quick, now):
                return self._left_alone(GUESSED_DELAY_S, "another client may be using")
        self._stood = lived_s >= STEADY_S
        if self._stood:
            self._failures = 0
        return self._backed_off(everybody=going), ""

    def _backed_off(self, *, everybody: bool) -> float:
        cap = self._delay_s_first * float(1 << min(self._failures, 20))
        if everybody and self._stood:
            cap = max(cap, self._spread_s)
        self._failures += 1
        return min(self._delay_s_max, cap) * self._dice()

    def _left_alone(self, delay_s: float, who: str) -> tuple[float, str]:
        delay_s += delay_s * self._dice()
        sentence = (
            f"{who} the MQTT client id {self._client_id}; give each device an id of its own "
            f"(next attempt in {delay_s / 60:.0f} min)"
        )
        return delay_s, sentence


def _full(seen: deque[float], now: float) -> bool:
    return len(seen) == seen.maxlen and now - seen[0] <= TAKEOVER_WINDOW_S
