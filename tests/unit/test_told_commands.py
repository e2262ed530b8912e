"""What README.md tells people to type is understood: each command parses as it stands there."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from agent.commands.menu import app

ROOT = Path(__file__).parents[2]
TOLD = re.compile(r"(?:^ {4}|`)edge-agent ([^`#\n]+)", re.MULTILINE)


def told() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [line.strip() for line in TOLD.findall(text)]


def test_the_readme_tells_commands():
    assert len(told()) >= 10


@pytest.mark.parametrize("line", told())
def test_what_the_readme_says_to_type_is_understood(line):
    command, words = get_command(app), shlex.split(line)
    context = typer.Context(command, info_name="edge-agent")
    while hasattr(command, "commands"):
        _, command, words = command.resolve_command(context, words)
    command.make_context(line, words, resilient_parsing=False)  # raises, where it is not
