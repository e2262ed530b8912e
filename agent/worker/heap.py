"""Memory that is kept for later, given back once a session is gone: a swap must cost none for ever.

Not a promise: of the allocators only glibc's can be asked, and what lies between things that are
still in use stays.
"""

import contextlib
import ctypes
import functools
import gc


def give_back() -> None:
    """What nobody reaches any more, and what the C allocator holds; some 1 ms, the first time 20,
    in which no other thread of Python's runs.
    """
    gc.collect()
    _spare_what_lasts()
    with contextlib.suppress(OSError, AttributeError, TypeError):  # musl, macOS; Windows: no None
        ctypes.CDLL(None).malloc_trim(0)


@functools.cache
def _spare_what_lasts() -> None:
    """What has outlived a session, most of all what imports made, is not looked through again; once
    only, for what comes later has to be seen when it goes.
    """
    gc.freeze()
