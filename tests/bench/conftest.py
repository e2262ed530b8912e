"""What the benches tell goes to the terminal, and with `--limits FILE` into its table."""

import datetime as dt
import os
from pathlib import Path

import pytest

from tests.bench.table import Figure, merged

TOLD = pytest.StashKey[dict[str, Figure]]()


def pytest_addoption(parser):
    parser.addoption("--limits", metavar="FILE", help="where to write what was measured")


def pytest_configure(config):
    config.stash[TOLD] = {}


@pytest.fixture
def figure(request):
    """Tell a figure: its name, what was measured, and the goal."""

    def tell(name, measured, goal=""):
        today = dt.datetime.now(dt.UTC).date()
        when = f"{today}, {os.getloadavg()[0]:.0f}"
        request.config.stash[TOLD][name] = Figure(measured, goal, when)
        print(f"\n{name}: {measured}" + (f" (goal {goal})" if goal else ""))

    return tell


def pytest_sessionfinish(session):
    path, told = session.config.getoption("--limits", None), session.config.stash.get(TOLD, {})
    if path and told:
        limits = Path(path)
        limits.write_text(merged(limits.read_text(), told))
