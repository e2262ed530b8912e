"""`edge-agent health` as a container runs it: a process, its line, its exit code."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.adapters.web import WebFaces
from agent.commands.health import address
from agent.config import Http
from agent.core.health import HealthReport

ROOT = Path(__file__).resolve().parents[2]


def health(*arguments: str, cwd: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "agent.commands.health", *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ.get("PATH", "")} | environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture
def faces() -> Iterator[WebFaces]:
    faces = WebFaces(Http(bind="127.0.0.1:0"), stale_s=30.0)
    faces.start()
    yield faces
    faces.stop()


def test_it_prints_the_line_and_exits_0_only_if_ready(faces, tmp_path):
    """[http-6.1]"""
    url = f"http://127.0.0.1:{faces.port}"
    faces.show(HealthReport("d", ready=True))
    done = health("--url", url, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")
    faces.show(HealthReport("d", ready=False, reasons=("no golden sample for 41 s", "broker away")))
    done = health("--url", url, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (
        1,
        "not ready: no golden sample for 41 s; broker away\n",
    )


def test_it_finds_the_agent_by_the_environment_and_by_the_settings(faces, tmp_path):
    """[http-6.2]"""
    faces.show(HealthReport("d", ready=True))
    bind = f"0.0.0.0:{faces.port}"
    assert health(cwd=tmp_path, EDGE_AGENT__HTTP__BIND=bind).returncode == 0
    (tmp_path / "agent.toml").write_text(f'[http]\nbind = "{bind}"\n')
    assert health(cwd=tmp_path).returncode == 0
    (tmp_path / "agent.toml").rename(tmp_path / "other.toml")
    assert health("--config", "other.toml", cwd=tmp_path).returncode == 0
    assert health(cwd=tmp_path, EDGE_AGENT_CONFIG="other.toml").returncode == 0


def test_no_agent_is_not_ready(free_port, tmp_path):
    """[http-6.1]"""
    done = health("--url", f"127.0.0.1:{free_port}", cwd=tmp_path)
    assert done.returncode == 1
    assert "no agent answers" in done.stdout
    assert done.stderr == ""


def test_settings_that_cannot_be_read_are_a_failure_with_a_sentence(tmp_path):
    """[http-6.1]"""
    (tmp_path / "bad.toml").write_text("= ?")
    for named, sentence in (("absent.toml", "cannot read"), ("bad.toml", "is not TOML")):
        done = health("--config", named, cwd=tmp_path)
        assert done.returncode == 1
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr


def test_wrong_usage_is_told_how_it_is_right(tmp_path):
    """[http-6.1]"""
    for wrong in (("--nope",), ("--url",), ("now",)):
        done = health(*wrong, cwd=tmp_path)
        assert done.returncode == 2
        assert "usage: edge-agent health" in done.stderr
    assert "example:" in health("--help", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("url", "bind", "found"),
    [
        ("http://10.0.0.1:9000/readyz", "", ("10.0.0.1", 9000)),
        ("http://edge.plant", "", ("edge.plant", 80)),
        ("localhost", "", ("localhost", 8080)),
        ("http://[::1]:8080", "", ("::1", 8080)),
        ("", "[::]:8081", ("::1", 8081)),
        ("", "0.0.0.0:8081", ("127.0.0.1", 8081)),
        ("http://1.2.3.4:5", "6.7.8.9:10", ("1.2.3.4", 5)),
    ],
)
def test_where_it_asks(url, bind, found):
    """[http-6.2]"""
    environ = {"EDGE_AGENT__HTTP__BIND": bind} if bind else {}
    assert address(url or None, None, environ) == found


@pytest.mark.parametrize(
    "url", ["https://x:1", "http://", "x:0", "x:70000", "a b:1", "http://u:p@x:1", ":80"]
)
def test_what_is_no_address_is_refused(url):
    """[http-6.2]"""
    with pytest.raises(ValueError, match="is no address"):
        address(url, None, {})


def test_it_imports_nothing_that_takes_time(faces, tmp_path):
    """[http-6.3]"""
    faces.show(HealthReport("d", ready=True))
    code = (
        "import sys; from agent.commands.health import main; main(sys.argv[1:]);"
        "print(sorted({m.split('.')[0] for m in sys.modules} & set('pydantic typer rich numpy "
        "asyncio structlog starlette uvicorn orjson argparse'.split())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--url", f"127.0.0.1:{faces.port}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == "ready\n[]\n"


def test_it_gives_up_on_an_agent_that_does_not_answer(tmp_path):
    """[http-6.1]"""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as deaf:
        began = time.monotonic()
        done = health("--url", f"127.0.0.1:{deaf.getsockname()[1]}", cwd=tmp_path)
        assert done.returncode == 1
        assert time.monotonic() - began < 10
