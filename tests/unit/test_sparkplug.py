"""Sparkplug B: births, aliases, what changed, deaths; and whatever else may come on its topics."""

import math

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.decoding import Decoder
from agent.core.errors import RefusedError
from agent.core.formats import sparkplug_births, sparkplug_wire
from agent.core.formats.records import RejectError
from agent.core.streams import StreamSpec
from agent.core.survey import Survey
from tests.world.sparkplug import INTEGERS, EdgeNode, Payload, metric, payload

NOW = 1_732_180_000.0
AT = 1_732_179_990_000
PUMP = {"temp": ("Float", 20.5), "vib": ("Double", 1.0)}


class Stream:
    """A decoder and what has come out of it: (key, time, values by name) with None for NaN."""

    def __init__(self, *wanted, **spec):
        whole = {"name": "pump", "format": "sparkplug", "fields": {}, **spec}
        self.spec = StreamSpec(**whole)
        self.decoder = Decoder(self.spec, wanted or ("temp", "vib"))

    def send(self, *messages):
        """Rows of these messages, decoded at once."""
        topics = [topic if isinstance(topic, bytes) else topic.encode() for topic, _ in messages]
        block = self.decoder.decode([raw for _, raw in messages], topics, 1.0, NOW)
        self.rejected = block.rejected
        self.block = block
        columns = [column.tolist() for column in block.columns.values()]
        return [
            (self.decoder.keys.names[key], time, *(None if math.isnan(v) else v for v in values))
            for key, time, *values in zip(
                block.keys.tolist(), block.times.tolist(), *columns, strict=True
            )
        ]

    def why(self, reason):
        return self.decoder.last_reject[reason]


def born(stream=None, **devices):
    """A stream on which a node with these devices was born, and the node."""
    stream, node = stream or Stream(), EdgeNode(**(devices or {"p1": PUMP}))
    stream.send(*node.births(AT))
    return stream, node


# ---- what comes out ------------------------------------------------------------------------------


def test_what_changed_is_laid_over_what_was_known_one_reading_a_payload():
    """[streams-3.1] [streams-3.2]"""
    stream, node = Stream(), EdgeNode(p1=PUMP, p2=PUMP)
    assert stream.send(*node.births(AT)) == [
        ("plant/e1/p1", AT / 1000, 20.5, 1.0),
        ("plant/e1/p2", AT / 1000, 20.5, 1.0),
    ]
    messages = [
        node.data("p1", AT + 1000, temp=21.5),
        node.data("p2", AT + 1100, vib=3.0),
        node.data("p1", AT + 1200, vib=2.0),
        node.data("p1", AT + 1300),
    ]
    assert stream.send(*messages) == [
        ("plant/e1/p1", AT / 1000 + 1, 21.5, 1.0),
        ("plant/e1/p2", AT / 1000 + 1.1, 20.5, 3.0),
        ("plant/e1/p1", AT / 1000 + 1.2, 21.5, 2.0),
        ("plant/e1/p1", AT / 1000 + 1.3, 21.5, 2.0),
    ]
    assert (stream.rejected, stream.decoder.census.gaps) == ({}, 0)


def test_a_node_has_metrics_of_its_own_and_names_will_do_where_there_are_no_aliases():
    stream = Stream(fields={"temp": "Inputs/Temp.1"})
    said = [("Float", "Inputs/Temp.1", 5.0), ("Int32", "vib", -2)]
    birth = payload(*(metric(k, v, name=n, birth=True) for k, n, v in said), seq=0)
    change = payload(metric("Float", 6.0, name="Inputs/Temp.1"), seq=1)
    topic = "spBv1.0/g/{}/e"
    messages = [(topic.format("NBIRTH"), birth), (topic.format("NDATA"), change)]
    assert stream.send(*messages) == [("g/e", NOW, 5.0, -2.0), ("g/e", NOW, 6.0, -2.0)]


def test_who_has_none_of_what_is_wanted_is_no_sensor():
    stream, node = born(None, p1=PUMP, door={"open": ("Boolean", False)})
    assert stream.decoder.keys.names == ["plant/e1/p1"]
    assert stream.send(node.data("door", AT, open=True)) == []
    assert stream.rejected == {}
    stream.decoder.want(["open"])  # what it said before is known then
    assert stream.send(node.data("door", AT)) == [("plant/e1/door", AT / 1000, None, None, 1.0)]


def test_the_key_may_be_composed_of_the_topic():
    stream, node = born(Stream(key="{4}@{3}"))
    assert stream.send(node.data("p1", AT, temp=1.0)) == [("p1@e1", AT / 1000, 1.0, 1.0)]


def test_the_time_is_the_payloads_else_its_newest_metrics_else_that_of_arrival():
    stream, node = born()
    topic, _ = node.data("p1", AT)
    alias = node.aliases["p1", "temp"]
    late, early = (metric("Float", 1.0, alias=alias, timestamp=AT + n) for n in (500, 100))
    without = metric("Float", 1.0, alias=alias)
    rows = stream.send(
        *((topic, payload(*metrics)) for metrics in ([late, early], [without])),
        (topic, payload(early, at=AT)),
        (topic, payload(without, at=100)),
        (topic, payload(without, at=2**64 - 2)),
    )
    assert [row[1] for row in rows] == [AT / 1000 + 0.5, NOW, AT / 1000]
    assert stream.rejected == {"time": 2}


def test_null_is_a_missing_value_from_then_on():
    stream, node = born()
    data = [node.data("p1", AT, temp=None), node.data("p1", AT, vib=4.0)]
    assert [row[2:] for row in stream.send(*data)] == [(None, 1.0), (None, 4.0)]
    topic, _ = node.data("p1", AT)
    both = {"alias": node.aliases["p1", "vib"], "is_null": True, "double_value": 7.0}
    assert stream.send((topic, payload(both, at=AT)))[0][2:] == (None, None)


def test_history_is_told_and_does_not_go_over_what_is_live():
    stream, node = born()
    topic, _ = node.data("p1", AT)
    alias = node.aliases["p1", "temp"]
    old = metric("Float", 99.0, alias=alias, is_historical=True, timestamp=AT - 10**7)
    live = metric("Double", 2.0, alias=node.aliases["p1", "vib"], timestamp=AT)
    assert stream.send((topic, payload(old, at=AT)), (topic, payload(old, live, at=AT))) == [
        ("plant/e1/p1", AT / 1000, 20.5, 2.0)
    ]
    assert stream.rejected == {"historical": 1}


# ---- types ---------------------------------------------------------------------------------------


def edges(kind):
    bits = INTEGERS[kind][1]
    if kind.startswith("Int"):
        return [-(2 ** (bits - 1)), -1, 0, 2 ** (bits - 1) - 1]
    return [0, 1, 2 ** (bits - 1), 2**bits - 1]


@pytest.mark.parametrize("kind", INTEGERS)
def test_integers_of_every_width_are_what_was_meant(kind):
    """[streams-3.3]"""
    stream, node = born(None, p1={"temp": (kind, 1)})
    for meant in edges(kind):
        assert stream.send(node.data("p1", AT, temp=meant))[0][2] == float(meant)
    topic, _ = node.data("p1", AT)
    alias = node.aliases["p1", "temp"]
    bits = INTEGERS[kind][1]
    # as other encoders write them: in the width of the type, or in the wide field
    narrow = {"alias": alias, "int_value" if bits < 64 else "long_value": edges(kind)[1] % 2**bits}
    wide = {"alias": alias, "long_value": edges(kind)[1] % 2**64}
    for made in (narrow, wide):
        assert stream.send((topic, payload(made, at=AT)))[0][2] == float(edges(kind)[1])
    if bits < 32:
        assert stream.send((topic, payload({"alias": alias, "int_value": 70_000 * 2**8}))) == []
        assert stream.rejected == {"type": 1}


def test_a_value_in_the_field_of_another_type_is_refused_and_not_known_any_more():
    stream, node = born()
    topic, _ = node.data("p1", AT)
    temp, vib = (node.aliases["p1", name] for name in ("temp", "vib"))
    wrong = {"alias": temp, "int_value": 7}, {"alias": temp, "string_value": "x"}, {"alias": temp}
    for metrics in wrong:
        also = metric("Double", 2.0, alias=vib)
        assert stream.send((topic, payload(also, metrics, at=AT))) == []
        assert stream.rejected == {"type": 1}
    assert "temp has no value of its type, Float" in stream.why("type")
    assert stream.send(node.data("p1", AT))[0][2:] == (None, 2.0)
    either = {"alias": temp, "double_value": 3.0}, {"alias": vib, "float_value": 0.5}
    assert stream.send((topic, payload(*either, at=AT)))[0][2:] == (3.0, 0.5)


def test_what_is_no_finite_number_is_refused_where_it_is_wanted():
    stream, node = born(None, p1=PUMP | {"other": ("Float", 0.0)})
    for value in (math.nan, math.inf, -math.inf):
        assert stream.send(node.data("p1", AT, vib=value)) == []
        assert stream.rejected == {"not_finite": 1}
        assert stream.send(node.data("p1", AT, other=value, vib=5.0))[0][2:] == (20.5, 5.0)
        assert stream.rejected == {}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("String", "hot"),
        ("Bytes", b"\xff"),
        ("DataSet", {"columns": ["a"], "rows": [{"elements": [{"int_value": 1}]}]}),
        ("Template", {"metrics": [{"name": "temp", "template_value": {}}]}),
    ],
)
def test_other_types_are_refused_only_where_they_are_wanted(kind, value):
    """[streams-3.3]"""
    device = PUMP | {"odd": (kind, value)}
    stream, node = born(None, p1=device)
    assert stream.send(node.data("p1", AT, odd=value, temp=1.0))[0][2:] == (1.0, 1.0)
    stream.decoder.want(["odd"])
    assert stream.send(node.data("p1", AT, temp=1.0)) == []
    assert stream.why("type") == f"odd is of type {kind}, not a number"


def test_properties_and_descriptions_of_metrics_are_passed_over():
    stream = Stream()
    more = {"properties": {"keys": ["unit"], "values": [{"type": 12, "string_value": "K"}]}}
    said = metric("Float", 5.0, name="temp", birth=True, metadata={"description": "x"}, **more)
    assert stream.send(("spBv1.0/g/NBIRTH/e", payload(said)))[0][2:] == (5.0, None)


# ---- births, deaths, numbers ---------------------------------------------------------------------


def test_data_before_a_birth_are_refused_and_say_so():
    """[streams-3.4]"""
    stream, node = Stream(), EdgeNode(p1=PUMP)
    births = list(node.births(AT))
    assert stream.send(node.data("p1", AT, temp=1.0)) == []
    assert stream.rejected == {"birth": 1}
    assert stream.why("birth") == "no birth certificate of plant/e1/p1 was seen yet"
    assert len(stream.send(*births, node.data("p1", AT, temp=1.0))) == 2


def test_an_alias_that_no_birth_named_is_refused_and_the_rest_is_known():
    stream, node = born()
    topic, _ = node.data("p1", AT)
    known = metric("Float", 9.0, alias=node.aliases["p1", "temp"])
    for unknown in ({"alias": 77, "int_value": 1}, {"name": "new", "int_value": 1}, {}):
        assert stream.send((topic, payload(unknown, known, at=AT))) == []
        assert stream.rejected == {"birth": 1}
    assert stream.send(node.data("p1", AT))[0][2:] == (9.0, 1.0)


def test_a_birth_says_anew_what_aliases_mean():
    stream, node = born()
    node.aliases = {("p1", "temp"): 1, ("p1", "vib"): 0}  # the other way round
    stream.send(node.birth("p1", AT))
    assert stream.send(node.data("p1", AT, temp=7.0))[0][2:] == (7.0, 1.0)


def test_a_node_that_is_born_again_has_none_of_its_devices_until_they_are():
    stream, node = born()
    node_birth, device_birth = node.births(AT)
    assert stream.send(node_birth, (node.topic("DDATA", "p1"), payload(at=AT))) == []
    assert stream.rejected == {"birth": 1}
    assert len(stream.send(device_birth)) == 1


def test_the_dead_are_forgotten_and_an_old_will_is_no_death():
    """[streams-3.5]"""
    stream, node = born(None, p1=PUMP, p2=PUMP)
    assert stream.send(node.death("p1", AT)) == []
    assert stream.send(node.data("p1", AT), node.data("p2", AT)) == [
        ("plant/e1/p2", AT / 1000, 20.5, 1.0)
    ]
    assert stream.rejected == {"birth": 1}
    node.bd_seq = 3
    stream.send(*node.births(AT))
    old = EdgeNode(bd_seq=2).death()
    assert len(stream.send(old, node.data("p2", AT))) == 1
    assert stream.send(node.death(), node.data("p2", AT)) == []
    assert (stream.rejected, len(stream.decoder.census.nodes)) == ({"birth": 1}, 0)


def test_a_gap_in_the_numbers_of_a_node_is_counted_and_its_data_are_taken():
    """[streams-3.6]"""
    stream, node = born(None, p1=PUMP, p2=PUMP)
    for _ in range(600):  # over the end of the numbers, several times
        stream.send(node.data("p1", AT, temp=1.0), node.data("p2", AT, temp=1.0))
    assert stream.decoder.census.gaps == 0
    node.data("p1", AT, temp=2.0)  # lost on the way
    assert stream.send(node.data("p2", AT, vib=2.0))[0][2:] == (1.0, 2.0)
    assert (stream.rejected, stream.decoder.census.gaps) == ({}, 1)
    assert "messages were lost" in stream.why("seq")
    again = node.data("p1", AT)  # as QoS 1 may bring it
    stream.send(again, again, *node.births(AT), node.data("p1", AT))
    assert stream.decoder.census.gaps == 1  # a birth of the node begins anew
    for lost, message in enumerate((node.birth, node.death)):
        node.data("p1", AT)
        stream.send(message("p1", AT))
        assert stream.decoder.census.gaps == 2 + lost
    stream.send(node.birth("p1", AT), (node.topic("DDATA", "p1"), payload(at=AT)))
    assert stream.decoder.census.gaps == 3  # what has no number cannot say


def test_births_are_kept_over_a_restart_and_values_are_not():
    """[streams-3.7]"""
    stream, node = born(None, p1=PUMP, p2=PUMP | {"odd": ("String", "x")})
    kept = stream.decoder.census.kept()
    stream.send(node.data("p1", AT, temp=3.0))
    assert stream.decoder.census.kept() is None  # nothing was born
    after = Stream()
    after.decoder.census.recall(kept)
    assert after.decoder.census.kept() is None
    rows = after.send(node.data("p1", AT, temp=4.0), node.data("p2", AT, vib=5.0))
    assert [(row[0], *row[2:]) for row in rows] == [
        ("plant/e1/p1", 4.0, None),
        ("plant/e1/p2", None, 5.0),
    ]
    assert (after.rejected, after.decoder.census.gaps) == ({}, 0)
    after.send(EdgeNode(bd_seq=9).death())
    assert len(after.decoder.census.nodes) == 1  # whose birth it is that died is known, too
    after.send(node.death())
    assert len(after.decoder.census.nodes) == 0
    again = Stream()
    again.decoder.census.recall(after.decoder.census.kept())
    assert len(again.decoder.census.nodes) == 0


def test_what_is_kept_is_bounded_and_what_cannot_be_read_is_refused():
    stream = Stream()
    device = {f"{'x' * 500}{n}": ("Float", 1.0) for n in range(100)}
    for n in range(40):  # 50 kB each, all different
        node = EdgeNode(f"e{n}", p1={f"{n}{name}": value for name, value in device.items()})
        stream.send(*node.births(AT))
    kept = stream.decoder.census.kept()
    assert 0.5 * sparkplug_births.KEPT_BYTES_MAX < len(kept) < sparkplug_births.KEPT_BYTES_MAX
    after = Stream()
    after.decoder.census.recall(kept)
    assert "plant/e39" in after.decoder.census.nodes
    assert "plant/e0" not in after.decoder.census.nodes
    sorts = [[[b"a", b"b"], [9, 9]], [[b"a", b"b"], [9]]]
    books = (([sort], [["n", None, [["", 0, {1: 2}]]]]) for sort in sorts)
    no_sort = [], [["n", None, [["", 0, {}]]]]
    for wrong in (b"", b"\xc1", kept[:-1], *map(msgpack.packb, (*books, no_sort))):
        with pytest.raises(RefusedError, match="kept cannot be read"):
            Stream().decoder.census.recall(wrong)


# ---- what must not be believed -------------------------------------------------------------------


@pytest.mark.parametrize(
    "topic",
    [
        *(b"", b"a", b"spBv1.0/g/DDATA/e", b"spBv1.0/g/NDATA/e/d", b"spBv1.0/g/XDATA/e"),
        *(b"spAv1.0/g/NDATA/e", b"spBv1.0//NDATA/e", b"spBv1.0/g/DDATA/e/d/x", b"spBv1.0/g/NDATA"),
        b"\xff/g/N/e",
    ],
)
def test_topics_that_are_none_of_sparkplugs_are_refused(topic):
    stream, node = born()
    messages = [(topic, payload(at=AT)), node.data("p1", AT)]
    assert len(stream.send(*messages)) == 1
    assert stream.rejected == {"malformed": 1}


def test_any_number_of_topics_may_come():
    """[streams-3.8]"""
    stream, node = born(Stream(keys_max=2))
    for n in range(3000):
        stream.send((f"spBv1.0/plant/DDATA/e1/x{n}", payload()))
    assert len(stream.decoder._reader._routes) <= 4 * 2 + 1024
    assert len(stream.send(node.data("p1", AT))) == 1


def test_what_is_no_reading_is_none():
    stream, node = born()
    for topic in ("spBv1.0/STATE/host", "spBv1.0/plant/NCMD/e1", "spBv1.0/plant/DCMD/e1/p1"):
        assert stream.send((topic, b'{"online":true}'), node.data("p1", AT)) != []
        assert stream.rejected == {}
    without = stream.decoder.decode([payload()], None, 1.0, NOW)
    assert without.rejected == {"malformed": 1}


def test_a_payload_that_is_none_costs_itself_and_a_birth_that_is_none_its_device():
    stream, node = born()
    good, (topic, whole) = node.data("p1", AT, temp=2.0), node.data("p1", AT, vib=2.0)
    assert len(stream.send(good, (topic, whole[:-1]), (topic, b"\xff"), good)) == 2
    assert stream.rejected == {"malformed": 2}
    assert stream.send((node.topic("DBIRTH", "p1"), b"\xff"), good) == []
    assert stream.rejected == {"malformed": 1, "birth": 1}


def test_births_that_contradict_themselves_are_refused():
    for kinds, reason in (
        ([{"name": "a"}, {"name": "a"}], "duplicate_key"),
        ([{"name": "a", "alias": 1}, {"name": "b", "alias": 1}], "duplicate_key"),
        ([{"alias": 1}], "malformed"),
        ([{"name": "x" * 1025}], "malformed"),
        ([{"name": f"m{n}"} for n in range(sparkplug_wire.METRICS_MAX + 1)], "malformed"),
    ):
        stream = Stream()
        assert stream.send(("spBv1.0/g/NBIRTH/e", payload(*kinds))) == []
        assert stream.rejected == {reason: 1}, kinds[:2]
        assert stream.decoder.census.nodes == {}


def test_devices_are_no_more_than_keys_and_the_dead_make_room():
    """[streams-3.8]"""
    stream = Stream(keys_max=3)
    nodes = [EdgeNode(f"e{n}", p1=PUMP) for n in range(2)]
    stream.send(*nodes[0].births(AT))
    stream.send(*nodes[1].births(AT))
    assert stream.rejected == {"keys": 1}
    assert "keys_max" in stream.why("keys")
    stream.send(nodes[0].death(), nodes[1].birth("p1", AT))
    assert stream.rejected == {}


def test_data_after_a_birth_that_was_refused_says_so():
    """[streams-3.4]"""
    stream = Stream(keys_max=2)
    nodes = [EdgeNode(f"e{n}", p1=PUMP) for n in range(2)]
    stream.send(*nodes[0].births(AT), *nodes[1].births(AT))
    assert stream.send(nodes[1].data("p1", AT)) == []
    assert stream.rejected == {"keys": 1}
    refused = "the birth certificate of plant/e1/p1 was refused: there are 2 sensors already"
    assert stream.why("keys").startswith(refused)
    stream.send((nodes[0].topic("DBIRTH", "p1"), b"\xff"), nodes[0].data("p1", AT))
    assert stream.rejected == {"malformed": 1, "birth": 1}
    refused = "the birth certificate of plant/e0/p1 was refused: the payload is no Sparkplug"
    assert stream.why("birth").startswith(refused)
    stream.send(nodes[0].death(), nodes[0].data("p1", AT))
    assert stream.why("birth") == "no birth certificate of plant/e0/p1 was seen yet"


def test_refusals_are_remembered_of_so_many():
    census = sparkplug_births.Census(1)
    for n in range(3 * sparkplug_births.REFUSALS_MAX):
        with pytest.raises(RejectError):
            census.born("g/e", f"p{n}", [(b"", 9, 0)])
    assert len(census._refused) == sparkplug_births.REFUSALS_MAX


def test_births_take_no_more_memory_than_they_may():
    """[streams-3.8]"""
    census = sparkplug_births.Census(100, bytes_max=3000)
    for n in range(40):  # born again and again, which takes nothing more
        device = f"p{n % 4}"
        if device == "p3":
            with pytest.raises(RejectError, match="bytes already"):
                census.born("g/e", device, [(b"temp", 9, 0), (b"vib", 10, 1), (b"rpm", 10, 2)])
        else:
            census.born("g/e", device, [(b"temp", 9, 0), (b"vib", 10, 1), (b"rpm", 10, 2)])
    census.died("g/e")
    assert census.nodes == {}
    one, other = (census.born("g/e", f"p{n}", [(b"temp", 9, n)]) for n in range(2))
    assert one.sort is other.sort  # whatever their aliases are


def test_many_small_metrics_are_counted_before_they_are_made():
    """[streams-3.8]"""
    stream, _ = born()
    raw = b"\x12\x00" * 500_000 + b"\xff"  # who reads to its end finds that it is none
    for many in (raw, b"\x12\x00" * 20_000):
        stream.decoder.last_reject.clear()
        assert stream.send(("spBv1.0/plant/DDATA/e1/p1", many)) == []
        assert "more than 16384 metrics" in stream.why("malformed")


def test_a_spec_that_cannot_be_followed_is_refused():
    for wrong in ({"key": "id"}, {"time": "ts"}):
        with pytest.raises(RefusedError, match="its times are in its payloads"):
            Stream(**wrong)


def test_a_model_can_be_held_against_what_the_births_named():
    stream, node = born(None, p1=PUMP | {"odd": ("String", "x")})
    survey = Survey(stream.spec, peek=stream.decoder.peek)
    for n in range(40):
        message = node.data("p1", AT + 1000 * n, temp=float(n))
        stream.send(message)
        survey.saw([message[1]], stream.block)
    seen = survey.seen()
    assert (seen.readings, seen.sensors, seen.rate_hz) == (40, 1, 1.0)
    assert seen.fields["temp"].present == seen.fields["vib"].present == 1.0
    assert (seen.fields["odd"].failed, seen.fields["odd"].example) == (1.0, "a String")


TOPIC = st.builds(
    "/".join,
    st.tuples(
        st.sampled_from(["spBv1.0", "x"]),
        st.sampled_from(["plant", "STATE", ""]),
        st.sampled_from(["NBIRTH", "DBIRTH", "NDATA", "DDATA", "NDEATH", "DDEATH", "NCMD", "x"]),
        st.sampled_from(["e1/p1", "e1", "e2/p1", ""]),
    ),
)
METRIC = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["temp", "vib", "bdSeq", ""]),
        "alias": st.integers(0, 3) | st.just(2**64 - 1),
        "timestamp": st.integers(0, 2**64 - 1),
        "datatype": st.integers(0, 40),
        "is_historical": st.booleans(),
        "is_null": st.booleans(),
        "int_value": st.integers(0, 2**32 - 1),
        "long_value": st.integers(0, 2**64 - 1),
        "float_value": st.floats(width=32),
        "double_value": st.floats(),
        "boolean_value": st.booleans(),
        "string_value": st.text(max_size=3),
    },
)
WHOLE = st.builds(
    lambda metrics, seq: payload(*metrics, at=AT, seq=seq),
    st.lists(METRIC, max_size=4),
    st.integers(0, 300) | st.none(),
)
BROKEN = st.builds(
    lambda raw, at, byte: raw[: at % (len(raw) + 1)] + byte + raw[(at + 1) % (len(raw) + 1) :],
    WHOLE,
    st.integers(0, 400),
    st.binary(max_size=2),
)


@settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(TOPIC, WHOLE | BROKEN | st.binary(max_size=40)), max_size=8))
def test_nothing_that_comes_breaks_it_and_one_by_one_gives_the_same(messages):
    """[streams-3.8]"""
    together, apart = Stream(key="{3}"), Stream(key="{3}")
    for stream in (together, apart):
        stream.send(*EdgeNode(p1=PUMP).births(AT))
    rows = together.send(*messages)
    singles, rejected = [], {}
    for message in messages:
        singles += apart.send(message)
        for reason, n in apart.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + n
    assert (rows, together.rejected) == (singles, rejected)
    kept = together.decoder.census.kept()
    if kept is not None:
        Stream().decoder.census.recall(kept)


VALUES = {
    **{kind: st.integers(*sorted((edges(kind)[0], edges(kind)[-1]))) for kind in INTEGERS},
    "Float": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "Double": st.floats(allow_nan=False, allow_infinity=False),
    "Boolean": st.booleans(),
}


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_what_an_encoder_of_the_published_schema_says_is_what_is_read(data):
    """[streams-3.1] [streams-3.2] [streams-3.3]"""
    names = [f"m{n}" for n in range(data.draw(st.integers(1, 5)))]
    kinds = {name: data.draw(st.sampled_from(sorted(VALUES))) for name in names}
    draw = {name: st.none() | VALUES[kind] for name, kind in kinds.items()}
    known = {name: data.draw(draw[name]) for name in names}
    node = EdgeNode(p1={name: (kinds[name], known[name]) for name in names})
    stream = Stream(*names)
    messages, want = list(node.births(AT)), []
    want.append(tuple(known.values()))
    for _ in range(data.draw(st.integers(0, 6))):
        changes = data.draw(st.fixed_dictionaries({}, optional=draw))
        known |= changes
        messages.append(node.data("p1", AT, **changes))
        want.append(tuple(known.values()))
    got = [row[2:] for row in stream.send(*messages)]
    assert got == [tuple(None if v is None else float(v) for v in row) for row in want]
    assert stream.rejected == {}


def test_the_schema_of_the_tests_is_the_whole_of_the_published_one():
    fields = {field.name: field.number for field in Payload.DESCRIPTOR.fields}
    assert fields == {"timestamp": 1, "metrics": 2, "seq": 3, "uuid": 4, "body": 5}
    one = payload(metric("Float", 1.0, name="t", alias=1, birth=True), at=1, seq=0)
    assert one == bytes.fromhex("0801120c0a0174100120096500 00803f1800".replace(" ", ""))
