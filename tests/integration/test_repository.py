"""`edge-agent repo`: what a publisher does, and what a device then gets, over every transport."""

import asyncio
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import structlog
import typer
from typer.testing import CliRunner

from agent.adapters.files import FileStore
from agent.adapters.folder import FolderFetcher
from agent.adapters.https import HttpsFetcher
from agent.commands import repo as repo_commands
from agent.core import catalog
from agent.core.packages import read
from agent.core.trust import begin, resolve
from agent.repository.layout import Repository
from tests.world import zoo
from tests.world.transports import over_mqtt

MB = 2**20


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
        if code:
            assert "Traceback" not in told
        return result.stdout if code == 0 else result.stderr

    yield run
    structlog.reset_defaults()


@pytest.fixture
def repo(cli, tmp_path) -> Repository:
    cli("init", "r")
    return Repository.open(tmp_path / "r")


def blobs(repo: Repository) -> set[str]:
    return {path.name for path in repo.blobs.iterdir()}


def trusted(repo: Repository, name: str, release: int | None = None):
    """What a device that trusts DIR/root.json may install."""
    state = begin((repo.folder / "root.json").read_bytes())
    return resolve(state, repo.metadata_files(), name, release, now=time.time()).package


def test_a_new_repository_has_keys_an_anchor_and_an_empty_catalog(repo):
    assert repo.packages() == []
    assert (repo.folder / "root.json").is_file()
    keys = list((repo.folder / "keys").iterdir())
    assert keys
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
    assert (repo.folder / "metadata.bundle").is_file()


def test_init_never_touches_a_repository_or_anything_else_that_is_there(cli, repo, tmp_path):
    before = (repo.folder / "root.json").read_bytes()
    assert "already" in cli("init", "r", code=1)
    assert (repo.folder / "root.json").read_bytes() == before
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("…")
    assert "not empty" in cli("init", "home", code=1)
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["thesis.txt"]


def test_an_init_that_fails_leaves_nothing(cli, tmp_path):
    (tmp_path / "empty").write_text("\n")
    assert "passphrase" in cli("init", "x", "--passphrase-file", "empty", code=2)
    assert not (tmp_path / "x").exists()
    assert "no key 'nobody'" in cli("init", "x", "--key", "nobody=hsm:2", code=1)
    assert not (tmp_path / "x").exists()


def test_versions_number_themselves_per_model(cli, repo, tmp_path):
    """[store-2.1]"""
    for bias in (0, 1):
        zoo.mlp(tmp_path / f"a{bias}", bias=bias, name="pump")
    zoo.mlp(tmp_path / "b", name="fan")
    assert cli("add", "a0").strip() == "pump:1"
    assert cli("add", "a1").strip() == "pump:2"
    assert cli("add", "b").strip() == "fan:1"
    assert [str(p.ref) for p in repo.packages()] == ["fan:1", "pump:1", "pump:2"]


def test_what_was_added_is_signed_and_its_blobs_are_there_read_only(cli, repo, tmp_path):
    source = zoo.external(tmp_path / "a", name="pump")
    cli("add", "a", "--tag", "area=pumps")
    package = trusted(repo, "pump")
    assert package.ref.digest == repo.packages()[0].ref.digest
    assert {f.path for f in package.files} == {p.name for p in source.iterdir()}
    assert package.tags == {"area": "pumps"}
    assert package.custom["runtime"]["opsets"] == {"": 17}
    for file in package.files:
        assert repo.blob(file).read_bytes() == (source / file.path).read_bytes()
        assert stat.S_IMODE(repo.blob(file).stat().st_mode) == 0o444


def test_the_same_bytes_are_no_new_release_unless_told(cli, repo, tmp_path):
    """[store-2.3]"""
    zoo.mlp(tmp_path / "a", name="pump")
    assert cli("add", "a").strip() == "pump:1"
    assert cli("add", "a").strip() == "pump:1"
    assert len(repo.packages()) == 1
    assert cli("add", "a", "--again").strip() == "pump:2"
    first, second = repo.packages()
    assert first.ref.digest == second.ref.digest


def test_old_bytes_are_rolled_forward_under_a_new_number(cli, repo, tmp_path):
    for bias in (0, 1):
        zoo.mlp(tmp_path / f"a{bias}", bias=bias, name="pump")
        cli("add", f"a{bias}")
    assert cli("add", "a0").strip() == "pump:3"
    assert len(blobs(repo)) == 5, "no blob was stored twice"


def test_golden_samples_that_are_missing_are_built_first(cli, repo, tmp_path):
    folder = zoo.mlp(tmp_path / "a", name="pump")
    (folder / "golden.npz").unlink()
    assert cli("add", "a").strip() == "pump:1"
    assert "golden.npz" in {f.path for f in repo.packages()[0].files}


def test_a_bad_package_changes_nothing(cli, repo, tmp_path):
    """[store-2.4]"""
    before = (repo.metadata_files(), blobs(repo))
    folder = zoo.mlp(tmp_path / "a", name="pump")
    (folder / "model.onnx").write_bytes(b"junk")
    assert "model.onnx" in cli("add", "a", code=1)
    assert "model.toml" in cli("add", tmp_path, code=1)
    golden = zoo.mlp(tmp_path / "g", name="pump") / "golden.npz"
    for body in (b"", b"junk"):
        golden.write_bytes(body)
        assert "golden.npz" in cli("add", "g", code=1)
    zoo.mlp(tmp_path / "b", name="pump")
    assert "no tag" in cli("add", "b", "--tag", "nonsense", code=2)
    assert (repo.metadata_files(), blobs(repo)) == before


def test_list_and_show_answer_scripts_and_people(cli, repo, tmp_path):
    zoo.mlp(tmp_path / "a", name="pump", tags={"area": "pumps"})
    zoo.mlp(tmp_path / "b", name="fan")
    cli("add", "a")
    cli("add", "b", "--tag", "area=fans")
    assert "pump:1" in cli("list")
    listed = json.loads(cli("list", "--json"))["packages"]
    assert [read(entry).ref.name for entry in listed] == ["fan", "pump"]
    tagged = json.loads(cli("list", "--tag", "area=pumps", "--json"))["packages"]
    assert [entry["name"] for entry in tagged] == ["pump"]
    assert json.loads(cli("list", "fan", "--json"))["packages"][0]["name"] == "fan"
    shown = json.loads(cli("show", "pump", "--json"))
    assert read(shown) == catalog.pick(repo.packages(), "pump")
    assert "sha256:" in cli("show", "pump:1")
    assert "no pump:9" in cli("show", "pump:9", code=1)
    assert "no model nobody" in cli("show", "nobody", code=1)


def test_removing_frees_what_nobody_else_needs_and_the_number_is_gone_for_ever(cli, repo, tmp_path):
    """[store-2.2] [store-2.5]"""
    for bias in (0, 1):
        zoo.mlp(tmp_path / f"a{bias}", bias=bias, name="pump")
        cli("add", f"a{bias}")
    kept = {file.hex for file in repo.packages()[0].files}
    assert "removed pump:2" in cli("remove", "pump:2")
    assert blobs(repo) == kept
    assert trusted(repo, "pump").ref.release == 1
    zoo.mlp(tmp_path / "a3", bias=3, name="pump")
    assert cli("add", "a3").strip() == "pump:3"
    assert "which version" in cli("remove", "pump", code=2)


def test_publish_signs_anew_and_refuses_what_is_not_whole(cli, repo, tmp_path):
    """[store-2.1]"""
    zoo.mlp(tmp_path / "a", name="pump")
    cli("add", "a")
    before = json.loads((repo.metadata / "timestamp.json").read_bytes())["signed"]["version"]
    assert "published 1" in cli("publish")
    after = json.loads((repo.metadata / "timestamp.json").read_bytes())["signed"]["version"]
    assert after > before
    repo.blob(repo.packages()[0].files[0]).unlink()
    assert "golden.npz of pump:1 is missing" in cli("publish", code=1)


def test_without_the_keys_nothing_is_added(cli, repo, tmp_path):
    """[store-2.4] What was offered before is still offered, and the catalog agrees."""
    zoo.mlp(tmp_path / "a", name="pump")
    cli("add", "a")
    (repo.folder / "keys").rename(tmp_path / "vault")
    zoo.mlp(tmp_path / "b", bias=1, name="pump")
    assert "key" in cli("add", "b", code=1)
    assert [p.ref.release for p in repo.packages()] == [1]
    assert trusted(repo, "pump").ref.release == 1
    assert cli("add", "b", "--keys", "vault").strip() == "pump:3", "2 was given, and never again"


def test_keys_are_rotated_and_devices_follow(cli, repo, tmp_path):
    zoo.mlp(tmp_path / "a", name="pump")
    cli("add", "a")
    state = begin((repo.folder / "root.json").read_bytes())
    assert cli("rotate", "timestamp").strip()
    assert cli("rotate", "root").strip()
    cli("publish")
    accepted = resolve(state, repo.metadata_files(), "pump", None, now=time.time())
    assert accepted.package.ref.release == 1
    assert "no role" in cli("rotate", "nobody", code=1)


def test_two_commands_do_not_write_at_once(cli, repo, tmp_path):
    """[store-2.4]"""
    zoo.mlp(tmp_path / "a", name="pump")
    with repo.writing():
        assert "another command is writing" in cli("add", "a", code=1)
    cli("add", "a")


def test_a_folder_without_a_repository_says_how_to_make_one(cli, monkeypatch):
    assert "repo init" in cli("list", "--repo", "nowhere", code=1)
    monkeypatch.delenv("EDGE_AGENT_REPO")
    assert "--repo" in cli("list", code=2)


def test_the_repository_may_be_named_by_the_devices_setting_or_be_where_we_are(
    cli, repo, tmp_path, monkeypatch
):
    monkeypatch.delenv("EDGE_AGENT_REPO")
    monkeypatch.setenv("EDGE_AGENT__REPOSITORY__URL", f"file://{tmp_path}/r")
    cli("list")
    monkeypatch.delenv("EDGE_AGENT__REPOSITORY__URL")
    monkeypatch.chdir(repo.folder)
    cli("list")


# ---- serve ---------------------------------------------------------------------------------------


@pytest.fixture
def serve(repo, tmp_path):
    """Starts `edge-agent repo serve` as a process; gives it and its first lines."""
    started = []

    def start(*arguments, lines):
        code = "from agent.commands.repo import app; app()"
        process = subprocess.Popen(
            [sys.executable, "-c", code, "serve", "--repo", str(repo.folder), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            cwd=Path(__file__).parents[2],
        )
        started.append(process)
        return process, [process.stdout.readline() for _ in range(lines)]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


async def install(fetcher, repo: Repository, store: FileStore) -> Path:
    """What a device does: metadata, trust, files, adoption."""
    state = begin((repo.folder / "root.json").read_bytes())
    package = resolve(state, await fetcher.metadata(), "pump", 1, now=time.time()).package
    for file in package.files:
        partial = store.partial(package, file)
        await fetcher.fetch(file, partial, lambda _: None)
        partial.close()
    return store.adopt(package)


def test_one_server_feeds_devices_over_mqtt_and_http_and_a_stick_does_too(
    cli, repo, tmp_path, broker, serve
):
    """[store-2.6]"""
    source = zoo.big(tmp_path / "a", size_mb=4, name="pump")
    cli("add", "a")
    process, lines = serve("--mqtt", broker.url, "--http", ":0", lines=2)
    url = re.search(r"http://\S+", lines[1])[0]

    async def over_the_broker():
        async with over_mqtt(broker.port) as fetcher:
            return await install(fetcher, repo, FileStore(tmp_path / "s1", 64 * MB))

    fetcher = HttpsFetcher(url)
    paths = [
        asyncio.run(over_the_broker()),
        asyncio.run(install(fetcher, repo, FileStore(tmp_path / "s2", 64 * MB))),
        asyncio.run(install(FolderFetcher(repo.folder), repo, FileStore(tmp_path / "s3", 64 * MB))),
    ]
    fetcher.close()
    wanted = {p.name: p.read_bytes() for p in source.iterdir()}
    for path in paths:
        assert {p.name: p.read_bytes() for p in path.iterdir()} == wanted
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def test_a_server_survives_its_broker(cli, repo, tmp_path, broker, serve):
    """[store-2.6]"""
    zoo.mlp(tmp_path / "a", name="pump")
    cli("add", "a")
    process, _ = serve("--mqtt", broker.url, lines=1)
    broker.restart()

    async def later():
        async with over_mqtt(broker.port, timeout_s=0.5, tries_max=30) as fetcher:
            return await install(fetcher, repo, FileStore(tmp_path / "s", 64 * MB))

    assert asyncio.run(later()).is_dir()
    assert process.poll() is None


def test_serve_says_in_one_sentence_why_it_cannot(cli, repo, free_port):
    assert "cannot be reached" in cli("serve", "--mqtt", f"mqtt://127.0.0.1:{free_port}", code=1)
    assert "no broker is named" in cli("serve", code=2)
    assert "no address" in cli("serve", "--http", "here", code=2)
    assert "go together" in cli("serve", "--http", ":0", "--cert", "x", code=2)
    assert "go together" in cli("serve", "--http", ":0", "--cert", "", "--key", "", code=2)
    https = ("serve", "--http", ":0", "--key", "r/root.json", "--cert")
    assert cli(*https, "x", code=1).startswith("edge-agent: cannot serve https with x and r/root")
    assert "cannot serve https" in cli(*https, "r/root.json", code=1)


def test_a_port_that_is_taken_is_said_so(cli, repo):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = cli("serve", "--http", f"127.0.0.1:{taken.getsockname()[1]}", code=1)
    (line,) = said.splitlines()
    assert "is the port taken" in line
