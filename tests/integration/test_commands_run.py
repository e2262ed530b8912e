"""`edge-agent run` where it cannot start: one sentence that names the key, and no traceback.

Each is the real command with a real obstacle in its way.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
START_S_MAX = 60


def run(folder, **settings):
    """Run the agent to its end, which must come by itself; its exit status and what it said."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("EDGE_AGENT")}
    environ |= {
        "PYTHONPATH": str(ROOT),
        "EDGE_AGENT__MQTT__URL": "mqtt://127.0.0.1:1",
        "EDGE_AGENT__STORE__DIR": str(folder / "store"),
        "EDGE_AGENT__HTTP__BIND": "127.0.0.1:0",
        **{f"EDGE_AGENT__{key}": str(value) for key, value in settings.items()},
    }
    done = subprocess.run(
        [sys.executable, "-m", "agent", "run"],
        env=environ,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=START_S_MAX,
        check=False,
    )
    return done.returncode, done.stderr


def refused(folder, *words, code=1, **settings):
    status, said = run(folder, **settings)
    assert status == code, said
    assert "Traceback" not in said
    for word in words:
        assert word in said
    return said


def test_a_taken_port_is_said_in_a_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        refused(tmp_path, "http.bind", where, "name another", HTTP__BIND=where)


@pytest.mark.parametrize("inside", ["", "/below"])
def test_a_store_that_is_a_file_is_said_in_a_sentence(tmp_path, inside):
    (tmp_path / "file").write_text("not a folder")
    refused(tmp_path, "store.dir", STORE__DIR=f"{tmp_path}/file{inside}")


def test_an_anchor_that_is_none_is_named(tmp_path):
    anchor = tmp_path / "root.json"
    anchor.write_bytes(b"\xff\xfe nothing of ours")
    refused(tmp_path, "repository.root_file", str(anchor), REPOSITORY__ROOT_FILE=anchor)


def test_an_anchor_that_is_not_there_is_named(tmp_path):
    refused(tmp_path, "repository.root_file", "/nope", REPOSITORY__ROOT_FILE="/nope")


def test_a_key_that_there_is_not_is_wrong_usage(tmp_path):
    said = refused(tmp_path, "mqtt.urll", code=2, MQTT__URLL="x")
    assert len(said.splitlines()) == 1
