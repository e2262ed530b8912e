"""Ready means: the live session reproduces its golden outputs now, not only when it was loaded."""

import psutil

from tests.world import zoo
from tests.world.site import Site
from tests.world.waiting import eventually


def workers(site):
    children = psutil.Process(site.process.pid).children(recursive=True)
    return {child for child in children if "agent.worker" in " ".join(child.cmdline())}


def test_a_live_session_that_is_wrong_is_not_ready_and_says_why(broker, tmp_path):
    """[rollout-4.2]"""
    with Site(broker, tmp_path, engine={"golden_s": 0.2}) as site:
        site.start()
        site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
        site.ready()
        golden = next((tmp_path / "store" / "models" / "sha256").glob("*/golden.npz"))
        # Change what the proof is held against: to a fresh worker the session is now wrong.
        golden.parent.chmod(0o755)
        golden.unlink()
        other = zoo.mlp(tmp_path / "other", name="m", bias=5.0)
        golden.write_bytes((other / "golden.npz").read_bytes())
        for worker in workers(site):
            worker.kill()
        state = eventually(
            lambda: next((s for s in [site.state()] if s and "golden" in str(s["reasons"])), None),
            20,
            "a reason that names the golden sample",
        )
        assert not state["ready"]
        assert state["live"]
