"""Topic filters: what matches what, and which to subscribe to for a set of streams.  Pure."""

from collections.abc import Iterable, Mapping, Sequence

from agent.core.errors import RefusedError

SHARED = "$share/"


def levels(topic_filter: str) -> list[str]:
    """The levels of a filter, without the group of a shared subscription."""
    parts = topic_filter.split("/")
    return parts[2:] if topic_filter.startswith(SHARED) else parts


def matches(wanted: Sequence[str], topic: Sequence[str]) -> bool:
    """Whether the filter with the levels `wanted` matches the topic with the levels `topic`."""
    if topic[0].startswith("$") and wanted[0] in ("+", "#"):
        return False
    for at, want in enumerate(wanted):
        if want == "#":
            return True
        if at >= len(topic) or want not in ("+", topic[at]):
            return False
    return len(wanted) == len(topic)


def covers(wide: Sequence[str], narrow: Sequence[str]) -> bool:
    """Whether every topic that `narrow` matches is matched by `wide`."""
    for at, want in enumerate(wide):
        if want == "#":
            return True
        if at >= len(narrow) or narrow[at] == "#" or want not in ("+", narrow[at]):
            return False
    return len(wide) == len(narrow)


def overlap(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether some topic is matched by both."""
    for mine, yours in zip(one, other, strict=False):
        if "#" in (mine, yours):
            return True
        if mine != yours and "+" not in (mine, yours):
            return False
    shorter, longer = sorted((one, other), key=len)
    return len(one) == len(other) or longer[len(shorter)] == "#"


def plan(streams: Iterable[tuple[str, str, int]]) -> tuple[Mapping[str, int], Mapping[str, str]]:
    """What to subscribe to, so that each message comes once, whichever broker it is.

    Brokers may send a message once for each subscription that matches it, and in MQTT 3.1.1 nothing
    tells the copies apart.  So a filter that another one covers is not subscribed by itself.

    Args:
        streams: (name, topic filter, QoS) of each.

    Returns:
        QoS by filter to subscribe; and, by stream, the filter that brings its messages.

    Raises:
        RefusedError: two filters overlap in part, so that some messages would come twice.
    """
    streams = list(streams)
    wide: dict[str, int] = {}
    bringer: dict[str, str] = {}
    for name, topic, _ in streams:
        bringer[name] = topic
        if not topic.startswith(
            SHARED
        ):  # which of the sharers gets a message is the broker's choice
            others = (t for _, t, _ in streams if not t.startswith(SHARED))
            for other in others:
                if covers(levels(other), levels(bringer[name])):
                    bringer[name] = other
    for name, _, qos in streams:
        wide[bringer[name]] = max(qos, wide.get(bringer[name], 0))
    for one in wide:
        for other in wide:
            if one < other and overlap(levels(one), levels(other)):
                raise RefusedError(
                    f"the topics {one} and {other} overlap in part, so that a message could come "
                    "twice; let one of them cover the other"
                )
    return wide, bringer
