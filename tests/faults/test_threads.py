"""An exception that nobody has thought of, in each thread of the agent: none is dead in silence."""

import os
import time

from agent.runtime.watchdog import EXIT_STATUS
from tests.world import zoo
from tests.world.site import DEVICE, Site
from tests.world.stabbing import FOLDER
from tests.world.stream import Stream
from tests.world.waiting import eventually

LINK = f"mqtt-{DEVICE}"  # connects afresh; the others end the process
THREADS = ("lane", "sqlite", "ring", LINK, "web", "watchdog")
RATE = 100.0
NOTICED_S_MAX = 10.0  # and a thread that waits for something takes its time to meet it
GOES_ON_S = 2.0
AGAIN_S_MAX = 2.0
LOAD_MAX = 2.0  # with more to do, seconds say nothing


def stabbed(site, folder, name):
    """Have it happen; the process's exit status, or None, and how soon it has ended, or has not."""
    (folder / "writing").write_text(name)
    (folder / "writing").rename(folder / "name")
    eventually((folder / "done").exists, 10, f"there is a thread {name}; {site.log()[-2000:]}")
    (folder / "done").unlink()
    began = time.monotonic()
    within_s = GOES_ON_S if name == LINK else NOTICED_S_MAX
    while site.process.poll() is None and time.monotonic() - began < within_s:
        site.state()  # so that the web thread has something to do
        if caught(site, name):
            break
        time.sleep(0.02)
    return site.process.poll(), time.monotonic() - began


def caught(site, name):
    """Whether it fell into a callback of the web's event loop, which logs it and goes on."""
    return name == "web" and "Exception in callback" in site.log()


def test_an_exception_in_any_thread_is_seen_to_and_no_reading_is_lost(broker, tmp_path):
    """[durability-6.1] F18."""
    quiet = os.getloadavg()[0] < LOAD_MAX and "PYTEST_XDIST_WORKER" not in os.environ
    with Site(broker, tmp_path) as site:
        site.program = "tests.world.stabbing"
        site.environ = {FOLDER: str(tmp_path)}
        site.start()
        site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
        site.deploy(zoo.mlp(tmp_path / "v2", bias=1.0, name="m"))  # so that the ring has work
        with Stream(broker.port, RATE) as stream:
            for name in THREADS:
                status, seconds = stabbed(site, tmp_path, name)
                goes_on = name == LINK or caught(site, name)
                assert (status is None) == goes_on, site.log()[-3000:]
                if status is not None:
                    assert status in (1, EXIT_STATUS), (name, status, site.log()[-3000:])
                    site.start(ready=True)
                before = site.book("m").first_hand
                began = time.monotonic()
                eventually(lambda b=before: site.book("m").first_hand > b, 20, f"after {name}")
                again = time.monotonic() - began
                how = "went on" if status is None else f"ended after {seconds:.1f} s, started anew"
                print(f"{name}: {how}, scores {again:.2f} s later")
                assert eventually(site.state)["live"]
                quiet = quiet and os.getloadavg()[0] < LOAD_MAX
                assert not quiet or again <= AGAIN_S_MAX, name
            sent = stream.stop()
        books = site.scored("m", sent)
        assert books.check() == sent
        eventually(lambda: site.model("m")["counts"]["pending"] == 0, 10)
