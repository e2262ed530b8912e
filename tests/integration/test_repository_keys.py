"""`edge-agent repo init|rotate|override`, and what `add` demands: publishers sign, devices obey."""

import json
import time

import pytest
import typer
from typer.testing import CliRunner

from agent.commands import repo as repo_commands
from agent.core.trust import Kind, UntrustedError, begin, permits, resolve
from agent.repository.layout import Repository
from tests.world import zoo

DAY = 86400.0


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """Runs `edge-agent repo …`; asserts the exit code; gives stdout, or stderr if it fails."""
    root = typer.Typer()
    root.add_typer(repo_commands.app, name="repo")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGE_AGENT_REPO", "r")

    def run(*arguments, code=0):
        result = CliRunner().invoke(root, ["repo", *map(str, arguments)])
        told = f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
        assert result.exit_code == code, told
        assert "Traceback" not in told
        return result.stdout if code == 0 else result.stderr

    return run


class Pump:
    """A device that has a name, and asks for releases of `m`."""

    def __init__(self, folder, name, groups=()):
        self.name, self.groups = name, groups
        self.repo = Repository.open(folder)
        self.state = begin((folder / "root.json").read_bytes())

    def asks(self, release, *, now=None):
        """The kind of refusal; empty if it installs."""
        try:
            accepted = resolve(
                self.state,
                self.repo.metadata_files(),
                "m",
                release,
                now=time.time() if now is None else now,
                device=self.name,
                groups=self.groups,
            )
        except UntrustedError as error:
            self.state = error.state or self.state
            return str(error.kind)
        self.state = accepted.state
        return ""


@pytest.fixture
def two(cli, tmp_path):
    """A repository with two releases of `m`, and what makes devices that have the second."""
    cli("init", "r")
    for n in (1, 2):
        zoo.mlp(tmp_path / f"v{n}", name="m", bias=float(n))
        cli("add", f"v{n}")

    def device(name, groups=()):
        pump = Pump(tmp_path / "r", name, groups)
        assert pump.asks(2) == ""
        return pump

    return device


# ---- T11: down by a signed leave only ------------------------------------------------------------


def test_t11_an_override_lets_one_device_down_once_and_in_time(cli, two):
    """[trust-5.3]"""
    named, other, late = two("pump-7"), two("pump-8"), two("pump-7")
    assert named.asks(1) == Kind.ROLLBACK
    assert cli("override", "m:1", "--device", "pump-7").strip() == "m/override/1"
    assert other.asks(1) == Kind.ROLLBACK
    assert late.asks(1, now=time.time() + 8 * DAY) == Kind.ROLLBACK
    assert named.asks(1) == ""
    assert named.asks(2) == ""
    assert named.asks(1) == Kind.ROLLBACK
    cli("publish")
    assert named.asks(1) == Kind.ROLLBACK
    told = json.loads(cli("override", "m:1", "--device", "pump-7", "--days", "30", "--json"))
    assert told["override"] == "m/override/2"
    assert told["not_after"] == pytest.approx(time.time() + 30 * DAY, abs=60)
    assert named.asks(1) == ""


def test_t11_a_group_may_go_down_and_a_later_release_leaves_the_leave_standing(cli, two, tmp_path):
    """[trust-5.3]"""
    inside, outside = two("pump-7", ["line-3"]), two("pump-8", ["line-4"])
    cli("override", "m:1", "--group", "line-3")
    zoo.mlp(tmp_path / "v3", name="m", bias=3.0)
    cli("add", "v3")
    assert outside.asks(1) == Kind.ROLLBACK
    assert inside.asks(1) == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["m:1"], 2, "say who may go down"),
        (["m:1", "--device", "a", "--group", "b"], 2, "say who may go down"),
        (["m:1", "--device", "a/#"], 2, "is no device"),
        (["m", "--device", "a"], 2, "to which version"),
        (["m:9", "--device", "a"], 1, "has no m:9"),
    ],
)
def test_an_override_that_says_too_little_is_refused(cli, two, arguments, code, said):
    assert said in cli("override", *arguments, code=code)


def test_an_override_needs_the_familys_keys(cli, two, tmp_path):
    """[trust-7.4]"""
    next((tmp_path / "r" / "keys").glob("owner.*")).unlink()
    assert "bring" in cli("override", "m:1", "--device", "pump-7", code=1)


# ---- what is signed with a release ---------------------------------------------------------------


def test_a_security_floor_is_for_ever_and_holds_for_what_is_here_and_for_overrides(
    cli, two, tmp_path
):
    """[trust-7.9]"""
    pump = two("pump-7")
    zoo.mlp(tmp_path / "v3", name="m", bias=3.0)
    assert "no release on offer" in cli("add", "v3", "--min-release", "9", code=1)
    newest = cli("add", "v3", "--min-release", "2").strip()
    assert permits(pump.state, "m", 1)
    assert pump.asks(int(newest.partition(":")[2])) == ""
    assert permits(pump.state, "m", 2)
    assert not permits(pump.state, "m", 1)
    assert "below the security floor" in cli("override", "m:1", "--device", "pump-7", code=1)
    cli("remove", newest)
    cli("add", "v3")
    assert pump.asks(1) == Kind.MIN_RELEASE


def test_what_a_release_demands_of_devices_is_signed_and_read_there(cli, two, tmp_path):
    """[trust-7.11]"""
    zoo.mlp(tmp_path / "v3", name="m", bias=3.0)
    demands = ["--min-agent", "99.1", "--hw", "aarch64", "--hw", "jetson", "--ort", ">=1.2,<2"]
    cli("add", "v3", *demands)
    pump = two("pump-7")
    found = resolve(pump.state, pump.repo.metadata_files(), "m", 3, now=time.time())
    custom = found.package.custom
    assert (custom["min_agent"], custom["hw"]) == ("99.1", ["aarch64", "jetson"])
    runtime = custom["runtime"]
    assert (runtime["ort"], runtime["require"]) == (">=1.2,<2", "any")
    assert runtime["providers"]
    assert runtime["opsets"]
    assert runtime["ir_version"]
    assert "99.1" in cli("show", "m:3")


@pytest.mark.parametrize(
    "demand", [["--min-agent", ">=1"], ["--min-agent", "new"], ["--ort", "latest"], ["--ort", "~1"]]
)
def test_a_demand_that_no_device_could_read_is_refused(cli, two, tmp_path, demand):
    """[trust-7.11]"""
    zoo.mlp(tmp_path / "v3", name="m", bias=3.0)
    assert "is no version" in cli("add", "v3", *demand, code=1)


# ---- who signs -----------------------------------------------------------------------------------


def test_a_team_publishes_under_a_passphrase_and_rotates_every_role(cli, tmp_path):
    """[trust-7.1] [trust-7.2] [trust-7.5]"""
    (tmp_path / "secret").write_text("correct horse\n")
    sealed = ("--passphrase-file", "secret")
    cli("init", "r", "--team", *sealed)
    root = json.loads((tmp_path / "r" / "root.json").read_bytes())["signed"]["roles"]
    assert (len(root["root"]["keyids"]), root["root"]["threshold"]) == (3, 2)
    assert (len(root["targets"]["keyids"]), root["targets"]["threshold"]) == (2, 2)
    pems = list((tmp_path / "r" / "keys").iterdir())
    assert len(pems) == 9
    assert all(b"ENCRYPTED" in path.read_bytes() for path in pems)
    zoo.mlp(tmp_path / "v1", name="m")
    assert "--passphrase-file" in cli("add", "v1", code=1)
    release = int(cli("add", "v1", *sealed).strip().partition(":")[2])
    pump = Pump(tmp_path / "r", "pump-7")
    for role in ("root", "targets", "snapshot", "timestamp", "m", "root"):
        cli("rotate", role, *sealed)
    assert pump.asks(release) == ""
    assert json.loads(pump.state.roles["root"])["signed"]["version"] > 2
