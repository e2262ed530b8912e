"""What the lane's selector waits for: everything, or at rest only what brings no readings.

Two selectors with one list: to unregister and register at every rest would cost more.
"""

import contextlib
import selectors
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

Ready = AbstractSet[int]  # `id` of the things that are ready


class Descriptors:
    """Things by the descriptor they are known by; these come and go with connections.

    `wake` is waited for always, as the thing `None`.
    """

    def __init__(self, wake: int) -> None:
        self._all = selectors.DefaultSelector()
        self._at_rest = selectors.DefaultSelector()
        for selector in (self._all, self._at_rest):
            selector.register(wake, selectors.EVENT_READ, None)
        self._known: dict[int, tuple[object, int, bool]] = {}

    def watch(self, wanted: Mapping[int, tuple[object, int, bool]]) -> None:
        """Descriptor -> the thing, for what (EVENT_READ, EVENT_WRITE), and whether at rest too."""
        if wanted == self._known:
            return
        for descriptor, known in self._known.items():
            if wanted.get(descriptor) != known:
                for selector in (self._all, self._at_rest):
                    with contextlib.suppress(KeyError, ValueError, OSError):
                        selector.unregister(descriptor)
        for descriptor, (thing, mask, at_rest) in wanted.items():
            if self._known.get(descriptor) != (thing, mask, at_rest):
                self._all.register(descriptor, mask, thing)
                if at_rest:
                    self._at_rest.register(descriptor, mask, thing)
        self._known = dict(wanted)

    def ready(self, timeout_s: float) -> Ready:
        """What is, within `timeout_s`; as soon as anything is."""
        return {id(key.data) for key, _ in self._all.select(timeout_s)}

    def ready_at_rest(self, timeout_s: float) -> Ready:
        """As `ready`, of what is waited for at rest."""
        return {id(key.data) for key, _ in self._at_rest.select(timeout_s)}

    def close(self) -> None:
        """Let go of both selectors."""
        self._all.close()
        self._at_rest.close()
