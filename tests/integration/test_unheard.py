"""Scores that a broker takes although nobody has subscribed: they are gone, and it is said."""

import time

import pytest

from tests.world import rollout_story, zoo
from tests.world.site import Site
from tests.world.waiting import eventually


def measured(first, count):
    values = {f"f{i}": 0.1 for i in range(8)}
    return [{"ts": time.time() + n, **values} for n in range(first, first + count)]


def told(site):
    """`unheard` as it is reported, and the rows scored."""
    state = site.state()
    return state["outbox"]["unheard"], state["models"]["m"]["counts"]["scored"]


@pytest.mark.timeout(90)
def test_rows_for_which_nobody_has_subscribed_are_counted_and_said_once(broker, tmp_path):
    """[delivery-2.11] Mosquitto; the consumer hears of scores from row 20 on."""
    with Site(broker, tmp_path, hears=("reported",)) as site:
        site.start()
        site.deploy(zoo.mlp(tmp_path / "v1", name="m"), rollout=rollout_story.AT_ONCE)
        site.readings(measured(0, 20))
        eventually(lambda: told(site) == (20, 20), 20, f"20 unheard; {told(site)}")
        assert site.log().count("nobody has subscribed") == 1
        site.hear("scores/+")
        site.readings(measured(20, 30))
        eventually(lambda: site.book("m").first_hand == 30, 20, "30 heard")
        assert min(site.book("m").rows) == 20
        eventually(lambda: told(site) == (20, 50), 10, f"told; {told(site)}")
        assert site.log().count("somebody has subscribed") == 1
