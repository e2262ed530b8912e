"""`edge-agent model`: from an .onnx file to a package that a device would take."""

import json
import tomllib

import numpy as np
import onnx
import pytest
import structlog
import typer
from typer.testing import CliRunner

from agent.adapters.files import read_folder
from agent.commands import model
from agent.core.manifest import parse
from tests.world import wild, zoo

MAKERS = {
    "rows": zoo.mlp,
    "window": zoo.cnn,
    "classes": zoo.classifier,
    "columns": zoo.columns,
    "two inputs": zoo.two_inputs,
    "state": zoo.running_sum,
    "weights beside": zoo.external,
}


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """Runs `edge-agent model …`; asserts the exit code; gives stdout, or stderr if it fails."""
    root = typer.Typer()
    root.add_typer(model.app, name="model")
    monkeypatch.chdir(tmp_path)

    def run(*arguments, code=0):
        result = CliRunner().invoke(root, ["model", *map(str, arguments)])
        told = f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
        assert result.exit_code == code, told
        if code == 1:
            assert len(result.stderr.strip().splitlines()) == 1, f"one sentence: {told}"
            assert "Traceback" not in told
        return result.stdout if code == 0 else result.stderr

    yield run
    structlog.reset_defaults()


@pytest.fixture
def onnx_file(tmp_path):
    """A bare model with nothing beside it."""
    path = zoo.mlp(tmp_path / "made", features=3) / "model.onnx"
    return path.rename(tmp_path / "pump anomaly.onnx")


@pytest.mark.parametrize("kind", MAKERS)
def test_init_guesses_a_manifest_with_which_build_and_verify_pass(kind, cli, tmp_path):
    """[store-3.1]"""
    source = MAKERS[kind](tmp_path / "source")
    honest = read_folder(source).manifest
    (source / "model.toml").unlink()
    (source / "golden.npz").unlink()
    cli("init", source / "model.onnx", "--out", "pkg", "--name", "pump")
    guessed = read_folder(tmp_path / "pkg").manifest
    assert len(guessed.features.names) == len(honest.features.names)
    assert guessed.layout == honest.layout
    assert guessed.state == honest.state
    assert (guessed.window is None) == (honest.window is None)
    assert guessed.output.score.tensor == honest.output.score.tensor
    assert "built pump: 32 golden samples" in cli("build", "pkg")
    assert "verified pump" in cli("verify", "pkg")
    assert parse((tmp_path / "pkg" / "model.toml").read_bytes()).runtime.memory_mb > 10


def test_the_manifest_is_commented_and_names_the_model_after_its_file(cli, onnx_file, tmp_path):
    assert cli("init", onnx_file).strip() == "pump anomaly/model.toml"
    text = (tmp_path / "pump anomaly" / "model.toml").read_text()
    assert tomllib.loads(text)["name"] == "pump-anomaly"
    assert text.count("#") > 10
    assert "[rollout]" in text


def test_init_in_place_leaves_the_model_where_it_is(cli, tmp_path):
    folder = zoo.external(tmp_path / "pump")
    (folder / "model.toml").unlink()
    cli("init", folder)
    assert parse((folder / "model.toml").read_bytes()).name == "pump"


def test_init_never_writes_over_a_manifest(cli, onnx_file, tmp_path):
    cli("init", onnx_file, "--out", "pkg")
    before = (tmp_path / "pkg" / "model.toml").read_bytes()
    assert "there already" in cli("init", onnx_file, "--out", "pkg", code=1)
    assert (tmp_path / "pkg" / "model.toml").read_bytes() == before


def test_init_says_what_is_wrong_with_what_is_no_model(cli, tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"not a model")
    assert "no ONNX" in cli("init", "x.onnx", code=1)
    assert "there is no" in cli("init", "missing.onnx", code=1)
    evil = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=1)
    tensor.external_data.add(key="location", value="../secret")
    evil.graph.initializer.append(tensor)
    (tmp_path / "x.onnx").write_bytes(evil.SerializeToString())
    assert "keeps weights in '../secret'" in cli("init", "x.onnx", code=1)


def test_building_twice_changes_nothing(cli, tmp_path):
    """[store-3.2]"""
    folder = zoo.mlp(tmp_path / "pkg")
    (folder / "golden.npz").unlink()
    cli("build", "pkg")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    cli("build", "pkg")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_build_keeps_the_authors_comments_and_layout(cli, tmp_path):
    """[store-3.2]"""
    folder = zoo.mlp(tmp_path / "pkg")
    text = (folder / "model.toml").read_text() + (
        "\n# mine\n[runtime]   # my comment\nthreads = 1  # one\n\n[golden]\natol = 0.001\n"
    )
    (folder / "model.toml").write_text(text)
    cli("build", "pkg")
    after = (folder / "model.toml").read_text().splitlines()
    assert [line for line in after if "memory_mb" not in line] == text.splitlines()
    assert sum("memory_mb" in line for line in after) == 1


def test_build_corrects_a_memory_that_is_far_off_and_keeps_one_that_is_not(cli, tmp_path):
    folder = zoo.mlp(tmp_path / "pkg", runtime={"memory_mb": 2000})
    cli("build", "pkg")
    assert parse((folder / "model.toml").read_bytes()).runtime.memory_mb < 500
    folder = zoo.mlp(tmp_path / "other", runtime={"memory_mb": 130})
    cli("build", "other")
    assert parse((folder / "model.toml").read_bytes()).runtime.memory_mb == 130


def test_made_up_samples_keep_to_the_ranges_and_the_scale(cli, tmp_path):
    table = {
        "names": ["temp", "vib"],
        "ranges": [[0, 100], [-1, 1]],
        "scale": {"mean": [50, 0], "std": [10, 0.5]},
    }
    folder = zoo.mlp(tmp_path / "pkg", features=table)
    (folder / "golden.npz").unlink()
    cli("build", "pkg", "--count", "200")
    with np.load(folder / "golden.npz") as golden:
        x = golden["in:x"]
    assert x.shape == (200, 2)
    raw = x * [10, 0.5] + [50, 0]
    assert (raw.min(axis=0) >= [-1e-3, -1.001]).all()
    assert (raw.max(axis=0) <= [100.001, 1.001]).all()
    assert raw.std(axis=0) == pytest.approx([10, 0.5], rel=0.3)


def test_samples_may_come_from_a_recording(cli, tmp_path):
    folder = zoo.cnn(tmp_path / "pkg", length=4, features=2)
    rows = ["time,f1,f0"] + [f"{i},{i * 10},{i}" for i in range(40)] + ["40,,1"]
    (tmp_path / "recording.csv").write_text("\n".join(rows))
    cli("build", "pkg", "--samples", "recording.csv", "--count", "5")
    with np.load(folder / "golden.npz") as golden:
        x = golden["in:x"]
    assert x.shape == (5, 4, 2)
    assert x[0].tolist() == [[0, 0], [1, 10], [2, 20], [3, 30]]
    assert x[-1][-1].tolist() == [39, 390]
    (tmp_path / "short.csv").write_text("f0,f1\n1,2\n")
    assert "one sample takes 4" in cli("build", "pkg", "--samples", "short.csv", code=1)
    assert "neither" in cli("build", "pkg", "--samples", "x.parquet", code=1)


def test_samples_may_come_as_tensors(cli, tmp_path):
    folder = zoo.mlp(tmp_path / "pkg", features=3)
    np.savez(tmp_path / "mine.npz", x=np.ones((7, 3), np.float32))
    cli("build", "pkg", "--samples", "mine.npz")
    with np.load(folder / "golden.npz") as golden:
        assert golden["in:x"].tolist() == [[1, 1, 1]] * 7
        assert golden["out:y"].shape == (7, 1)
    np.savez(tmp_path / "mine.npz", x=np.ones((7, 4), np.float32))
    assert "in:x as float32 (7, 4)" in cli("build", "pkg", "--samples", "mine.npz", code=1)


def test_golden_inputs_that_are_there_are_kept_and_outputs_recorded_anew(cli, tmp_path):
    folder = zoo.mlp(tmp_path / "pkg")
    with np.load(folder / "golden.npz") as golden:
        before = dict(golden)
    other = zoo.mlp(tmp_path / "other", bias=3.0)
    (other / "model.onnx").replace(folder / "model.onnx")
    assert "wanted" in cli("verify", "pkg", code=1)
    cli("build", "pkg")
    with np.load(folder / "golden.npz") as golden:
        assert (golden["in:x"] == before["in:x"]).all()
        assert golden["out:y"] == pytest.approx(before["out:y"] + 3.0, rel=1e-4)
    cli("verify", "pkg")


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"input": {"x": {"features": ["f0"]}}}, "takes"),
        ({"output": {"score": {"tensor": "nowhere"}}}, "nowhere"),
        ({"input": {"q": {}}}, "q"),
        ({"input": {"x": {"dtype": "float64"}}}, "float64"),
        ({"window": {"kind": "count", "size": "4"}}, "takes"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_a_manifest_that_does_not_agree_with_the_model_is_said_in_one_sentence(
    members, why, cli, tmp_path
):
    zoo.mlp(tmp_path / "pkg", **members)
    assert why in cli("build", "pkg", code=1)
    assert why in cli("verify", "pkg", code=1)


def test_verify_says_which_golden_output_is_wrong(cli, tmp_path):
    folder = zoo.mlp(tmp_path / "pkg")
    with np.load(folder / "golden.npz") as golden:
        arrays = dict(golden)
    arrays["out:y"][2] += 1
    np.savez(folder / "golden.npz", **arrays)
    assert "golden sample 2" in cli("verify", "pkg", code=1)


@pytest.mark.parametrize("missing", ["model.onnx", "model.toml", "golden.npz", "weights.bin"])
def test_verify_names_what_is_missing(missing, cli, tmp_path):
    folder = zoo.external(tmp_path / "pkg")
    (folder / missing).unlink()
    assert missing in cli("verify", "pkg", code=1)


@pytest.mark.parametrize(
    "make",
    [
        wild.crash_at_load,
        wild.unknown_op,
        wild.zipmap,
        wild.truncated,
        wild.ort_format,
        wild.hard_linked,
        wild.symlinked,
        wild.wrong_golden,
        wild.new_opset,
    ],
)
def test_a_wild_model_is_refused_in_one_sentence(make, cli, tmp_path):
    """[store-3.3] A crash takes its worker and not the command."""
    make(tmp_path / "pkg")
    cli("verify", "pkg", code=1)


def test_json_is_one_document_on_stdout(cli, tmp_path):
    zoo.external(tmp_path / "pkg", name="pump", tags={"area": "pumps"})
    shown = json.loads(cli("show", "pkg", "--json"))
    assert shown["name"] == "pump"
    assert {f["path"] for f in shown["files"]} == {
        "golden.npz",
        "model.onnx",
        "model.toml",
        "weights.bin",
    }
    assert shown["opsets"] == {"": 17}
    built = json.loads(cli("build", "pkg", "--json"))
    assert built["golden"]["samples"] == 4
    assert json.loads(cli("verify", "pkg", "--json"))["provider"] == "cpu"


def test_show_is_readable(cli, tmp_path):
    zoo.cnn(tmp_path / "pkg", name="pump")
    shown = cli("show", "pkg")
    assert "pump" in shown
    assert "sha256:" in shown


def test_wrong_usage_exits_2(cli):
    cli("build", "--count", "0", "pkg", code=2)
    cli("init", code=2)
