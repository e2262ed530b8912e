"""The walk over ONNX files: agrees with the onnx library on honest ones, survives all others."""

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from agent.core import onnx_file
from agent.core.errors import UnfitError
from agent.core.onnx_file import inspect
from tests.world import zoo


def tensor_in(location, name="w", *, marked=True):
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1])
    if marked:
        tensor.data_location = TensorProto.EXTERNAL
    if location is not None:
        tensor.external_data.add(key="location", value=location)
        tensor.external_data.add(key="offset", value="0")
    return tensor


def graph(nodes=(), initializers=()):
    return helper.make_graph(list(nodes), "g", [], [], list(initializers))


def raw(*nodes, initializers=(), **kwargs):
    model = helper.make_model(graph(nodes, initializers), **kwargs)
    return model.SerializeToString()


@pytest.mark.parametrize("make", [zoo.mlp, zoo.two_inputs, zoo.cnn, zoo.classifier, zoo.columns])
def test_it_agrees_with_the_onnx_library(make, tmp_path):
    path = make(tmp_path) / "model.onnx"
    model, facts = onnx.load(path), inspect(path.read_bytes())
    assert facts.ir_version == model.ir_version
    assert facts.opsets == {o.domain: o.version for o in model.opset_import}
    assert facts.nodes == len(model.graph.node)
    assert facts.external == ()


def test_it_names_the_files_that_hold_weights(tmp_path):
    assert inspect((zoo.external(tmp_path) / "model.onnx").read_bytes()).external == (
        "weights.bin",
    )


def _in_subgraph():
    inner = graph(initializers=[tensor_in("evil")])
    return raw(helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=graph()))


def _in_attribute():
    return raw(helper.make_node("Constant", [], ["y"], value=tensor_in("evil")))


def _in_tensor_list():
    node = helper.make_node("X", [], ["y"])
    node.attribute.add(name="ts", type=onnx.AttributeProto.TENSORS).tensors.append(
        tensor_in("evil")
    )
    return raw(node)


def _in_sparse():
    sparse = onnx.SparseTensorProto(values=tensor_in("evil"), dims=[1])
    model = helper.make_model(graph())
    model.graph.sparse_initializer.append(sparse)
    return model.SerializeToString()


def _in_function():
    node = helper.make_node("Constant", [], ["y"], value=tensor_in("evil"))
    function = helper.make_function("d", "F", [], ["y"], [node], [helper.make_opsetid("", 17)])
    return raw(functions=[function])


def _unmarked():
    return raw(initializers=[tensor_in("evil", marked=False)])


def _in_training():
    model = helper.make_model(graph())
    model.training_info.add().initialization.CopyFrom(graph(initializers=[tensor_in("evil")]))
    return model.SerializeToString()


@pytest.mark.parametrize(
    "hide",
    [
        _in_subgraph,
        _in_attribute,
        _in_tensor_list,
        _in_sparse,
        _in_function,
        _unmarked,
        _in_training,
    ],
)
def test_weights_elsewhere_are_found_wherever_they_hide(hide):
    """[store-3.4]"""
    assert inspect(hide()).external == ("evil",)


@pytest.mark.parametrize(
    "location",
    ["../secret", "/etc/passwd", "a/b", "", ".hidden", "*/_ORT_MEM_ADDR_/*", "a\\b", "x\0"],
)
def test_weights_outside_the_package_are_refused(location):
    with pytest.raises(UnfitError, match="keeps weights in"):
        inspect(raw(initializers=[tensor_in(location)]))


def test_weights_in_no_named_file_are_refused():
    with pytest.raises(UnfitError, match="does not say in which"):
        inspect(raw(initializers=[tensor_in(None)]))


def test_too_many_nodes_are_refused_without_reading_them_all():
    node = helper.make_node("Identity", ["x"], ["x"])
    many = [node] * (onnx_file.NODES_MAX + 1)
    assert inspect(raw(*many[:-1])).nodes == onnx_file.NODES_MAX
    with pytest.raises(UnfitError, match="nodes"):
        inspect(raw(*many))


def test_graphs_nested_too_deep_are_refused():
    inner = graph()
    for _ in range(onnx_file.DEPTH_MAX - 1):
        node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=graph())
        inner = graph([node])
    assert inspect(helper.make_model(inner).SerializeToString()).nodes == onnx_file.DEPTH_MAX - 1
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=graph())
    with pytest.raises(UnfitError, match="deeper"):
        inspect(raw(node))


def test_a_forest_of_millions_of_numbers_is_walked_in_no_time():
    """Attributes of tree ensembles hold one field per number; they do not count one by one."""
    node = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml")
    node.attribute.add(name="i", type=onnx.AttributeProto.INTS).ints.extend(range(-5, 3_000_000))
    node.attribute.add(name="f", type=onnx.AttributeProto.FLOATS).floats.extend([0.5] * 3_000_000)
    last = node.attribute.add(name="g", type=onnx.AttributeProto.GRAPH)
    last.g.CopyFrom(graph(initializers=[tensor_in("after.bin")]))
    found = onnx_file._Found()
    onnx_file._model(memoryview(raw(node)), found)
    assert found.fields < 100
    assert found.external == {"after.bin"}


@pytest.mark.parametrize(
    "body", [b"", b"\x00", b"\x08", b"\x0a\xff\xff\xff\x7f", b"not a model", b"\xff" * 64]
)
def test_what_is_no_model_is_refused(body):
    with pytest.raises(UnfitError):
        inspect(body)


def test_every_truncation_of_a_model_is_read_or_refused(tmp_path):
    body = (zoo.mlp(tmp_path) / "model.onnx").read_bytes()
    for end in range(0, len(body), 7):
        try:
            inspect(body[:end])
        except UnfitError:
            continue


@given(st.binary(max_size=400))
def test_bytes_from_anywhere_are_read_or_refused(body):
    try:
        inspect(body)
    except UnfitError:
        return
