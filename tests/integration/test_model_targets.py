"""`edge-agent model verify --target`: by table, for runtimes that are not here."""

import json

import pytest
import structlog
import typer
from typer.testing import CliRunner

from agent.commands import model
from tests.world import zoo


@pytest.fixture
def verify(tmp_path):
    """Runs the command on a package of opset 17; gives exit code, stdout and stderr."""
    root = typer.Typer()
    root.add_typer(model.app, name="model")
    folder = zoo.mlp(tmp_path / "m", features=3)

    def run(*arguments):
        result = CliRunner().invoke(root, ["model", "verify", str(folder), *arguments])
        return result.exit_code, result.stdout, result.stderr

    yield run
    structlog.reset_defaults()


def test_a_target_that_takes_it_is_said(verify):
    """[rollout-8.4]"""
    code, out, _ = verify("--target", "directml", "--target", "ort-1.17")
    assert code == 0
    assert out == "nothing speaks against onnxruntime-directml 1.24.4, onnxruntime 1.17\n"


def test_a_target_that_does_not_is_one_sentence_with_what_to_do(verify):
    """[rollout-8.4]"""
    code, out, err = verify("--target", "windows-11")
    assert (code, out) == (1, "")
    assert err.startswith("edge-agent: opset 17 is newer than the Windows ML built into Windows 11")
    assert "(at most opset 12); export the model for that" in err


def test_scripts_get_every_target_in_one_document(verify):
    code, out, _ = verify("--target", "windows-11", "--target", "cpu", "--json")
    document = json.loads(out)
    assert code == 1
    assert document["targets"]["cpu"] == []
    assert document["targets"]["windows-11"][0].startswith("opset 17")


def test_a_target_that_is_not_known_is_wrong_usage(verify):
    code, _, err = verify("--target", "windows-95")
    assert code == 2
    assert "there is no target 'windows-95'; there are windows-11," in err
