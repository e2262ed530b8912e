"""Trust: nothing installs that was not signed for this (docs/spec/trust.md).

    refusal  the one error, and the words for what was wrong
    state    what is known, as one value to store; which time to believe
    gate     what metadata must look like before signatures are checked
    chain    TUF: from the root this device trusts to one model family
    decide   the rules on top: release counters, floors, signed overrides

Pure: bytes in, verdicts out.  Storing the state, in the same transaction as the decision that rests
on it, is for whoever asks.
"""

from agent.core.trust.chain import anchored, begin, expires
from agent.core.trust.decide import Accepted, refresh, resolve
from agent.core.trust.gate import BUNDLE_BYTES_MAX, ROOTS_MAX
from agent.core.trust.refusal import Kind, UntrustedError
from agent.core.trust.state import TrustState, latest, permits, trusted_now

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
