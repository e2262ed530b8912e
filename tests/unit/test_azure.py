"""The pure parts of the hub's dialect: twins, topics, identities, tokens, methods."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.adapters.azure import topics, twin
from agent.adapters.azure.identity import Identity
from agent.adapters.azure.methods import Methods
from agent.adapters.azure.tokens import sign_with, token
from agent.core.errors import RefusedError
from agent.core.mirrors import difference, escaped, merge, size_of
from agent.core.topics import Topics
from agent.core.wire import parse_desired
from tests.world.edge_hub import _merged as hub_merges
from tests.world.edge_hub import _unfit
from tests.world.hours import HandClock

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1, 1) | st.text(max_size=4)
TREES = st.recursive(
    LEAVES, lambda t: st.lists(t, max_size=3) | st.dictionaries(KEYS, t, max_size=3), max_leaves=12
)
DOCUMENTS = st.dictionaries(KEYS, TREES, max_size=4)
MODULE = {
    "IOTEDGE_WORKLOADURI": "unix:///w.sock",
    "IOTEDGE_DEVICEID": "d 1",
    "IOTEDGE_MODULEID": "m",
    "IOTEDGE_IOTHUBHOSTNAME": "h.azure-devices.net",
    "IOTEDGE_GATEWAYHOSTNAME": "gate",
    "IOTEDGE_MODULEGENERATIONID": "g",
}
STRING = "HostName=h.net;DeviceId=d;SharedAccessKey=c2VjcmV0a2V5"


# ---- twins ---------------------------------------------------------------------------------------


@given(DOCUMENTS, DOCUMENTS)
def test_the_difference_merged_in_gives_the_new_section(before, after):
    """[azure-3.1]"""
    before, after = twin.reported_section(before), twin.reported_section(after)
    patch = difference(before, after)
    assert hub_merges(before, patch) == after
    assert merge(before, patch) == after
    assert difference(after, after) == {}


@given(DOCUMENTS)
def test_a_section_is_what_a_hub_takes_whatever_is_reported(document):
    """[azure-3.2]"""
    section = twin.reported_section(document)
    assert _unfit(section) is None
    assert size_of(section) <= twin.SECTION_BYTES_MAX


def test_what_does_not_fit_is_left_out_in_order_and_named():
    model = {"state": "Healthy", "receipt": {"x": "y" * 500}, "last_reject": {"range": "z" * 300}}
    models = {f"m{n}": model for n in range(50)}
    section = twin.reported_section({"models": models})
    assert section["left_out"] == ["receipt"]
    assert section["models"]["m1"] == {"state": "Healthy", "last_reject": {"range": "z" * 300}}
    models = {f"m{n}": {"state": "x" * 4000} for n in range(50)}
    section = twin.reported_section({"ready": True, "models": models})
    assert section["left_out"][-1] == "models"
    assert 0 < len(section["models"]) < 50
    assert section["ready"] is True
    assert size_of(section) <= twin.SECTION_BYTES_MAX


def test_desired_properties_are_the_native_document():
    """[azure-2.1] [azure-2.3]"""
    assert twin.desired_document({"$version": 3, "other": 1}) is None
    section = {
        "$version": 7,
        "$metadata": {},
        "models": {"pump%2Ev1": {"release": 3}},
    }
    wish = parse_desired(twin.desired_document(section))
    assert (wish.revision, wish.models["pump.v1"].release) == (7, 3)
    assert parse_desired(twin.desired_document({**section, "revision": 2})).revision == 2
    assert parse_desired(twin.desired_document({"models": {}, "$version": 1})).models == {}
    pieces = json.loads(twin.desired_document({**section, "metadata": ["ab", "cd"]}))
    assert pieces["metadata"] == "abcd"


@given(st.text(max_size=20))
def test_an_escaped_key_reads_back_as_it_was(key):
    assert topics.unquote(escaped(key)) == key


# ---- topics --------------------------------------------------------------------------------------


@given(st.dictionaries(KEYS, st.text(max_size=6), max_size=4))
def test_a_property_bag_reads_back_as_it_was_and_holds_no_level(properties):
    """[azure-5.2]"""
    text = topics.bag(properties)
    assert topics.unbag(text) == properties
    assert not set(text) & set("/+#? $")


def test_topics_are_told_apart():
    assert topics.twin_answer("$iothub/twin/res/204/?$rid=ab&$version=3") == (204, "ab")
    assert topics.twin_answer("$iothub/twin/res/x/?$rid=ab") is None
    assert topics.twin_change("$iothub/twin/PATCH/properties/desired/?$version=4") == 4
    assert topics.twin_change("$iothub/methods/POST/ping/?$rid=1") is None
    assert topics.method("$iothub/methods/POST/ping/?$rid=1f") == ("ping", "1f")
    hub = topics.HubTopics(Identity.of_module(MODULE))
    here = hub.output("scores", model="m")
    assert here.startswith("devices/d 1/modules/m/messages/events/%24.on=scores&%24.ct=application")
    raw = b"devices/d 1/modules/m/inputs/in1/%24.cdid=d%201&%24.cmid=sensor"
    assert hub.named(raw) == b"in1/d 1/sensor"
    assert hub.named(b"devices/d 1/modules/m/inputs/in1") == b"in1//"


# ---- identities and tokens -----------------------------------------------------------------------


def test_a_module_is_told_by_its_environment():
    """[azure-1.1]"""
    found = Identity.of_module({**MODULE, "IOTEDGE_APIVERSION": "2022-08-03"})
    assert found.client_id == "d 1/m"
    assert found.username.startswith("h.azure-devices.net/d 1/m/?api-version=2021-04-12")
    assert found.resource == "h.azure-devices.net/devices/d 1/modules/m"
    with pytest.raises(RefusedError, match="IOTEDGE_MODULEID"):
        Identity.of_module({k: v for k, v in MODULE.items() if k != "IOTEDGE_MODULEID"})


def test_a_connection_string_names_a_device_or_a_module_and_keeps_its_key():
    """[azure-1.5]"""
    device = Identity.of_connection_string(STRING)
    assert (device.client_id, device.gateway, device.key) == ("d", "h.net", b"secretkey")
    module = Identity.of_connection_string(STRING + ";ModuleId=m;GatewayHostName=edge\n")
    assert (module.client_id, module.gateway) == ("d/m", "edge")
    outputs = topics.HubTopics(device)
    assert outputs.output("events").startswith("devices/d/messages/events/%24.ct=")
    assert len(outputs.subscriptions) == 3
    for broken in ("", "HostName=h", STRING.replace("c2Vjcm", "!!!secret")):
        with pytest.raises(RefusedError) as refused:
            Identity.of_connection_string(broken)
        assert "secret" not in str(refused.value)


def test_a_token_is_signed_as_the_hub_checks_it():
    made = token("h/devices/d/modules/m", 1_700_000_000, lambda text: sign_with(b"k", text))
    scope = "h%2Fdevices%2Fd%2Fmodules%2Fm"
    signature = sign_with(b"k", f"{scope}\n1700000000".encode())
    assert len(base64.b64decode(signature)) == 32
    assert made.startswith(f"SharedAccessSignature sr={scope}&sig=")
    assert made.endswith("%3D&se=1700000000")


# ---- methods -------------------------------------------------------------------------------------


def test_a_method_is_a_command_and_one_that_comes_twice_keeps_its_id():
    """[azure-4.2]"""
    clock = HandClock()
    methods = Methods(Topics("edge", "d"), clock)
    first = methods.command("pause", "r1", b'{"stream": "s"}')
    body = json.loads(first.payload)
    assert (first.topic, body["args"]) == ("edge/d/command/pause", {"stream": "s"})
    assert methods.answered(first.response_topic) == "r1"
    assert (
        json.loads(methods.command("pause", "r1", b'{"stream": "s"}').payload)["id"] == body["id"]
    )
    other = json.loads(methods.command("pause", "r2", b'{"stream": "s"}').payload)
    assert other["id"] != body["id"]
    assert json.loads(methods.command("ping", "r3", b"null").payload)["args"] == {}
    whole = b'{"id": "mine", "expires": 4e9, "args": {}}'
    assert methods.command("ping", "r4", whole).payload == whole
    assert methods.command("ping", "r5", b"[]").payload == b"[]"  # refused where commands are read
