"""Fixtures that every floor shares.  The simulators themselves live in tests/world."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import structlog

from tests.world import broker as world

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
MARKED_FOLDERS = ("integration", "faults", "e2e", "bench", "images")

# A shared machine may stall for a moment: a slow example is no failure.
hypothesis.settings.register_profile("suite", deadline=None, max_examples=100)
hypothesis.settings.register_profile("long", deadline=None, max_examples=5000)
# Whether a test fails is asked, not by which smallest example; and it is the same each time.
hypothesis.settings.register_profile(
    "mutants", deadline=None, derandomize=True, phases=[hypothesis.Phase.generate]
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's folder is its marker, so that nobody has to remember to write it."""
    for item in items:
        inside = item.path.relative_to(ROOT / "tests").parts
        if inside and inside[0] in MARKED_FOLDERS:
            item.add_marker(inside[0])
    if "PYTEST_XDIST_WORKER" in os.environ:  # the long ones first: all processes end together
        items.sort(key=lambda item: not item.path.is_relative_to(ROOT / "tests" / "faults"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What passing tests measured: of the faults, and of those marked `figures`."""
    told = [
        report
        for report in terminalreporter.getreports("passed")
        if ("faults" in report.keywords or "figures" in report.keywords) and report.capstdout
    ]
    if told:
        terminalreporter.section("figures")
    for report in told:
        terminalreporter.write_line(report.nodeid.rpartition("::")[2])
        for line in report.capstdout.strip().splitlines():
            terminalreporter.write_line(f"    {line.strip()}")


@pytest.fixture(autouse=True)
def _logs_to_whoever_is_there(request: pytest.FixtureRequest) -> "Iterator[None]":
    """A command run in this process has its log written to a stderr that is gone after it.  Where
    a test tells its figures, the product's log is not among them.
    """
    if request.node.get_closest_marker("faults") or request.node.get_closest_marker("figures"):
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    yield
    structlog.reset_defaults()


@pytest.fixture
def free_port() -> int:
    return world.free_port()


@pytest.fixture
def broker() -> "Iterator[world.Broker]":
    """A fresh Mosquitto on a free port of the loopback, gone after the test."""
    with world.Broker() as running:
        yield running


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Recordings and schemas published by others, beside the checkout; skips aloud if absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no data published by others here ({folder.name}/ beside the checkout)")
    return folder
