"""What `make` leans on when it meets a machine for the first time."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "find-python"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="make is not used on Windows")


@pytest.fixture
def pretend(tmp_path):
    """Puts a program into an otherwise empty PATH, and runs the script with it."""

    def program(name: str, body: str) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    def find(**environ: str) -> subprocess.CompletedProcess[str]:
        environ["PATH"] = str(tmp_path)
        return subprocess.run([SCRIPT], env=environ, capture_output=True, text=True, check=False)

    program.find = find
    return program


def test_without_a_python_it_says_in_one_sentence_what_to_install(pretend):
    done = pretend.find()
    assert (done.returncode, done.stdout) == (1, "")
    assert "apt install python3 python3-venv" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_python_that_cannot_run_is_passed_over(pretend):
    pretend("python3.11", "exit 127  # a version switcher's shim")
    good = pretend("python3", f'exec "{sys.executable}" "$@"')
    assert pretend.find().stdout.strip() == str(good)


def test_the_one_that_was_asked_for_goes_first(pretend):
    pretend("python3.11", "exit 0")
    wanted = pretend("mine", "exit 0")
    assert pretend.find(PYTHON=str(wanted)).stdout.strip() == str(wanted)


def test_a_python_that_is_too_old_is_passed_over(pretend):
    pretend(
        "python3",
        f"""exec "{sys.executable}" -c "
import sys; sys.version_info = (3, 10); exec(sys.argv[-1])" "$@" """,
    )
    assert pretend.find().returncode == 1
