"""Trust as the whole agent shows it: what runs goes on, and every face says what is doubtful."""

import os
import subprocess
import sys
import time

import urllib3

from agent.repository.layout import Repository
from agent.repository.signing import TIMESTAMP_DAYS, Signing
from tests.world import zoo
from tests.world.site import DEVICE, ROOT, Site
from tests.world.waiting import eventually


def readings(first, last):
    return [{"ts": 1_700_000_000 + n, **{f"f{i}": (n + i) % 7 for i in range(8)}}
            for n in range(first, last)]  # fmt: skip


def page(site, path):
    return urllib3.request("GET", f"http://{site.http}{path}", retries=False).data.decode()


def command(*args):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-m", "agent", *args],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.stdout + ended.stderr


def doubts(site, kind):
    return [reason for reason in (site.state() or {}).get("reasons", ()) if reason.startswith(kind)]


def sign_as_if(repo, moment):
    """Sign all there is anew, by a clock that says `moment`."""
    Signing.open(repo.folder, clock=lambda: moment).publish(repo.packages())
    repo.write_bundle()


def test_signatures_that_run_out_stop_installs_and_nothing_else(broker, tmp_path):
    """[trust-3.1] [trust-3.7] T5: a frozen repository is refused, and the model keeps scoring."""
    with Site(broker, tmp_path) as site:
        one, two = (site.add(zoo.mlp(tmp_path / f"v{n}", name="m", bias=n)) for n in (1, 2))
        repo = Repository.open(tmp_path / "repo")
        site.start()
        eventually(site.state, 30)  # a start takes its time
        sign_as_if(repo, time.time() - TIMESTAMP_DAYS * 86400 + 12)
        site.desire("m", one)
        site.committed("m", one)
        assert doubts(site, "trust_stale") == []
        (stale,) = eventually(lambda: doubts(site, "trust_stale"), 30)
        assert "what runs goes on, nothing new is installed" in stale
        assert page(site, "/readyz") == f"ready: {stale}\n" or stale in page(site, "/readyz")

        site.desire("m", two)
        told = eventually(lambda: site.reported["code"] == 403 and site.reported, 20)
        assert told["why"].startswith("expired")
        site.readings(readings(0, 50))
        assert site.scored("m", 50).check() == 50
        assert site.state()["ready"]
        assert site.model("m")["active"]["release"] == one

        site.stop()  # and after a restart, before anything was heard
        site.start()
        site.ready()
        assert doubts(site, "trust_stale")
        site.readings(readings(50, 80))
        assert site.scored("m", 80).check() == 80

        sign_as_if(repo, time.time())
        site.desire("m", two)
        site.committed("m", two)
        eventually(lambda: not doubts(site, "trust_stale"), 10)


def test_where_nothing_need_be_signed_every_face_says_so(broker, tmp_path):
    """[trust-9.1]"""
    with Site(broker, tmp_path, trust="none") as site:
        release = site.add(zoo.mlp(tmp_path / "v1", name="m"))
        repo = Repository.open(tmp_path / "repo")
        for path in repo.metadata.glob("*.json"):
            if path.name != "catalog.json":
                path.unlink()
        repo.write_bundle()
        site.start()
        site.desire("m", release)
        site.committed("m", release)
        site.ready()

        state = site.state()
        assert state["agent"]["trust"].startswith("none: unsigned packages are installed")
        (doubt,) = [reason for reason in state["reasons"] if reason.startswith("trust_none")]
        told = eventually(lambda: site.reported if site.reported["ready"] else None, 10)
        assert told["agent"]["trust"] == state["agent"]["trust"]
        assert doubt in told["reasons"]
        assert page(site, "/readyz").startswith(f"ready: {doubt}")
        assert 'trust="none: unsigned' in page(site, "/metrics")
        script = page(site, "/app.js")  # draws all reasons, and among the facts this one
        assert "report.reasons" in script
        assert '"trust"' in script
        config = str(tmp_path / "agent.toml")
        assert "none: unsigned packages are installed" in command("check", "--config", config)
        fleet = command("status", "--mqtt", broker.url, "--device", DEVICE)
        assert "trust_none: unsigned packages" in fleet


def test_without_the_word_none_an_unsigned_package_is_not_installed(broker, tmp_path):
    """[trust-9.1]"""
    with Site(broker, tmp_path) as site:
        release = site.add(zoo.mlp(tmp_path / "v1", name="m"))
        repo = Repository.open(tmp_path / "repo")
        for path in repo.metadata.glob("*.json"):
            if path.name != "catalog.json":
                path.unlink()
        repo.write_bundle()
        site.start()
        site.desire("m", release)
        told = eventually(lambda: site.reported and site.reported["code"] == 403 and site.reported)
        assert told["why"].startswith("missing")
        assert not told["models"]
