"""docs/runbook.md, by the letter: what can run here is run, in order, against a real agent.

A block of the page is `sh` (run to its end), `sh background` (runs until the end of the test), `sh
stop` (stops what began so), or `sh site`, which needs a cloud, a cluster or a container engine: of
these only our own part is checked.
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.world.broker import Broker, free_port
from tests.world.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^```sh ?(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = FENCED.findall(PAGE)
OTHERS = {"az", "curl", "docker", "iotedge", "kubectl", "sudo", "edge-agent"}


class Desk:
    """Somebody who follows the page, on a machine where its folders and addresses lie elsewhere."""

    def __init__(self, folder, broker):
        self.folder = folder
        self.places = {
            "/etc/edge-agent": str(folder / "etc"),
            "/var/lib/edge-agent": str(folder / "var"),
            "mqtt://broker.plant:1883": broker.url,
            "127.0.0.1:8080": f"127.0.0.1:{free_port()}",
        }
        programs = folder / "bin"
        programs.mkdir()
        for name, words in {"edge-agent": "-m agent", "python3": ""}.items():
            (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
            (programs / name).chmod(0o755)
        self.env = {
            **os.environ,
            "HOME": str(folder),
            "PATH": f"{programs}:{os.environ['PATH']}:/usr/sbin",
            "PYTHONPATH": str(ROOT),
        }
        self.running = {}
        (folder / "background.log").touch()
        self.settings = ""

    def put(self, text):
        """The text of a block, with this desk's places in it."""
        for place, here in self.places.items():
            text = text.replace(place, here)
        return text

    def do(self, text):
        """Run a block to its end; the first command that fails ends the test."""
        script = self.settings + self.put(text)
        if text.startswith("export"):
            self.settings = self.put(text)
        done = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", script],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}\n{self.logs()}"

    def begin(self, text):
        name = " ".join(shlex.split(text)[:3])
        with (self.folder / "background.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", self.settings + "exec " + self.put(text)],
                cwd=ROOT,
                env=self.env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self, text):
        """Stop the background command that begins with `text`."""
        name = next(name for name in self.running if name.startswith(text.strip()))
        process = self.running.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)

    def logs(self):
        return (self.folder / "background.log").read_text(errors="replace")[-3000:]


@pytest.fixture
def desk(tmp_path):
    (tmp_path / "etc").mkdir()
    users = tmp_path / "etc" / "mosquitto-passwd"
    users.touch(mode=0o600)
    with Broker(extra=[f"password_file {users}"]) as broker:
        made = Desk(tmp_path, broker)
        made.broker = broker
        yield made
        for name in list(made.running):
            made.end(name)


def follow(desk, page):
    for kind, text in FENCED.findall(page):
        if kind == "background":
            desk.begin(text)
        elif kind == "stop":
            desk.end(text)
        elif kind == "":
            desk.do(text)
            if "mosquitto_passwd" in text:
                os.kill(desk.broker.pid, signal.SIGHUP)
            if ".new" in text:
                refuses_the_old_password_and_takes_the_new_one(desk)


def test_whoever_follows_the_page_installs_a_device_and_reads_its_health(desk):
    installing = PAGE[: PAGE.index("\n## 3 ")]
    follow(desk, installing)
    assert "edge-agent run --config" in desk.running


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_whoever_follows_the_page_to_its_end_gets_there(desk):
    kinds = [kind for kind, _ in BLOCKS]
    assert kinds.count("") >= 8
    assert kinds.count("background") == 4
    follow(desk, PAGE)


def refuses_the_old_password_and_takes_the_new_one(desk):
    desk.broker.restart()

    def is_back():
        said = desk.broker.log.read_text(errors="replace").rsplit("starting", 1)[-1]
        return "u'edge-agent'" in said

    eventually(is_back, 60, "the agent, with the new password")


def test_the_rest_of_the_page_names_files_options_and_settings_that_exist():
    site = [text for kind, text in BLOCKS if kind == "site"]
    assert len(site) >= 6
    for line in "".join(site).splitlines():
        words = shlex.split(line)
        assert words[0] in OTHERS, line
        for word in words:
            if word.startswith(("module-manifests/", "docs/", "Dockerfile")):
                assert (ROOT / word).is_file(), line
        if words[0] == "edge-agent":
            run = [sys.executable, "-m", "agent", words[1], "--help"]
            told = subprocess.run(run, check=True, capture_output=True, text=True, cwd=ROOT).stdout
            assert {w for w in words if w.startswith("--")} <= set(re.findall(r"--[a-z-]+", told))
