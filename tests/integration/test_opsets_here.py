"""The table of runtimes, against the one that is installed."""

import onnxruntime
import pytest
from onnx import TensorProto, helper

from agent.core import opsets


def load(opset: int, ir: int) -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.fixture
def reach():
    found = opsets.reach_of(onnxruntime.__version__)
    if found is None:
        pytest.skip(f"onnxruntime {onnxruntime.__version__} is newer than the table")
    return found


def test_the_installed_runtime_takes_what_the_table_says_and_nothing_newer(reach):
    """[rollout-8.4]"""
    load(reach.opset, reach.ir)
    load(opsets.OPSET_LEAST, 3)
    with pytest.raises(Exception, match=rf"till opset {reach.opset}"):
        load(reach.opset + 1, reach.ir)
    with pytest.raises(Exception, match=rf"max supported IR version: {reach.ir}"):
        load(reach.opset, reach.ir + 1)
