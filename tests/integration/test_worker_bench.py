"""`edge-agent providers`, on what this machine has."""

import json
from pathlib import Path

import typer
from typer.testing import CliRunner

from agent.commands.providers import providers
from tests.world import wild, zoo

app = typer.Typer()
app.command()(providers)


def test_it_tells_what_starts_here_and_why_the_rest_does_not() -> None:
    done = CliRunner().invoke(app, ["--json"])
    assert done.exit_code == 0
    rows = {row["name"]: row for row in json.loads(done.stdout)["providers"]}
    assert rows["cpu"]["works"]
    assert all(row["works"] or row["why"] for row in rows.values())


def test_it_measures_a_model(tmp_path: Path) -> None:
    """[accelerators-7.2]"""
    model = zoo.cnn(tmp_path / "m") / "model.onnx"
    done = CliRunner().invoke(app, ["--bench", str(model), "--json"])
    assert done.exit_code == 0
    (cpu,) = [row for row in json.loads(done.stdout)["providers"] if row["name"] == "cpu"]
    assert set(cpu["bench"]["batches"]) == {"1", "8", "32"}
    assert all(b["rows_per_s"] > 0 for b in cpu["bench"]["batches"].values())
    assert cpu["bench"]["load_ms"] > 0
    assert cpu["bench"]["memory_mb"] >= 0
    assert cpu["bench"]["error"] == 0.0
    table = CliRunner().invoke(app, ["--bench", str(model)])
    assert table.exit_code == 0
    assert "batch" in table.stdout


def test_a_model_that_does_not_run_is_a_failure_with_a_sentence(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["--bench", str(wild.unknown_op(tmp_path / "m") / "model.onnx")])
    assert done.exit_code == 1
    assert "node type Foo does not exist" in done.stderr


def test_a_model_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["--bench", str(tmp_path / "none.onnx")])
    assert done.exit_code == 2
