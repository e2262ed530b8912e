"""Memory that the allocator keeps for later: given back to the system once a session is gone.

Not a promise: only glibc can be asked, and what lies between things that are still in use stays.
"""

import contextlib
import ctypes


def give_back() -> None:
    """What the C allocator holds and nobody uses; nothing where it cannot be asked."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # musl, macOS; Windows: no None
        ctypes.CDLL(None).malloc_trim(0)
