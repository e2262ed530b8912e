"""Every error that onnxruntime is known to raise, provoked with a real model: whose fault it is,
and in which sentence that is told.
"""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from agent.worker.refusals import of_load, of_run
from tests.world.pack import constant, model, tensor

X, Y = tensor("x", "f4", ["n", 2]), tensor("y", "f4", ["n", 2])


def relu(**more):
    return model([helper.make_node("Relu", ["x"], ["y"])], [X], [Y], **more)


def of_ir(version):
    made = relu()
    made.ir_version = version
    return made.SerializeToString()


def of_opset(version, op="Relu", domain=""):
    node = helper.make_node(op, ["x"], ["y"], domain=domain)
    opsets = {"": version} | ({domain: 1} if domain else {})
    return model([node], [X], [Y], opsets=opsets).SerializeToString()


def outside(where):
    weights = constant("w", [[1, 2], [3, 4]])
    made = model([helper.make_node("MatMul", ["x", "w"], ["y"])], [X], [Y], [weights])
    onnx.external_data_helper.set_external_data(made.graph.initializer[0], where)
    made.graph.initializer[0].ClearField("raw_data")
    return made.SerializeToString()


AT_LOAD = {
    "IR too new": (of_ir(14), "misfit", "IR version 14 needs a newer onnxruntime"),
    "opset too new": (of_opset(28), "misfit", "opset 28 of ai.onnx needs a newer onnxruntime"),
    "unknown op": (of_opset(17, "Foo"), "unfit", "node type Foo does not exist at opset 17"),
    "unknown domain": (of_opset(17, "Foo", "my.ops"), "unfit", "node type Foo is from my.ops"),
    "garbage": (b"\xff\xfe garbage" * 9, "unfit", "does not parse: it is truncated"),
    "truncated": (relu().SerializeToString()[:40], "unfit", "does not parse: it is truncated"),
    "empty": (b"", "unfit", "does not parse: it is truncated"),
    "weights that are not there": (outside("w.bin"), "unfit", "external weights cannot be read"),
    "weights outside": (outside("../w.bin"), "unfit", "external weights cannot be read"),
}


@pytest.mark.parametrize("case", AT_LOAD)
def test_what_is_raised_at_a_load_is_a_blame_and_a_sentence(tmp_path, case):
    """[accelerators-7.1]"""
    raw, blame, sentence = AT_LOAD[case]
    path = tmp_path / "model.onnx"
    path.write_bytes(raw)
    with pytest.raises(Exception) as raised:
        ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    told = of_load(raised.value, ort.__version__)
    assert (told.blame, sentence in told.why) == (blame, True), told.why
    fine(told.why)


def test_a_file_that_went_away_and_a_load_that_was_called_off_are_weather(tmp_path):
    """[accelerators-7.1]"""
    with pytest.raises(Exception) as raised:
        ort.InferenceSession(str(tmp_path / "none.onnx"), providers=["CPUExecutionProvider"])
    told = of_load(raised.value, ort.__version__)
    assert (told.blame, "went away" in told.why) == ("unavailable", True), told.why
    options = ort.SessionOptions()
    options.set_load_cancellation_flag(True)
    with pytest.raises(Exception) as raised:
        raw = relu().SerializeToString()
        ort.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
    told = of_load(raised.value, ort.__version__)
    assert (told.blame, told.why) == ("unavailable", "its load was called off")


ROW = np.ones((1, 2), np.float32)
AT_RUN = {
    "dtype": (["y"], {"x": ROW.astype(np.float64)}, "given as tensor(double), and the model takes"),
    "dimensions": (["y"], {"x": np.ones((1, 3), np.float32)}, "input x was given in another shape"),
    "rank": (["y"], {"x": np.ones(2, np.float32)}, "input x was given in another shape"),
    "missing input": (["y"], {}, "the input 'x' was not given"),
    "extra input": (["y"], {"x": ROW, "z": ROW}, "the model has no tensor z"),
    "bad output": (["q"], {"x": ROW}, "the model has no tensor q"),
}


@pytest.fixture(scope="module")
def session():
    return ort.InferenceSession(relu().SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("case", AT_RUN)
def test_what_is_raised_at_a_run_says_what_does_not_agree(session, case):
    """[accelerators-7.1]"""
    names, feed, sentence = AT_RUN[case]
    with pytest.raises(Exception) as raised:
        session.run(names, feed)
    told = of_run(raised.value)
    assert (told.blame, sentence in told.why) == ("unfit", True), told.why
    fine(told.why)


def test_a_run_that_was_ended_is_weather(session):
    """[accelerators-7.1]"""
    options = ort.RunOptions()
    options.terminate = True
    with pytest.raises(Exception) as raised:
        session.run(["y"], {"x": ROW}, options)
    told = of_run(raised.value)
    assert (told.blame, "took too long" in told.why) == ("unavailable", True), told.why


def fine(why):
    """One line, no source path, not too long."""
    assert "\n" not in why
    assert "onnxruntime_src" not in why
    assert len(why) <= 600
