"""Operators' commands against a real broker and a device that follows a script."""

import json
import os
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from agent.adapters.embedded import EmbeddedBroker
from agent.commands import fleet as commands
from agent.config import Mqtt
from agent.core.errors import RefusedError, UnavailableError
from agent.core.names import Digest, ModelRef
from agent.core.packages import FileEntry, Package, digest_of
from agent.core.wire import parse_desired
from agent.repository.conversation import Conversation
from agent.repository.layout import Repository
from tests.world.broker import Broker, Certificates
from tests.world.stand_in import StandIn, model
from tests.world.waiting import eventually

NAME = "pump-anomaly"
app = typer.Typer(pretty_exceptions_enable=False)
for function in (commands.status, commands.deploy, commands.rollback, commands.command):
    app.command()(function)


@pytest.fixture
def repo(tmp_path):
    made = Repository.init(tmp_path / "repo")
    packages = []
    for release, version in ((1, "1"), (2, "2"), (7, "2.1")):
        files = (FileEntry("model.onnx", 3, Digest(f"sha256:{release:064x}")),)
        ref = ModelRef(NAME, release, digest_of(NAME, files))
        packages.append(Package(ref, version, files))
    made.write_packages(packages)
    (made.metadata / "1.root.json").write_bytes(b'{"signed": {}}')
    return made


@pytest.fixture
def device(broker):
    with StandIn(broker.url, "pump-7", groups=["line-3"]) as it:
        yield it


@pytest.fixture
def run(broker, repo):
    def invoke(*words, ok=True, url=broker.url):
        where = ["--repo", str(repo.folder)] if words[0] == "deploy" else []
        env = {"EDGE_AGENT__MQTT__URL": url, "COLUMNS": "400"}
        done = CliRunner().invoke(app, [*words, *where], env=env)
        if ok:
            assert done.exit_code == 0, done.output
        return done

    return invoke


def retained(broker, *filters):
    with Conversation(Mqtt(url=broker.url)) as talk:
        return talk.retained(*filters)


# ---- the conversation ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
def test_all_that_is_retained_is_collected_however_much_it_is(broker, version):
    settings = Mqtt(url=broker.url, version=version)
    with Conversation(settings) as talk:
        for i in range(300):
            talk.post(f"x/{i}", b"not retained")
            talk.publish(f"edge/d{i}/reported", f"{i}".encode(), retain=True)
        talk.flush()
    with Conversation(settings) as talk:
        found = talk.retained("edge/+/reported")
        assert len(found) == 300
        assert talk.retained("edge/nobody/desired") == {}


@pytest.mark.parametrize("version", [4, 5])
def test_retained_documents_come_through_the_embedded_broker_too(free_port, tmp_path, version):
    pytest.importorskip("iotcore")
    broker = EmbeddedBroker(f"127.0.0.1:{free_port}", tmp_path)
    broker.start()
    try:
        bind = f"127.0.0.1:{free_port}"
        settings = Mqtt(url="embedded", embedded_bind=bind, version=version)
        with Conversation(settings) as talk:
            for i in range(30):
                talk.publish(f"edge/d{i}/reported", f"{i}".encode(), retain=True)
        with Conversation(settings) as talk:
            assert len(talk.retained("edge/+/reported")) == 30
            assert talk.retained("edge/+/desired") == {}
    finally:
        broker.stop()


def test_a_broker_that_is_not_there_is_said_in_one_sentence(free_port):
    with (
        pytest.raises(UnavailableError, match="is the broker running"),
        Conversation(Mqtt(url=f"mqtt://127.0.0.1:{free_port}")),
    ):
        pass


def test_the_broker_is_reached_over_tls_with_a_certificate_and_a_password(tmp_path):
    certificates = Certificates(tmp_path)
    (tmp_path / "password").write_text("s3cret\n")
    with Broker(tls=certificates, client_certs=True, password=("operator", "s3cret")) as broker:
        settings = Mqtt(
            url=broker.url,
            username="operator",
            password_file=str(tmp_path / "password"),
            ca_file=str(certificates.ca_file),
            cert_file=str(certificates.client_cert_file),
            key_file=str(certificates.client_key_file),
        )
        with Conversation(settings) as talk:
            talk.publish("edge/x/desired", b"{}", retain=True)
            assert talk.retained("edge/+/desired") == {"edge/x/desired": b"{}"}
        stranger = settings.model_copy(update={"username": "nobody"})
        with pytest.raises(UnavailableError, match="does not let us in"), Conversation(stranger):
            pass
        trusting_others = settings.model_copy(update={"ca_file": ""})
        with pytest.raises(UnavailableError, match="certificate"), Conversation(trusting_others):
            pass


def test_the_broker_is_reached_over_websockets():
    with Broker(websockets=True) as broker:
        eventually(lambda: "running" in broker.log.read_text())  # that listener comes last
        with Conversation(Mqtt(url=broker.ws_url)) as talk:
            talk.publish("edge/x/desired", b"{}", retain=True)
            assert talk.retained("edge/+/desired") == {"edge/x/desired": b"{}"}


def test_what_a_broker_does_not_take_is_never_called_sent(tmp_path):
    acl = tmp_path / "acl"
    acl.write_text("topic read edge/#\n")
    acl.chmod(0o600)
    with (
        Broker(extra=[f"acl_file {acl}", "max_packet_size 2000"]) as broker,
        Conversation(Mqtt(url=broker.url)) as talk,
    ):
        with pytest.raises(RefusedError, match="does not take"):
            talk.publish("edge/x/desired", b"{}", retain=True)
        with pytest.raises(RefusedError, match="takes at most") as caught:
            talk.publish("edge/x/desired", bytes(3000))
        assert caught.value.code == 413
        assert talk.retained("edge/#") == {}  # without an echo, by the clock


def test_posted_messages_survive_a_broker_that_restarts(broker):
    with Conversation(Mqtt(url=broker.url)) as talk:
        for i in range(50):
            talk.post("x", f"{i}".encode())
        talk.flush()
        broker.restart()
        for i in range(50):
            talk.post("x", f"{i}".encode())
        talk.flush()


# ---- status --------------------------------------------------------------------------------------


def test_status_tells_the_fleet_as_a_table_and_as_json(device, run):
    device.report(
        revision=3,
        ready=False,
        reasons=["no golden sample was scored"],
        models={
            NAME: model(
                active=2,
                known_good=1,
                candidate=7,
                phase="probation",
                progress=0.4,
                state="Transitioning",
                latency_ms={"p99": 3.04},
                counts={"in": 1000, "scored": 990, "rejected": {"range": 3, "x": 1}, "pending": 6},
            )
            | {"active": {"release": 2, "version": "2", "provider": "cpu", "wanted": "cuda"}}
        },
    )
    table = run("status").stdout
    for text in ("pump-7", "yes", "no", NAME, "probation 40%", "cpu (wanted cuda)", "3.0"):
        assert text in table
    assert "no golden sample was scored" in table
    assert " 4 " in table  # rejected, of all reasons
    document = json.loads(run("status", "--json").stdout)
    told = document["devices"]["pump-7"]
    assert told["online"] is True
    assert told["reported"]["models"][NAME]["phase"] == "probation"


def test_a_device_that_says_nonsense_does_not_hide_the_others(broker, device, run):
    device.report(revision=1, models={NAME: model(active=1)})
    with Conversation(Mqtt(url=broker.url)) as talk:
        talk.publish("edge/odd/reported", b'{"models": NaN}', retain=True)
        talk.publish("edge/odder/reported", b'{"models": [[]], "ready": "[red]"}', retain=True)
    table = run("status").stdout
    assert "NaN is no number" in table
    assert "odder" in table
    assert "Healthy" in table


def test_status_of_nobody_is_an_answer_and_of_a_stranger_is_not(run):
    assert "no device has reported" in run("status").stdout
    done = run("status", "--device", "pump-8", ok=False)
    assert done.exit_code == 1
    assert "pump-8 has never reported" in done.stderr


def test_without_a_broker_the_usage_is_wrong(run):
    done = run("status", ok=False, url="")
    assert done.exit_code == 2
    assert "--mqtt" in done.stderr
    assert run("status", "--mqtt", "http://x", ok=False).exit_code == 2


# ---- deploy --------------------------------------------------------------------------------------


def rollout(release, *ends):
    """A script: the usual phases, then `ends`."""

    def script(wish):
        revision = wish.revision
        for phase in ("fetching", "preflight", "probation"):
            yield {
                "revision": revision,
                "models": {NAME: model(candidate=release, phase=phase, state="Transitioning")},
            }
        for end in ends:
            yield {"revision": revision, "models": {NAME: end}}

    return script


def test_a_wish_that_is_committed_ends_well(device, run):
    device.script = rollout(7, model(active=7, known_good=7))
    done = run("deploy", NAME, "--device", "pump-7", "--wait", "--timeout", "20")
    wish = device.wishes[-1]
    assert wish.models[NAME].release == 7  # the newest
    assert set(wish.metadata) == {"1.root.json", "catalog.json"}
    assert "fetching" in done.stderr
    assert "probation" in done.stderr
    assert "committed" in done.stdout


def test_a_wish_for_a_device_that_nobody_has_heard_of_says_so(run):
    done = run("deploy", NAME, "--device", "pump-8", "--wait", "--timeout", "0.5", ok=False)
    assert done.exit_code == 1
    assert "pump-8 has not committed it within 0.5 s, and has never reported" in done.stderr


def test_a_wish_amends_the_document_and_never_shortens_it(broker, device, run):
    with Conversation(Mqtt(url=broker.url)) as talk:
        before = {
            "schema": 1,
            "revision": 41,
            "ours": "kept",
            "models": {"seal": {"release": 3}, NAME: {"release": 1, "stream": "pump"}},
        }
        talk.publish(device.topics.desired, json.dumps(before).encode(), retain=True)
    run("deploy", f"{NAME}:2", "--device", "pump-7", "--set", "shadow.windows=50")
    raw = retained(broker, device.topics.desired)[device.topics.desired]
    wish = parse_desired(raw)
    assert wish.revision == 42
    assert wish.models["seal"].release == 3
    assert wish.models[NAME].release == 2
    assert wish.models[NAME].stream == "pump"
    assert wish.models[NAME].rollout == {"shadow": {"windows": 50}}
    assert json.loads(raw)["ours"] == "kept"


def test_a_version_is_found_by_its_version_before_its_release(device, run):
    done = run("deploy", f"{NAME}:2.1", "--device", "pump-7", "--json")
    assert json.loads(done.stdout)["release"] == 7
    run("deploy", f"{NAME}:2", "--device", "pump-7")
    run("deploy", f"{NAME}:7", "--device", "pump-7")
    eventually(lambda: [w.models[NAME].release for w in device.wishes] == [7, 2, 7])
    assert [w.revision for w in device.wishes] == [1, 2, 3]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (
            rollout(7, model(active=2, known_good=2, why=f"{NAME}:7 failed probation: NaN")),
            "failed probation: NaN",
        ),
        (
            rollout(7, model(state="Unschedulable", why="it needs opset 30, this agent has 25")),
            "opset 30",
        ),
        (lambda _: [{"revision": 0, "code": 403, "why": "the bundle is not signed"}], "not signed"),
        (lambda w: [{"revision": w.revision, "models": {NAME: model(active=2)}}], "not taken up"),
    ],
)
def test_a_wish_that_comes_to_nothing_ends_with_the_devices_own_words(device, run, script, says):
    device.script = script
    where = ("--device", "pump-7", "--wait", "--timeout", "20")
    done = run("deploy", NAME, *where, ok=False)
    assert done.exit_code == 1
    assert says in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("edge-agent: pump-7")


def test_an_old_refusal_is_not_taken_for_the_answer(device, run):
    stale = model(active=2, why=f"{NAME}:7 failed probation: NaN", state="Failed")
    device.report(revision=5, code=400, why="desired: revision: old trouble", models={NAME: stale})

    def script(wish):
        yield {"revision": 5, "code": 400, "why": "desired: revision: old trouble"}
        yield {"revision": wish.revision, "models": {NAME: stale}}
        yield from rollout(7, model(active=7, known_good=7))(wish)

    device.script = script
    run("deploy", NAME, "--device", "pump-7", "--wait", "--timeout", "20")
    assert (
        device.wishes[-1].revision == 6
    )  # above what the device has, though no document was there


def test_a_device_that_stays_silent_runs_out_of_time(run):
    done = run("deploy", NAME, "--device", "pump-8", "--wait", "--timeout", "1", ok=False)
    assert done.exit_code == 1
    assert "within 1 s" in done.stderr


def test_a_lost_document_is_not_begun_anew_over_models_that_run(broker, device, run):
    device.report(revision=12, models={"seal": model(active=3), NAME: model(active=1)})
    done = run("deploy", NAME, "--device", "pump-7", ok=False)
    assert done.exit_code == 1
    assert "would retire" in done.stderr
    assert retained(broker, device.topics.desired) == {}
    run("deploy", NAME, "--device", "pump-7", "--fresh")
    assert eventually(lambda: device.wishes)[-1].revision == 13


def test_a_malformed_document_is_not_amended(broker, run):
    with Conversation(Mqtt(url=broker.url)) as talk:
        talk.publish("edge/pump-7/desired", b"{", retain=True)
    done = run("deploy", NAME, "--device", "pump-7", ok=False)
    assert done.exit_code == 1
    assert "--fresh" in done.stderr


def test_a_group_is_followed_device_by_device(broker, device, run):
    device.script = rollout(7, model(active=7, known_good=7))
    with (
        StandIn(broker.url, "pump-8", groups=["line-3"]) as failing,
        StandIn(broker.url, "pump-9", groups=["line-3"]) as own,
        StandIn(broker.url, "fan-1", groups=["line-4"]) as other,
    ):
        for stand_in in (device, failing, own, other):
            stand_in.report(revision=1, models={NAME: model(active=1)})
        run("deploy", f"{NAME}:1", "--device", "pump-9")  # it has a wish of its own
        failing.script = rollout(7, model(active=1, why=f"{NAME}:7 failed shadow: too far apart"))
        words = ("deploy", NAME, "--group", "line-3", "--wait", "--timeout", "20", "--json")
        done = run(*words, ok=False)
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert told["topic"] == "edge/group/line-3/desired"
    assert told["devices"]["pump-7"]["committed"] is True
    assert told["devices"]["pump-8"]["committed"] is False
    assert set(told["devices"]) == {"pump-7", "pump-8"}
    assert "too far apart" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        (NAME,),
        (NAME, "--device", "d", "--group", "g"),
        (NAME, "--device", "a/b"),
        ("a/b", "--device", "d"),
        (NAME, "--device", "d", "--set", "shadow.windwos=3"),
        (NAME, "--device", "d", "--set", "shadow.windows=many"),
        (NAME, "--device", "d", "--set", "shadow"),
        (NAME, "--device", "d", "--stream", "+"),
    ],
)
def test_what_is_written_wrong_is_said_before_anything_is_sent(broker, run, words):
    assert run("deploy", *words, ok=False).exit_code == 2
    assert retained(broker, "edge/#") == {}


def test_a_version_that_is_not_there_is_answered_with_those_that_are(run):
    done = run("deploy", f"{NAME}:9", "--device", "d", ok=False)
    assert done.exit_code == 1
    assert "it has 1, 2, 2.1" in done.stderr


# ---- commands ------------------------------------------------------------------------------------


def test_a_command_is_sent_and_its_answer_shown(device, run):
    device.answers = lambda name, body: {"code": 200, "back_to": body["args"]["model"]}
    done = run("rollback", NAME, "--device", "pump-7")
    assert "rollback done" in done.stdout
    assert NAME in done.stdout
    name, body = device.commands[-1]
    assert (name, body["args"]) == ("rollback", {"model": NAME})


def test_a_command_that_is_refused_fails_with_the_devices_sentence(device, run):
    device.answers = lambda *_: {"code": 409, "why": "there is no known good version"}
    done = run("rollback", NAME, "--device", "pump-7", ok=False)
    assert done.exit_code == 1
    assert "409: there is no known good version" in done.stderr


def test_arguments_are_json_where_they_can_be_and_text_where_not(device, run):
    device.answers = lambda *_: {"code": 200}
    words = ("--arg", "model=7", "--arg", "inputs=[[1, 2.5]]", "--arg", "note=a=b")
    run("command", "pump-7", "score", *words, "--json")
    assert device.commands[-1][1]["args"] == {
        "model": "7",
        "inputs": [[1, 2.5]],
        "note": "a=b",
    }


def test_a_device_that_does_not_answer_is_said_so(device, run):
    done = run("command", "pump-7", "ping", "--timeout", "0.5", ok=False)
    assert done.exit_code == 1
    assert "did not answer ping" in done.stderr
    assert run("command", "pump-7", "pause", ok=False).exit_code == 2
    assert run("command", "pump-7", "reboot", ok=False).exit_code == 2


def test_watching_prints_each_change_until_it_is_interrupted(broker, device):
    program = (
        "import typer; from agent.commands.fleet import status; "
        "app = typer.Typer(); app.command()(status); app()"
    )
    watching = subprocess.Popen(
        [sys.executable, "-c", program, "--watch", "--json", "--mqtt", broker.url],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        assert "pump-7" in json.loads(watching.stdout.readline())["devices"]
        device.report(revision=9, models={})
        told = json.loads(watching.stdout.readline())
        assert told["devices"]["pump-7"]["reported"]["revision"] == 9
        watching.send_signal(2)
        assert watching.wait(10) in (0, 130)
    finally:
        watching.kill()
        watching.wait()
        watching.stdout.close()
