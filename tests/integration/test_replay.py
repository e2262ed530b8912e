"""A recording played to a real broker."""

import json
import os
import subprocess
import sys
import time

import pytest
import typer
from typer.testing import CliRunner

from agent.commands.replay import replay
from agent.config import Mqtt
from agent.repository.conversation import Conversation

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(replay)
TOPIC = "plant/line1/pump/p1/telemetry"
PROGRAM = (
    "import typer; from agent.commands.replay import replay; "
    "app = typer.Typer(); app.command()(replay); app()"
)


@pytest.fixture
def run(broker):
    def invoke(*words, ok=True):
        words = [str(word) for word in words]
        done = CliRunner().invoke(app, words, env={"EDGE_AGENT__MQTT__URL": broker.url})
        if ok:
            assert done.exit_code == 0, done.output
        return done

    return invoke


@pytest.fixture
def sensor(broker):
    """Whoever listens to the sensor."""
    with Conversation(Mqtt(url=broker.url)) as talk:
        talk.follow("plant/#")
        yield talk


def recording(tmp_path, rows, header="timestamp,value"):
    file = tmp_path / "x.csv"
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


def heard(talk, count):
    return [talk.next(5.0) for _ in range(count)]


def test_every_row_arrives_once_in_order_and_as_json(run, sensor, tmp_path):
    file = recording(
        tmp_path, [f"2014-07-01 00:{i // 60:02}:{i % 60:02},{i}.5" for i in range(900)]
    )
    done = run(file, "--topic", TOPIC, "--json")
    messages = heard(sensor, 900)
    assert [json.loads(m.payload)["value"] for m in messages] == [i + 0.5 for i in range(900)]
    assert {m.topic for m in messages} == {TOPIC}
    assert sensor.next(0.2) is None
    assert json.loads(done.stdout)["rows"] == 900


def test_a_recording_published_by_others_plays_as_it_is(run, sensor, shared_data):
    file = shared_data / "nab" / "ambient_temperature_system_failure.csv"
    rows = file.read_text().splitlines()[1:]
    run(file, "--topic", TOPIC)
    first, *_, last = heard(sensor, len(rows))
    for message, row in ((first, rows[0]), (last, rows[-1])):
        stamp, value = row.split(",")
        assert json.loads(message.payload) == {"timestamp": stamp, "value": float(value)}


def test_the_rate_is_kept(run, tmp_path):
    file = recording(tmp_path, [f"t,{i}" for i in range(301)])
    told = json.loads(run(file, "--topic", TOPIC, "--rate", "200", "--json").stdout)
    assert 1.5 <= told["seconds"] < 2.5  # 300 gaps of 5 ms


def test_the_recordings_own_pace_is_kept(run, tmp_path):
    file = recording(tmp_path, ["2014-07-01 00:00:00,1", "2014-07-01 00:00:50,2"])
    words = ("--topic", TOPIC, "--time", "timestamp", "--speed", "100", "--json")
    told = json.loads(run(file, *words).stdout)
    assert 0.5 <= told["seconds"] < 2.0


def test_rows_of_several_machines_go_to_their_own_topics(run, sensor, tmp_path):
    file = recording(tmp_path, ["p1,1", "p2,2"], "machine,value")
    run(file, "--topic", "plant/{machine}/telemetry")
    assert [m.topic for m in heard(sensor, 2)] == ["plant/p1/telemetry", "plant/p2/telemetry"]


def test_a_loop_begins_again_until_it_is_interrupted(broker, sensor, tmp_path):
    file = recording(tmp_path, ["t,1", "t,2"])
    command = [sys.executable, "-c", PROGRAM, str(file), "--topic", TOPIC, "--rate", "50", "--loop"]
    env = os.environ | {"EDGE_AGENT__MQTT__URL": broker.url}
    player = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    try:
        values = [json.loads(m.payload)["value"] for m in heard(sensor, 7)]
        assert values == [1, 2, 1, 2, 1, 2, 1]
        player.send_signal(2)
        assert player.wait(10) == 0
        assert "rows in" in player.stdout.read()
    finally:
        player.kill()
        player.wait()
        player.stdout.close()


def test_a_broker_that_restarts_loses_no_row(broker, tmp_path):
    file = recording(tmp_path, [f"t,{i}" for i in range(400)])
    command = [
        sys.executable,
        "-c",
        PROGRAM,
        str(file),
        "--topic",
        TOPIC,
        "--rate",
        "200",
        "--json",
    ]
    env = os.environ | {"EDGE_AGENT__MQTT__URL": broker.url}
    player = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    try:
        with Conversation(Mqtt(url=broker.url)) as listening:
            listening.follow("plant/#")
            assert heard(listening, 20)[-1] is not None
        broker.restart()
        told, _ = player.communicate(timeout=30)
        assert player.returncode == 0
        assert json.loads(told)["rows"] == 400
    finally:
        player.kill()
        player.wait()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--topic", "plant/+/x"), 2, "wildcards"),
        (("--topic", TOPIC, "--rate", "5", "--time", "timestamp"), 2, "one of them"),
        (("--topic", TOPIC, "--time", "timestamp", "--speed", "0"), 2, "above 0"),
        (("--topic", TOPIC, "--time", "value"), 0, ""),
        (("--topic", TOPIC, "--time", "nothing"), 1, "no time"),
        (("--topic", "plant/{timestamp}/x"), 1, "topic level"),
    ],
)
def test_what_cannot_be_played_is_said_in_one_sentence(run, tmp_path, words, code, says):
    file = recording(tmp_path, ["2014-07-01 00:00:00,1400000000"])
    done = run(file, *words, ok=False)
    assert done.exit_code == code
    assert says in done.stderr


def test_a_file_that_is_not_there_or_no_text_is_said(run, tmp_path):
    assert run(tmp_path / "no.csv", "--topic", TOPIC, ok=False).exit_code == 2
    (tmp_path / "x.bin").write_bytes(b"a,b\n\xff\xfe,1\n")
    done = run(tmp_path / "x.bin", "--topic", TOPIC, ok=False)
    assert done.exit_code == 1
    assert "not UTF-8" in done.stderr


def test_playing_is_as_fast_as_the_broker_takes_it(run, tmp_path):
    file = recording(tmp_path, [f"t,{i}" for i in range(5000)])
    began = time.monotonic()
    run(file, "--topic", TOPIC)
    assert time.monotonic() - began < 10.0
