"""The walk over ONNX files: agrees with the onnx library on honest ones, survives all others."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from agent.core import onnx_file
from agent.core.errors import UnfitError
from agent.core.onnx_file import inspect
from agent.core.onnx_gate import admit
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
    """[jail-1.5]"""
    node = helper.make_node("Identity", ["x"], ["x"])
    many = [node] * (onnx_file.NODES_MAX + 1)
    assert inspect(raw(*many[:-1])).nodes == onnx_file.NODES_MAX
    with pytest.raises(UnfitError, match="nodes"):
        inspect(raw(*many))


def test_graphs_nested_too_deep_are_refused():
    """[jail-1.5]"""
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
    assert found.walk.seen < 100
    assert set(found.reach) == {"after.bin"}


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


# ---- what tensors claim --------------------------------------------------------------------------


def claims(dims, held=64, **more):
    """A model with one tensor of `dims` float32 and `held` bytes."""
    tensor = TensorProto(name="w", data_type=1, dims=dims, raw_data=bytes(held), **more)
    return raw(initializers=[tensor])


@pytest.mark.parametrize(
    ("dims", "words"),
    [
        ([1 << 40, 1 << 40], r"\[1099511627776, 1099511627776\] with no more than 16 values"),
        ([17], r"\[17\] with no more than 16 values"),
        ([-5], r"\[-5\]; no size is below 0"),
        ([1] * 65, "more than 64 dimensions"),
    ],
)
def test_a_tensor_cannot_claim_more_than_it_holds(dims, words):
    """[jail-1.3]"""
    with pytest.raises(UnfitError, match=words):
        inspect(claims(dims))
    assert inspect(claims([4, 4])).nodes == 0


@pytest.mark.parametrize("dtype", sorted(set(TensorProto.DataType.values()) - {0}))
def test_tensors_of_every_type_pass_however_their_values_are_written(dtype):
    for count in (0, 1, 5, 1000):
        numbers = np.arange(count) % 2
        if dtype == TensorProto.STRING:
            tensors = [helper.make_tensor("w", dtype, [count], [b"x"] * count)]
        elif dtype >= TensorProto.FLOAT4E2M1:  # of a width that numpy has no word for
            tensors = [TensorProto(data_type=dtype, dims=[count], raw_data=bytes(count))]
        else:
            tensors = [helper.make_tensor("w", dtype, [count], numbers)]
            given = numpy_helper.to_array(tensors[0])
            tensors.append(numpy_helper.from_array(given, "w"))
        inspect(raw(initializers=tensors))


def test_a_sparse_tensor_cannot_unfold_without_end():
    values, indices = TensorProto(data_type=1, dims=[0]), TensorProto(data_type=7, dims=[0])
    for dims in ([1 << 20, 1 << 20], [1 << 14, 1 << 14]):
        model = helper.make_model(graph())
        sparse = onnx.SparseTensorProto(values=values, indices=indices, dims=dims)
        model.graph.sparse_initializer.append(sparse)
        if dims[0] > 1 << 14:
            with pytest.raises(UnfitError, match="unfolds to more"):
                inspect(model.SerializeToString())
        else:
            inspect(model.SerializeToString())


def outside(dims, **entries):
    tensor = TensorProto(name="w", data_type=1, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "w.bin", **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return raw(initializers=[tensor])


def test_weights_elsewhere_say_how_far_they_reach():
    assert inspect(outside([4], offset=64, length=16)).reach == {"w.bin": 80}
    assert inspect(outside([4], offset=64)).reach == {"w.bin": 80}
    assert inspect(outside([4])).reach == {"w.bin": 16}
    with pytest.raises(UnfitError, match=r"\[4\] needs 16 bytes and keeps 12"):
        inspect(outside([4], length=12))
    with pytest.raises(UnfitError, match="the offset '-1', which is no number"):
        inspect(outside([4], offset=-1))


# ---- the gate ------------------------------------------------------------------------------------


def test_the_gate_lets_the_zoo_pass(tmp_path):
    for make in (zoo.mlp, zoo.cnn, zoo.classifier, zoo.columns, zoo.external, zoo.running_sum):
        folder = make(tmp_path / make.__name__)
        files = {path.name: path.stat().st_size for path in folder.iterdir()}
        admit((folder / "model.onnx").read_bytes(), files)


def test_weights_must_be_in_the_package_and_reach_no_further_than_its_file():
    """[jail-1.2]"""
    body = outside([4], offset=64)
    assert admit(body, {"w.bin": 80}).external == ("w.bin",)
    with pytest.raises(UnfitError, match=r"in w\.bin, which is not in its package"):
        admit(body, {"other.bin": 80})
    with pytest.raises(UnfitError, match=r"wants w\.bin up to byte 80, and it has 79"):
        admit(body, {"w.bin": 79})
    with pytest.raises(UnfitError, match="up to byte 4611686018427387920"):
        admit(outside([4], offset=2**62), {"w.bin": 80})


def test_operators_come_from_known_sets_only_wherever_they_hide():
    """[jail-1.4]"""
    evil = helper.make_node("Evil", ["x"], ["y"], domain="evil")
    hidden = helper.make_node("If", ["c"], ["y"], then_branch=graph([evil]), else_branch=graph())
    function = helper.make_function("d", "F", [], ["y"], [evil], [helper.make_opsetid("", 17)])
    for body in (raw(evil), raw(hidden), raw(functions=[function])):
        with pytest.raises(UnfitError, match="node type Evil is from evil, a library of custom"):
            admit(body, {})
        admit(body, {}, {"evil"})
    own = helper.make_node("F", [], ["y"], domain="d")
    good = helper.make_node("Relu", ["x"], ["y"])
    function = helper.make_function("d", "F", [], ["y"], [good], [helper.make_opsetid("", 17)])
    admit(raw(own, functions=[function]), {})  # a function of its own is no library
    with pytest.raises(UnfitError, match="node type F is from d"):
        admit(raw(own), {})


def test_a_default_of_a_functions_attribute_hides_nothing():
    function = helper.make_function("d", "F", [], ["y"], [], [helper.make_opsetid("", 17)])
    function.attribute_proto.add(name="a", type=onnx.AttributeProto.TENSOR).t.CopyFrom(
        tensor_in("evil")
    )
    with pytest.raises(UnfitError, match="evil, which is not in its package"):
        admit(raw(functions=[function]), {})


def test_a_program_compiled_for_an_accelerator_is_refused():
    node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")
    with pytest.raises(UnfitError, match="EPContext"):
        admit(raw(node), {})


def test_an_empty_file_is_said_to_be_empty():
    with pytest.raises(UnfitError, match="is empty"):
        admit(b"", {})
