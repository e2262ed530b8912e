"""`edge-agent deploy … --wait` beside a real agent: what it tells is what the agent shows."""

import os
import subprocess
import sys
import threading

import pytest

from tests.world import zoo
from tests.world.site import DEVICE, ROOT, Site
from tests.world.waiting import eventually


def readings(first, last):
    return [{"ts": 1_700_000_000 + n, **{f"f{i}": (n + i) % 7 for i in range(8)}}
            for n in range(first, last)]  # fmt: skip


def deploy(site, *more):
    words = ["deploy", "m", "--device", DEVICE, "--stream", "s", "--wait", "--timeout", "60"]
    where = ["--repo", str(site.folder / "repo"), "--mqtt", site.broker.url]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "400"}
    command = [sys.executable, "-m", "agent", *words, *where, *more]
    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_each_phase_is_told_with_its_evidence_and_the_receipt_at_the_end(broker, tmp_path):
    """[control-5.1] [control-5.2] [control-5.3]"""
    with Site(broker, tmp_path) as site:
        site.start()
        site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
        site.add(zoo.mlp(tmp_path / "v2", bias=0.0001, name="m"))
        bars = (
            "shadow.windows=100",
            "canary.windows=0",
            "probation.windows=100",
            "probation.time=0s",
        )
        done = threading.Event()

        def sensor():
            first = 0
            while not done.wait(0.05):
                site.readings(readings(first, first + 20))
                first += 20

        thread = threading.Thread(target=sensor)
        thread.start()
        try:
            with deploy(site, *(word for bar in bars for word in ("--set", bar))) as process:
                out, err = process.communicate(timeout=90)
        finally:
            done.set()
            thread.join()
        assert process.returncode == 0, (out, err)
        lines = [line.removeprefix(f"{DEVICE}: m:2 ") for line in err.splitlines()]
        for phase in ("shadow", "probation"):
            assert phase in lines, err
            (left,) = [line for line in lines if line.startswith(f"{phase}: ")]
            assert left.endswith("; passed")
            assert " of 100 windows" in left
            assert lines.index(phase) < lines.index(left)
        assert f"{DEVICE}: swap 1 → 2: no gap, no duplicates" in out
        assert out.endswith(f"committed on {DEVICE}\n")
        shown = {e["words"] for e in site.model("m")["trail"]}
        assert {line for line in lines if line.endswith("; passed")} == shown
        words = eventually(lambda: site.model("m")["receipt"]["complete"] and site.model("m"), 70)
        assert shown <= set(words["receipt"]["words"])


@pytest.mark.soak
def test_who_follows_a_wish_is_told_why_it_waits_and_that_a_newer_one_has_replaced_it(
    broker, tmp_path
):
    """[control-5.5] [control-5.6]"""
    with Site(broker, tmp_path) as site:
        site.start()
        site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
        before = set((tmp_path / "repo" / "blobs").rglob("*"))
        site.add(zoo.mlp(tmp_path / "v2", bias=0.0001, name="m"))
        for path in set((tmp_path / "repo" / "blobs").rglob("*")) - before:
            path.rename(f"{path}.away")
        with deploy(site) as second:
            eventually(lambda: site.model("m").get("phase") == "fetching", 30)
            eventually(lambda: site.model("m")["why"], 30)
            site.add(zoo.mlp(tmp_path / "v3", bias=0.0002, name="m"))
            with deploy(
                site, "--set", "probation.windows=0", "--set", "probation.time=0s"
            ) as third:
                _, told = second.communicate(timeout=60)
                out, err = third.communicate(timeout=60)
        assert third.returncode == 0, (out, err)
        assert second.returncode == 1, told
        lines = told.splitlines()
        assert any(line.startswith(f"{DEVICE}: m:2 fetching: ") for line in lines), told
        assert lines[-1].startswith(f"edge-agent: {DEVICE}: replaced: revision ")
        assert lines[-1].endswith(f" of {DEVICE} wishes for m:3 instead")
