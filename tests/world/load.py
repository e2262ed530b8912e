"""Readings that a site's own consumer sends without a pause: something to swap under."""

import threading

from tests.world.main_job import reading

BURST = 20


class Load:
    """Bursts of readings, `pause_s` apart, until left; `sent` counts them."""

    def __init__(self, site, pause_s):
        self.site, self.sent = site, 0
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")

    def _run(self):
        while not self._stop.is_set():
            self.site.readings(reading(n) for n in range(self.sent, self.sent + BURST))
            self.sent += BURST
            self._stop.wait(self._pause_s)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
