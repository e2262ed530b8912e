"""How long to wait between tries."""

from itertools import islice
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from agent.core.retry import delays


class Dice(Random):
    """Always throws the same share of the range."""

    def __init__(self, share):
        super().__init__()
        self.share = share

    def uniform(self, a, b):
        return a + (b - a) * self.share


def test_the_ceiling_doubles_until_it_is_the_most():
    assert list(islice(delays(1.0, 10.0, Dice(1.0)), 6)) == [1, 2, 4, 8, 10, 10]


def test_a_device_never_hammers():
    assert list(islice(delays(1.0, 10.0, Dice(0.0)), 3)) == [0.25, 0.25, 0.25]


@given(st.integers(), st.floats(0.01, 10), st.floats(1, 100))
def test_no_wait_is_longer_than_its_ceiling(seed, first, factor):
    most = first * factor
    for n, wait in enumerate(islice(delays(first, most, Random(seed)), 40)):
        assert first / 4 <= wait <= min(most, first * 2**n)


def test_two_devices_do_not_wait_alike():
    one, other = (list(islice(delays(1.0, 60.0, Random(seed)), 8)) for seed in (1, 2))
    assert one != other
