"""Settings: read once, checked whole; each refusal names its key."""

import pytest

from agent.config import load
from agent.core.errors import RefusedError

STREAM = '[[stream]]\nname = "s"\ntopic = "t/+"\n'


def config(tmp_path, text="", **environ):
    path = tmp_path / "agent.toml"
    path.write_text(text, encoding="utf-8")
    return load(path, environ)


def test_with_nothing_set_the_defaults_are_safe(tmp_path):
    found = config(tmp_path)
    assert found == load(None, {})
    assert (found.mqtt.url, found.mqtt.root, found.mqtt.version) == (
        "mqtt://127.0.0.1:1883",
        "edge",
        5,
    )
    assert (found.http.bind, found.http.is_loopback) == ("127.0.0.1:8080", True)
    assert (found.repository.url, found.repository.trust) == ("mqtt:", "tuf")
    assert found.engine.isolation == "process"
    assert found.report.interval == 60.0
    assert found.device.id


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[device]\nid = "a b"', "device.id"),
        ('[mqtt]\nurl = "tcp://x"', "mqtt.url"),
        ('[mqtt]\nurl = "mqtt://u:secret@x"', "mqtt.url"),
        ('[mqtt]\nurl = "mqtt://x:65536"', "mqtt.url"),
        ('[mqtt]\nurl = "mqtt://x:0"', "mqtt.url"),
        ('[mqtt]\nurl = "mqtt://x:y"', "mqtt.url"),
        ('[mqtt]\nembedded_bind = "x"', "mqtt.embedded_bind"),
        ("[mqtt]\nversion = 3", "mqtt.version"),
        ('[mqtt]\nroot = "+"', "mqtt.root"),
        ('[mqtt]\nurll = "x"', "mqtt.urll"),
        ('[mqtt]\ncert_file = "c"', "key_file"),
        ("[store]\noutbox_mb = 0", "store.outbox_mb"),
        ('[store]\ndir = ""', "store.dir"),
        ('[store]\ndir = "a\\u0000b"', "store.dir"),
        ("device = 1", "device: input should be a table"),
        ('[device]\ngroups = "x"', "device.groups: input should be a list"),
        ("a = " + "[" * 10_000, "is not TOML"),
        ('[repository]\nurl = "ftp://x"', "repository.url"),
        ('[repository]\nurl = "http://far.away"', "repository.url"),
        ('[repository]\ntrust = "maybe"', "repository.trust"),
        ('[repository]\nurl = "https://"', "repository.url"),
        ('[http]\nbind = "8080"', "http.bind"),
        ('[http]\nbind = "127.0.0.1:65536"', "http.bind"),
        ('[http]\nbind = "0.0.0.0:8080"', "http.token_file"),
        ('[report]\ninterval = "often"', "report.interval"),
        ("[engine]\ndeaths_max = 0", "engine.deaths_max"),
        ("[engine]\nrun_s_max = inf", "engine.run_s_max"),
        ("[[stream]]\nname = 's'", "topic"),
        ("[[stream]]\nname = 's'\nsource = 'file'", "path"),
        (STREAM + "qos = 2", "stream.0.qos"),
        (STREAM + 'format = "xml"', "stream.0.format"),
        (STREAM + 'format = "float32"', "columns"),
        (STREAM + 'late = "-1s"', "stream.0.late"),
        (STREAM + 'format = "sparkplug"\nsource = "http"', "births included"),
        ('[[stream]]\nname = "s"\ntopic = "$share/g/t"\nformat = "sparkplug"', "births included"),
        ('[[stream]]\nname = "s"\ntopic = "a/b+"', "'a/b+'"),
        ('[[stream]]\nname = "s"\ntopic = "#/a"', "'#/a'"),
        ('[[stream]]\nname = "s"\nsource = "file"\npath = "p"\nkey = "{1}"', "{1}"),
        (STREAM + STREAM, "twice"),
        ('[[model]]\nname = "m"\nstream = "x"\npath = "p"', "'x'"),
        ("nonsense = 1", "nonsense"),
    ],
)
def test_a_refusal_names_the_key(tmp_path, text, key):
    with pytest.raises(RefusedError) as refused:
        config(tmp_path, text)
    assert key in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_store_is_named_from_the_root_wherever_the_agent_stood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config(tmp_path, '[store]\ndir = "./store"').store.dir == str(tmp_path / "store")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(RefusedError, match=r"store\.dir: 'store' is named from a folder that is"):
        config(tmp_path, '[store]\ndir = "store"')


def test_what_is_no_toml_or_is_not_there_is_said(tmp_path):
    with pytest.raises(RefusedError, match="is not TOML"):
        config(tmp_path, "[mqtt")
    with pytest.raises(RefusedError, match="cannot read"):
        load(tmp_path / "none.toml", {})


def test_the_environment_lies_over_the_file(tmp_path):
    found = config(
        tmp_path,
        '[mqtt]\nurl = "mqtt://one"\nroot = "plant"',
        EDGE_AGENT__MQTT__URL="mqtts://two:8883",
        EDGE_AGENT__REPORT__INTERVAL="5s",
        OTHER__MQTT__URL="mqtt://three",
    )
    assert (found.mqtt.url, found.mqtt.root) == ("mqtts://two:8883", "plant")
    assert found.report.interval == 5.0


def test_lists_and_tables_in_the_environment_are_json(tmp_path):
    found = config(
        tmp_path,
        EDGE_AGENT__DEVICE__GROUPS='["line-1", "line-2"]',
        EDGE_AGENT__STREAM='[{"name": "s", "topic": "t", "fields": {"v": "a.b"}}]',
        EDGE_AGENT__STORE='{"outbox_mb": 5}',
    )
    assert found.device.groups == ("line-1", "line-2")
    assert found.stream[0].fields == {"v": "a.b"}
    assert found.store.outbox_mb == 5


def test_broken_json_in_the_environment_is_refused_by_its_key(tmp_path):
    with pytest.raises(RefusedError, match=r"device\.groups"):
        config(tmp_path, EDGE_AGENT__DEVICE__GROUPS='["line-1"')


def test_what_the_environment_has_set_wrong_is_not_looked_for_in_the_file(tmp_path):
    with pytest.raises(RefusedError, match=r"^EDGE_AGENT__MQTT__URLL: mqtt\.urll: there is no"):
        config(tmp_path, "[mqtt]", EDGE_AGENT__MQTT__URLL="x")
    with pytest.raises(RefusedError, match=r"^EDGE_AGENT__DEVICE: device\.id: "):
        config(tmp_path, "[mqtt]", EDGE_AGENT__DEVICE='{"id": "a b"}')
    with pytest.raises(RefusedError, match=r"agent\.toml: mqtt\.urll: there is no such name"):
        config(tmp_path, '[mqtt]\nurll = "x"', EDGE_AGENT__MQTT__URL="mqtt://two")


def test_a_variable_cannot_name_what_is_in_a_list(tmp_path):
    with pytest.raises(RefusedError, match="EDGE_AGENT__STREAM__0__TOPIC: stream is no table"):
        config(tmp_path, STREAM, EDGE_AGENT__STREAM__0__TOPIC="other")


def test_json_too_deep_in_the_environment_is_refused_by_its_key(tmp_path):
    with pytest.raises(RefusedError, match=r"device\.groups"):
        config(tmp_path, EDGE_AGENT__DEVICE__GROUPS="[" * 100_000)


def test_numbers_and_versions_come_as_text_from_the_environment(tmp_path):
    found = config(tmp_path, EDGE_AGENT__MQTT__KEEPALIVE_S="45", EDGE_AGENT__MQTT__VERSION="4")
    assert (found.mqtt.keepalive_s, found.mqtt.version) == (45, 4)


def test_what_was_read_cannot_be_changed(tmp_path):
    with pytest.raises(ValueError, match="frozen"):
        config(tmp_path).mqtt.url = "mqtt://x"
