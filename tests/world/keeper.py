"""What systemd is to an agent: starts it again when it has died, and counts how often."""

import signal
import threading
from collections.abc import Callable
from typing import Self

from tests.world.site import Site

LOOK_S = 0.02


class Keeper:
    """From entering to leaving the context; `deaths` are those by SIGKILL, `others` any other end.

    `died` is called after each death, in the keeper's thread, before the next start; what it raises
    is in `broken`.  The site's agent is to be stopped only after leaving.
    """

    def __init__(self, site: Site, died: Callable[[], None] = lambda: None) -> None:
        self.deaths = 0
        self._died = died
        self.others: list[int] = []
        self.broken: list[AssertionError] = []
        self._site = site
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper")

    def __enter__(self) -> Self:
        self._site.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(LOOK_S):
            status = self._site.process.poll()
            if status is None:
                continue
            if status == -signal.SIGKILL:
                self.deaths += 1
                try:
                    self._died()
                except AssertionError as error:
                    self.broken.append(error)
            else:
                self.others.append(status)
            self._site.start()
