"""What operators see of a rollout: each phase with its evidence, in the same words everywhere."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
import typer
from typer.testing import CliRunner

from agent.commands import fleet as commands
from agent.config import Mqtt
from agent.core.health import ModelHealth, Version
from agent.core.names import Digest, ModelRef
from agent.core.packages import FileEntry, Package, digest_of
from agent.repository.conversation import Conversation
from agent.repository.layout import Repository
from tests.world.stand_in import StandIn
from tests.world.waiting import eventually

NAME = "pump-anomaly"
app = typer.Typer(pretty_exceptions_enable=False)
for function in (commands.status, commands.deploy):
    app.command()(function)

BARS = {"agreement": 0.98, "score_distance": 0.1, "errors": 0, "latency_ratio": 1.5}


def seen(phase, windows, verdict="WATCH", why="", **more):
    return {
        "phase": phase,
        "release": 7,
        "windows": windows,
        "wanted": 200,
        "agreement": 0.9928,
        "score_distance": 0.031,
        "bars": BARS,
        "errors": 0,
        "saturated": None,
        "skipped": 0,
        "deaths": 0,
        "hangs": 0,
        "latency_ms": {"p50": 1.0, "p99": 2.0},
        "before_p99_ms": None,
        "rss_mb": 48.1,
        "seconds": 12.3,
        "verdict": verdict,
        "why": why,
    } | more


def receipt(kind, old, new, number=2, *, complete=True, why=""):
    return {
        "kind": kind,
        "number": number,
        "edition": 1 + complete,
        "complete": complete,
        "from": {"release": old},
        "to": {"release": new},
        "why": why,
        "gap": 0,
        "duplicates": 0,
        "pause_ms": 4.0,
        "p99_ms": {"before": 1.0, "during": 1.2, "after": 1.1},
        "rss_mb": {"before": 48.0, "after": 47.0},
        "evidence": [],
    }


def health(phase, **more):
    """As the agent itself reports it."""
    active = Version(more.pop("active", 6), "sha256:a", provider="cpu", wanted="cpu")
    good = Version(more.pop("known_good", 6), "sha256:a")
    state = "Healthy" if phase == "steady" else "Transitioning"
    shown = ModelHealth("s", state, phase, active=active, known_good=good, **more)
    return shown.document()


SHADOW, PASSED = seen("shadow", 120), seen("shadow", 200, "PASS")
PROBATION = seen("probation", 200, "PASS", agreement=None, score_distance=None)
WORDS = "shadow: 120 of 200 windows, 99.2 % agree, score distance 0.031 (≤ 0.1), 0 errors"


def well(wish):
    """Committed; the figures of the receipt come last."""
    candidate = Version(7, "sha256:b")
    told = [
        health("fetching", candidate=candidate),
        health("shadow", candidate=candidate, progress=0.6, evidence=SHADOW),
        health("probation", candidate=candidate, active=7, trail=[PASSED]),
        health("steady", active=7, known_good=7, trail=[PASSED, PROBATION],
               receipt=receipt("swap", 6, 7, complete=False)),
        health("steady", active=7, known_good=7, trail=[PASSED, PROBATION],
               receipt=receipt("swap", 6, 7)),
    ]  # fmt: skip
    return [{"revision": wish.revision, "models": {NAME: one}} for one in told]


def badly(wish):
    """Rolled back out of probation."""
    candidate = Version(7, "sha256:b")
    failed = seen("probation", 9, "FAIL", "3 bad scores", agreement=None, score_distance=None)
    told = [
        health("probation", candidate=candidate, active=7, trail=[PASSED]),
        health("rolling-back", candidate=candidate, active=7, trail=[PASSED, failed]),
        health("steady", trail=[PASSED, failed], why=f"{NAME}:7 failed probation: 3 bad scores",
               receipt=receipt("rollback", 7, 6, why="3 bad scores")),
    ]  # fmt: skip
    return [{"revision": wish.revision, "models": {NAME: one}} for one in told]


@pytest.fixture
def repo(tmp_path):
    made = Repository.init(tmp_path / "repo")
    files = (FileEntry("model.onnx", 3, Digest(f"sha256:{7:064x}")),)
    made.write_packages([Package(ModelRef(NAME, 7, digest_of(NAME, files)), "7", files)])
    (made.metadata / "1.root.json").write_bytes(b'{"signed": {}}')
    return made


@pytest.fixture
def device(broker):
    with StandIn(broker.url, "pump-7") as it:
        it.report(revision=0, models={NAME: health("steady", receipt=receipt("swap", 5, 6, 1))})
        yield it


@pytest.fixture
def deploy(broker, repo):
    def invoke(*more):
        words = ["deploy", NAME, "--device", "pump-7", "--repo", str(repo.folder), "--wait"]
        env = {"EDGE_AGENT__MQTT__URL": broker.url, "COLUMNS": "400"}
        return CliRunner().invoke(app, [*words, "--timeout", "20", *more], env=env)

    return invoke


def test_deploy_tells_each_phase_as_it_is_entered_and_left_and_the_receipt(device, deploy):
    """[control-5.1] [control-5.2]"""
    device.script = well
    done = deploy()
    assert done.exit_code == 0, done.output
    lines = [line.removeprefix(f"pump-7: {NAME}:7 ") for line in done.stderr.splitlines()]
    passed = WORDS.replace("120", "200") + "; passed"
    at = [lines.index(word) for word in ("fetching", "shadow", passed, "probation")]
    assert at == sorted(at)
    assert lines.count(passed) == 1
    probation = "probation: 200 of 200 windows, 12.3 s, 0 errors; passed"
    assert lines.index(probation) > lines.index("probation")
    told = "swap 6 → 7: no gap, no duplicates, pause 4 ms, p99 1 → 1.2 → 1.1 ms, memory 48 → 47 MB"
    assert f"pump-7: {told}\ncommitted on pump-7\n" in done.stdout
    assert "not yet complete" not in done.stdout


def test_deploy_tells_a_script_the_same_as_an_object_on_each_line(device, deploy):
    """[control-5.1]"""
    device.script = well
    done = deploy("--json")
    steps = [json.loads(line) for line in done.stderr.splitlines()]
    (left,) = [s for s in steps if (s["step"], s["phase"]) == ("left", "shadow")]
    assert left["evidence"]["windows"] == 200
    assert left["words"].endswith("; passed")
    assert {(s["device"], s["model"], s["release"]) for s in steps} == {("pump-7", NAME, 7)}
    outcome = json.loads(done.stdout)["devices"]["pump-7"]
    assert (outcome["committed"], outcome["receipt"]["complete"]) == (True, True)


def test_a_rollback_is_told_with_the_evidence_against_it_and_its_receipt(device, deploy):
    """[control-5.2]"""
    device.script = badly
    done = deploy()
    assert done.exit_code == 1
    assert "9 of 200 windows, 12.3 s, 0 errors; failed: 3 bad scores" in done.stderr
    assert "pump-7: rollback 7 → 6: no gap" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("edge-agent: pump-7: rolled back: ")


WHY = "the repository does not answer: connection refused"


def waiting(wish):
    """It is fetched, and then the weather turns; somebody wishes for another release meanwhile."""
    here = {"candidate": Version(7, "sha256:b")}
    told = [health("fetching", **here), health("fetching", **here, why=WHY)]
    return [{"revision": wish.revision, "models": {NAME: one}} for one in told]


def wished_for_8(broker, device):
    def script(wish):
        if wish.models[NAME].release == 8:
            gone = health("fetching", candidate=Version(8, "sha256:c"))
            return [{"revision": wish.revision, "models": {NAME: gone}}]
        newer = {"schema": 1, "revision": wish.revision + 1, "models": {NAME: {"release": 8}}}
        with Conversation(Mqtt(url=broker.url)) as talk:
            talk.publish(device.topics.desired, json.dumps(newer).encode(), retain=True)
        return waiting(wish)

    return script


def test_a_reason_that_appears_within_a_phase_and_a_wish_that_replaces_ours_are_told(
    broker, device, deploy
):
    """[control-5.5] Nobody waits for the time to run out."""
    device.script = wished_for_8(broker, device)
    done = deploy("--timeout", "60")
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert sum(line.startswith(f"pump-7: {NAME}:7 fetching: {WHY}") for line in lines) >= 1
    instead = f"revision 2 of pump-7 wishes for {NAME}:8 instead"
    assert lines[-1] == f"edge-agent: pump-7: replaced: {instead}"
    assert any(line.startswith(f"pump-7: {NAME}:7 replaced: {instead}") for line in lines)


def test_a_script_is_told_a_reason_within_a_phase_and_of_the_newer_wish(broker, device, deploy):
    """[control-5.5]"""
    device.script = wished_for_8(broker, device)
    done = deploy("--timeout", "60", "--json")
    assert done.exit_code == 1
    steps = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert WHY in [s["why"] for s in steps if s["step"] == "told"]
    assert f"wishes for {NAME}:8" in steps[-1]["instead"]
    assert json.loads(done.stdout)["devices"]["pump-7"]["phase"] == "replaced"


def test_status_shows_the_words_of_deploy_and_of_the_device(broker, device):
    """[control-5.3]"""
    shown = health("shadow", candidate=Version(7, "sha256:b"), evidence=SHADOW)
    device.report(revision=1, models={NAME: shown, "quiet": health("steady")})
    env = {"EDGE_AGENT__MQTT__URL": broker.url, "COLUMNS": "400"}
    done = CliRunner().invoke(app, ["status"], env=env)
    assert f"pump-7: {NAME}:7 {WORDS}\n" in done.stdout
    assert done.stdout.count("windows") == 1
    assert shown["evidence"]["words"] == WORDS
    device.report(
        revision=1, models={NAME: shown | {"evidence": SHADOW | {"words": "other\n[red]"}}}
    )
    done = eventually(
        lambda: "other" in (d := CliRunner().invoke(app, ["status"], env=env)).stdout and d
    )
    assert f"{NAME}:7 other [red]\n" in done.stdout


def test_ctrl_c_ends_the_following_and_never_the_wish(broker, repo, device):
    """[control-5.4]"""
    waiting = threading.Event()

    def script(wish):
        waiting.set()
        return well(wish)[:2]

    device.script = script
    words = ["deploy", NAME, "--device", "pump-7", "--repo", str(repo.folder), "--wait"]
    env = {**os.environ, "EDGE_AGENT__MQTT__URL": broker.url, "COLUMNS": "400"}
    with subprocess.Popen(
        [sys.executable, "-m", "agent", *words],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert waiting.wait(20)
            line = ""
            while f"{NAME}:7 shadow" not in line:
                line = process.stderr.readline()
                assert line, "it ended"
            process.send_signal(signal.SIGINT)
            _, rest = process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "the wish stands" in rest
    assert "Traceback" not in rest
    assert device.wishes[-1].models[NAME].release == 7
