"""What a version would rather run on."""

import pytest

from agent.runtime.climbing import better
from tests.world.river import River


@pytest.mark.parametrize(
    ("wishes", "provider", "wanted", "rather"),
    [
        (("tensorrt", "cuda", "cpu"), "cpu", "tensorrt", ("tensorrt", "cuda")),
        (("tensorrt", "cuda", "cpu"), "cuda", "tensorrt", ("tensorrt",)),
        (("cuda",), "cpu", "cuda", ("cuda",)),
        (("auto",), "cpu", "openvino", ("openvino",)),
    ],
)
def test_only_what_was_wished_before_what_it_runs_on_is_better(wishes, provider, wanted, rather):
    """[accelerators-3.3]"""
    with River() as river:
        seat = river.seat(1)
        runtime = seat.manifest.runtime.model_copy(update={"providers": wishes})
        seat.manifest = seat.manifest.model_copy(update={"runtime": runtime})
        seat.session.provider, seat.session.wanted = provider, wanted
        assert better(seat) == rather
        river.swap(seat)
