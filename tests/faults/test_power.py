"""Real power cuts, on a disk of our own: what was said to be durable is there, and nothing is half.

And the proof that this would be noticed: each sync left out in turn turns it red.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.world.loop_disk import needs_loop_disk
from tests.world.power_cut import MISTAKES

ROOT = Path(__file__).resolve().parents[2]
CUTS = 25
CUTS_SOAK = 500


@pytest.fixture(autouse=True)
def _disk(tmp_path):
    needs_loop_disk(tmp_path)


def campaign(*options):
    """Run it as a process of its own, because it forks; whether it was clean, and its words."""
    # In a mount namespace of its own: one that someone else makes meanwhile would hold our disk.
    command = ["unshare", "--mount", sys.executable, "-m", "tests.world.power_cut"]
    command += map(str, options)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if "[" not in line]
    assert lines, done.stderr[-2000:]
    return done.returncode == 0, lines


def test_twenty_five_power_cuts_lose_nothing_that_was_accepted():
    """[durability-3.1] [durability-3.2] [durability-3.3]"""
    clean, lines = campaign("--cuts", CUTS, "--seed", 1)
    print(lines[-1])
    assert clean, lines


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_five_hundred_power_cuts_lose_nothing_that_was_accepted():
    clean, lines = campaign("--cuts", CUTS_SOAK, "--seed", 2)
    print(lines[-1])
    assert clean, lines


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_sync_left_out_is_found_within_twenty_five_cuts(mistake):
    clean, lines = campaign("--cuts", CUTS, "--seed", 3, "--stop", "--mistake", mistake)
    print(f"{mistake:36} {lines[-1]}: {lines[0]}")
    assert not clean, f"{CUTS} cuts did not notice: {mistake}"
