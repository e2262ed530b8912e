"""Fixtures that every floor shares.  The simulators themselves live in tests/world."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.world.ports import free_port as any_free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.world.broker import Broker

ROOT = Path(__file__).resolve().parent.parent
MARKED_FOLDERS = ("integration", "faults", "e2e", "bench")

# A shared machine may stall for a moment: a slow example is no failure.
hypothesis.settings.register_profile("suite", deadline=None, max_examples=100)
hypothesis.settings.register_profile("long", deadline=None, max_examples=5000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's folder is its marker, so that nobody has to remember to write it."""
    for item in items:
        inside = item.path.relative_to(ROOT / "tests").parts
        if inside and inside[0] in MARKED_FOLDERS:
            item.add_marker(inside[0])


@pytest.fixture
def free_port() -> int:
    return any_free_port()


@pytest.fixture
def mosquitto() -> str:
    """The path of the real broker.  Its absence fails in CI and is said aloud elsewhere."""
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")
    if found is None:
        sentence = "Mosquitto is not installed; `make test` installs it, or `apt install mosquitto`"
        if os.environ.get("CI"):
            pytest.fail(sentence)
        pytest.skip(sentence)
    return found


@pytest.fixture
def broker(mosquitto: str) -> "Iterator[Broker]":
    """A fresh Mosquitto on a free port of the loopback, gone after the test."""
    from tests.world.broker import Broker

    with Broker() as running:
        yield running


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Recordings and schemas published by others, beside the checkout; skips aloud if absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no data published by others here ({folder.name}/ beside the checkout)")
    return folder
