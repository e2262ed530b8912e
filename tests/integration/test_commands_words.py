"""What commands say to people and scripts: whole lines in a pipe, one sentence where they fail."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.world import zoo
from tests.world.stand_in import StandIn, model

ROOT = Path(__file__).resolve().parents[2]
MODEL = "pump-anomaly-of-the-third-line"


@pytest.fixture
def say(tmp_path):
    """Runs `edge-agent WORDS` as a pipe sees it; gives its exit status, stdout and stderr."""

    def run(*words, **settings):
        environ = {k: v for k, v in os.environ.items() if not k.startswith("EDGE_AGENT")}
        environ |= {"PYTHONPATH": str(ROOT), "COLUMNS": "80", **settings}
        done = subprocess.run(
            [sys.executable, "-m", "agent", *map(str, words)],
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def package(tmp_path):
    return zoo.mlp(tmp_path / "package", name="m")


def test_status_in_a_pipe_cuts_nothing_off(say, broker):
    with StandIn(broker.url, "pump-7-of-the-third-line") as device:
        device.report(models={MODEL: model(state="Healthy")})
        code, told, _ = say("status", "--mqtt", broker.url)
    assert code == 0
    assert "…" not in told
    assert "pump-7-of-the-third-line" in told
    assert MODEL in told


def test_the_table_of_providers_says_which_extra_each_comes_with(say):
    code, told, _ = say("providers")
    assert code == 0
    assert "comes with edge-model-agent[openvino]" in told or "openvino      yes" in told


def test_a_description_is_shown_as_it_was_written(say, tmp_path):
    package = zoo.mlp(tmp_path / "package", name="m", description="[/x] of [bold]")
    code, told, why = say("model", "show", package)
    assert (code, why) == (0, "")
    assert "[/x] of [bold]" in told


def test_an_encoding_without_arrows_costs_the_arrows_only(say, broker):
    with StandIn(broker.url, "d") as device:
        device.report(models={MODEL: model(state="Healthy", why="1 → 2")})
        code, told, why = say("status", "--mqtt", broker.url, PYTHONIOENCODING="cp1252")
    assert (code, why) == (0, "")
    assert "1 ? 2" in told


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
def test_output_that_nothing_takes_is_one_sentence(say, package):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "agent", "model", "show", package],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["edge-agent: [Errno 28] No space left on device"]


def test_ctrl_c_while_a_command_is_being_imported_leaves_no_traceback():
    interrupted = """
import sys

class CtrlC:
    def find_spec(self, name, *_):
        if name == "agent.commands.menu":
            raise KeyboardInterrupt

sys.meta_path.insert(0, CtrlC())
from agent.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", interrupted],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize(
    "words",
    [
        ("rollback", "m", "--device", "d"),
        ("command", "d", "ping"),
        ("receipts", "list", "--device", "d"),
        ("deploy", "m", "--device", "d"),
    ],
)
def test_nobody_waits_for_less_than_no_time(say, words):
    code, told, why = say(*words, "--timeout", "-1", "--mqtt", "mqtt://127.0.0.1:1")
    assert (code, told) == (2, "")
    assert "--timeout" in why


def test_status_of_nobody_is_one_sentence(say, broker):
    code, told, why = say("status", "--device", "nobody", "--mqtt", broker.url)
    assert (code, told) == (1, "")
    assert len(why.splitlines()) == 1
    assert "nobody has never reported" in why


def test_a_digest_in_a_pipe_stays_on_its_line(say, package):
    say("repo", "init", "r")
    say("repo", "add", package, "--repo", "r")
    digest = json.loads(say("repo", "show", "m", "--repo", "r", "--json")[1])["digest"]
    assert digest in say("repo", "show", "m", "--repo", "r")[1]
    assert digest in say("model", "show", package)[1]


def test_publish_tells_a_script_how_many(say):
    say("repo", "init", "r")
    code, told, _ = say("repo", "publish", "--repo", "r", "--json")
    assert code == 0
    assert json.loads(told) == {"schema": 1, "releases": 0, "notes": []}


def test_an_empty_repository_says_so(say):
    say("repo", "init", "r")
    code, told, why = say("repo", "list", "--repo", "r")
    assert (code, told) == (0, "")
    assert "no release" in why


def test_deploy_finds_the_repository_as_repo_does(say, package, broker):
    say("repo", "init", "r")
    say("repo", "add", package, "--repo", "r")
    code, told, why = say("deploy", "m", "--device", "d", "--mqtt", broker.url, EDGE_AGENT_REPO="r")
    assert code == 0, why
    assert told == "m:1 is desired at edge/d/desired, revision 1\n"


def test_a_group_whose_devices_have_wishes_of_their_own_is_told_apart(say, package, broker):
    say("repo", "init", "r")
    say("repo", "add", package, "--repo", "r")
    where = ("--repo", "r", "--mqtt", broker.url)
    with StandIn(broker.url, "pump-7", groups=["line"]) as device:
        device.report()
        say("deploy", "m", "--device", "pump-7", *where)
        code, _, why = say("deploy", "m", "--group", "line", *where, "--wait", "--timeout", "1")
    assert code == 1
    assert "pump-7" in why
    assert "--device" in why


def test_a_name_that_is_none_is_not_bent_into_one(say, package):
    code, _, why = say("model", "init", package / "model.onnx", "--out", "o", "--name", "ü b")
    assert code == 1
    assert "'ü b' is no model name" in why


def test_check_knocks_at_the_broker_as_the_agent_will(say, tmp_path, broker):
    environ = {
        "EDGE_AGENT__MQTT__URL": broker.url,
        "EDGE_AGENT__STORE__DIR": str(tmp_path / "store"),
        "EDGE_AGENT__STREAM": '[{"name":"s","topic":"a"}]',
        "EDGE_AGENT__HTTP__BIND": "127.0.0.1:0",
    }
    parts = json.loads(say("check", "--json", **environ)[1])["parts"]
    assert parts["broker"] == {"ok": True, "why": f"{broker.url} lets us in"}
    more = {"EDGE_AGENT__MQTT__USERNAME": "u", "EDGE_AGENT__MQTT__PASSWORD_FILE": "/nope"}
    parts = json.loads(say("check", "--json", **environ, **more)[1])["parts"]
    assert parts["broker"]["ok"] is False
    assert "/nope" in parts["broker"]["why"]


def test_check_looks_at_the_store_and_at_models_of_the_device(say, tmp_path, broker, package):
    models = [
        {"name": "m", "stream": "s", "path": str(package)},
        {"name": "n", "stream": "s", "path": str(package)},
        {"name": "o", "stream": "s", "path": str(tmp_path / "nowhere")},
    ]
    environ = {
        "EDGE_AGENT__MQTT__URL": broker.url,
        "EDGE_AGENT__STORE__DIR": str(tmp_path / "store"),
        "EDGE_AGENT__STREAM": '[{"name":"s","topic":"a"}]',
        "EDGE_AGENT__MODEL": json.dumps(models),
        "EDGE_AGENT__HTTP__BIND": "127.0.0.1:0",
    }
    (tmp_path / "store" / "agent.db").mkdir(parents=True)
    code, told, _ = say("check", "--json", **environ)
    assert code == 1
    parts = json.loads(told)["parts"]
    assert "agent.db is no file that can be written to" in parts["store"]["why"]
    assert parts["model m"] == {"ok": True, "why": f"{package}, on the stream s"}
    assert parts["model n"] == {"ok": False, "why": f"the package in {package} is called m"}
    assert parts["model o"] == {"ok": False, "why": f"there is no folder {tmp_path / 'nowhere'}"}


def test_who_follows_a_wish_is_told_that_the_broker_went_away_and_came_back(say, broker, package):
    """[control-5.7]"""
    say("repo", "init", "r")
    say("repo", "add", package, "--repo", "r")
    say("repo", "publish", "--repo", "r")
    timers = threading.Timer(2.0, broker.stop), threading.Timer(4.0, broker.start)
    for timer in timers:
        timer.start()
    words = ("deploy", "m", "--device", "d", "--stream", "s", "--wait", "--timeout", "7")
    code, _, told = say(*words, "--repo", "r", "--mqtt", broker.url)
    for timer in timers:
        timer.join()
    assert code == 1
    away, back, end = told.splitlines()
    assert away == f"{broker.url} is away; it is tried again"
    assert back == "the broker is back"
    assert "has never reported" in end


def test_a_replay_in_a_pipe_says_one_line_and_no_empty_one(say, tmp_path, broker):
    (tmp_path / "rec.csv").write_text("ts,f0\n1,2\n2,3\n")
    code, told, why = say("replay", "rec.csv", "--topic", "plant/p1", "--mqtt", broker.url)
    assert (code, why) == (0, "")
    assert told.startswith("2 rows in ")


def test_providers_tell_each_in_a_line(say):
    code, told, _ = say("providers")
    assert code == 0
    assert [line for line in told.splitlines() if line.startswith("cpu ") and "yes" in line]
    assert all(len(line.split()) > 1 for line in told.splitlines() if line.strip())
