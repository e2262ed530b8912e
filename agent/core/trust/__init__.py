"""Trust: nothing installs that was not signed for this (docs/spec/trust.md).

    refusal  the one error, and the words for what was wrong
    state    what is known, as one value to store; which time to believe
    gate     what metadata must look like before signatures are checked
    chain    TUF: from the root this device trusts to one model family
    decide   the rules on top: release counters, floors, signed overrides

Pure: bytes in, verdicts out.  Storing the state, in the same transaction as the decision that rests
on it, is for whoever asks.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from agent.core.trust.gate import BUNDLE_BYTES_MAX, ROOTS_MAX
from agent.core.trust.refusal import Kind, UntrustedError
from agent.core.trust.state import TrustState, expires, latest, permits, trusted_now

if TYPE_CHECKING:
    from agent.core.trust.chain import anchored, begin
    from agent.core.trust.decide import Accepted, refresh, resolve

# What reads signatures brings the TUF client and its cryptography along (0.1 s, more on a small
# device): a device that starts with what it has scores without them.
_LATE = {"anchored": "chain", "begin": "chain"}
_LATE |= {"Accepted": "decide", "refresh": "decide", "resolve": "decide"}

__all__ = [
    "BUNDLE_BYTES_MAX",
    "ROOTS_MAX",
    "Accepted",
    "Kind",
    "TrustState",
    "UntrustedError",
    "anchored",
    "begin",
    "expires",
    "latest",
    "permits",
    "refresh",
    "resolve",
    "trusted_now",
]


def __getattr__(name: str) -> object:
    if name not in _LATE:
        raise AttributeError(name)
    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
