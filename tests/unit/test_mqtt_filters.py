"""Topic filters, against every topic of a small world."""

import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import assume, given
from paho.mqtt.client import topic_matches_sub

from agent.adapters.mqtt.filters import covers, levels, matches, overlap, plan
from agent.core.errors import RefusedError

WORLD = ["/".join(t) for n in (1, 2, 3, 4) for t in itertools.product("abc", repeat=n)]


@st.composite
def filters(draw):
    parts = draw(st.lists(st.sampled_from("ab+"), min_size=0, max_size=3))
    if draw(st.booleans()) or not parts:
        parts.append("#")
    return "/".join(parts)


def hits(topic_filter):
    return {t for t in WORLD if matches(levels(topic_filter), t.split("/"))}


@given(filters(), st.sampled_from([*WORLD, "$SYS/a", "a/", "/a", "a//b"]))
def test_matching_agrees_with_paho(topic_filter, topic):
    assert matches(levels(topic_filter), topic.split("/")) == topic_matches_sub(topic_filter, topic)


@given(filters(), filters())
def test_covering_is_what_it_says_of_every_topic(wide, narrow):
    assume((wide, narrow) != ("+/#", "#"))  # equal, and the narrower spelling is not needed
    assert covers(levels(wide), levels(narrow)) == (hits(wide) >= hits(narrow))


@given(filters(), filters())
def test_overlapping_is_what_it_says_of_some_topic(one, other):
    assert overlap(levels(one), levels(other)) == bool(hits(one) & hits(other))


@given(st.lists(filters(), min_size=1, max_size=5))
def test_a_plan_brings_every_message_of_every_stream_exactly_once(topics):
    streams = [(f"s{i}", t, i % 2) for i, t in enumerate(topics)]
    try:
        wide, bringer = plan(streams)
    except RefusedError:
        assume(False)
    for name, topic, qos in streams:
        assert hits(topic) <= hits(bringer[name])
        assert qos <= wide[bringer[name]]
    for topic in WORLD:
        assert sum(topic in hits(f) for f in wide) <= 1


def test_filters_that_overlap_in_part_are_refused_with_advice():
    with pytest.raises(RefusedError, match="let one of them cover the other"):
        plan([("x", "a/+/c", 1), ("y", "a/b/+", 1)])


def test_shared_subscriptions_are_subscribed_as_they_are():
    wide, _ = plan([("x", "$share/g/a/+", 1), ("y", "b/#", 0)])
    assert wide == {"$share/g/a/+": 1, "b/#": 0}
