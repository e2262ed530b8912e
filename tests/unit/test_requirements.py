"""What signed metadata demands, held against a device; and packages against runtimes by table."""

import dataclasses
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import opsets, requirements
from agent.core.errors import MisfitError, RefusedError
from agent.core.names import Digest, ModelRef
from agent.core.packages import FileEntry, Package
from agent.core.requirements import Device

DEVICE = Device(
    agent="1.2.0",
    onnxruntime="1.22.1",
    providers=("cpu",),
    hardware=("x86_64",),
    memory_mb=512.0,
)


def unmet(device=DEVICE, *, min_agent="", hw=(), **runtime):
    custom = {"min_agent": min_agent, "hw": list(hw), "runtime": runtime}
    return requirements.unmet(custom, device)


def having(**members):
    return dataclasses.replace(DEVICE, **members)


@pytest.mark.parametrize(
    ("demand", "sentence"),
    [
        ({"opset": 23}, "opset 23 needs onnxruntime ≥ 1.23; this device has 1.22.1"),
        ({"opsets": {"": 23}}, "opset 23 needs onnxruntime ≥ 1.23; this device has 1.22.1"),
        (
            {"opset": 28},
            "opset 28 needs an onnxruntime newer than 1.31; this device has 1.22.1",
        ),
        ({"ir_version": 13}, "IR version 13 needs onnxruntime ≥ 1.24; this device has 1.22.1"),
        (
            {"opset": 6},
            "opset 6 is older than any onnxruntime runs; convert the model to opset 7 or newer",
        ),
        ({"ort": ">=1.24"}, "it needs onnxruntime ≥ 1.24; this device has 1.22.1"),
        ({"ort": "1.24"}, "it needs onnxruntime ≥ 1.24; this device has 1.22.1"),
        ({"ort": ">=1.20,<1.22"}, "it needs onnxruntime ≥ 1.20,<1.22; this device has 1.22.1"),
        ({"min_agent": "1.3"}, "it needs edge-agent ≥ 1.3; this device has 1.2.0"),
        ({"hw": ["aarch64"]}, "it is for aarch64; this device is x86_64"),
        (
            {"require": "cuda", "providers": ["cuda", "cpu"]},
            (
                "it requires cuda and this device's onnxruntime has cpu; install"
                " edge-model-agent[cuda]"
            ),
        ),
        (
            {"require": "accelerated", "providers": ["directml", "cpu"]},
            (
                "it requires an accelerator (directml) and this device's onnxruntime has cpu;"
                " install edge-model-agent[directml]"
            ),
        ),
        (
            {"memory_mb": 600.0},
            "it needs 600 MB of memory; this device has 512 MB for models at most",
        ),
    ],
)
def test_what_a_device_cannot_meet_is_said_with_what_would_help(demand, sentence):
    """[rollout-8.1]"""
    assert unmet(**demand) == [sentence]


@pytest.mark.parametrize(
    "demand",
    [
        {},
        {"opset": 22, "ir_version": 10, "memory_mb": 512},
        {"opsets": {"": 17, "ai.onnx.ml": 5, "com.microsoft": 1}},
        {"ort": ">=1.20, <2"},
        {"min_agent": "1.2"},
        {"hw": ["aarch64", "AMD64"]},
        {"require": "any", "providers": ["cuda", "cpu"]},
        {"require": "cpu"},
    ],
)
def test_what_a_device_meets_is_not_spoken_of(demand):
    assert unmet(**demand) == []


def test_every_demand_that_is_not_met_is_named_at_once():
    told = unmet(min_agent="9", hw=["riscv64"], opset=26, memory_mb=1e6)
    assert len(told) == 4


def test_an_accelerator_of_any_kind_meets_auto():
    device = having(providers=("openvino", "cpu"))
    assert unmet(device, require="accelerated", providers=["auto"]) == []
    assert unmet(device, require="accelerated", providers=["cuda"]) != []


def test_a_device_that_does_not_know_its_memory_refuses_nothing_for_it():
    assert unmet(having(memory_mb=None), memory_mb=1e6) == []


def test_a_runtime_newer_than_any_measured_refuses_nothing_by_the_table():
    assert unmet(having(onnxruntime="1.99.0"), opset=40, ir_version=20) == []


def test_what_is_signed_and_makes_no_sense_is_not_installed():
    assert "cannot be read (hw:" in requirements.unmet({"hw": 3}, DEVICE)[0]
    assert "cannot be read" in requirements.unmet({"runtime": [1]}, DEVICE)[0]
    assert "cannot be read (runtime.opset:" in unmet(opset="17")[0]
    assert "which is no version" in unmet(ort="new enough")[0]


def test_members_of_a_newer_repository_are_passed_over():
    custom = {"provenance": "sha256:…", "io": {}, "runtime": {"opset": 17, "warp": 9}}
    assert requirements.unmet(custom, DEVICE) == []


def test_a_misfit_names_the_version_and_every_reason():
    digest = Digest("sha256:" + "0" * 64)
    files = (FileEntry("model.onnx", 1, digest),)
    package = Package(ModelRef("m", 3, digest), "3", files, custom={"runtime": {"opset": 23}})
    with pytest.raises(MisfitError, match=r"^m:3 does not fit this device: opset 23 needs"):
        requirements.check(package, DEVICE)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
MEMBERS = ("min_agent", "hw", "runtime", "ort", "opsets", "require", "memory_mb", "providers")


@given(st.dictionaries(st.sampled_from(MEMBERS), json_values), json_values)
def test_no_metadata_breaks_the_check(runtime, anything):
    for custom in (runtime, {"runtime": runtime}, {"hw": anything, "runtime": {"ort": anything}}):
        assert all(isinstance(why, str) for why in requirements.unmet(custom, DEVICE))


@given(st.integers(7, 40), st.sampled_from(opsets.RUNTIMES))
def test_the_version_a_sentence_names_takes_what_was_too_new(opset, row):
    version = ".".join(map(str, row[0]))
    told = unmet(having(onnxruntime=version), opset=opset)
    if opset <= row[1].opset:
        assert told == []
    elif opset <= opsets.RUNTIMES[-1][1].opset:
        named = told[0].split("≥ ")[1].split(";")[0]
        assert unmet(having(onnxruntime=named), opset=opset) == []


def test_the_table_never_shrinks():
    reaches = [reach for _, reach in opsets.RUNTIMES]
    for older, newer in pairwise(reaches):
        assert (older.opset, older.ml, older.ir) < (newer.opset, newer.ml, newer.ir)
        assert newer.opset >= older.opset
        assert newer.ir >= older.ir


@pytest.mark.parametrize(
    ("target", "versions", "told"),
    [
        ("windows-11", {"": 12}, ""),
        ("windows-11", {"": 13}, "takes (at most opset 12); export the model for that"),
        ("windows-10-1809", {"": 8}, "Windows 10 1809 takes (at most opset 7)"),
        ("directml", {"": 25}, ""),
        ("directml", {"": 26}, "onnxruntime-directml 1.24.4 takes (at most opset 25)"),
        ("ort-1.17", {"": 21}, "export the model for that, or use onnxruntime ≥ 1.18"),
        ("ort-1.17", {"": 17, "ai.onnx.ml": 5}, "opset 5 of ai.onnx.ml is newer than"),
        ("ort-1.22.1", {"": 22}, ""),
    ],
)
def test_a_package_is_held_against_a_runtime_that_is_not_here(target, versions, told):
    """[rollout-8.4]"""
    refusals = requirements.against(versions, 3, ["cpu"], "any", opsets.target(target))
    assert [told in why for why in refusals] == [True] * bool(told)


def test_a_target_without_the_wanted_provider_is_refused():
    target = opsets.target("openvino")
    assert requirements.against({"": 17}, 8, ["cuda"], "cuda", target) == [
        "it requires cuda and onnxruntime-openvino 1.24.1 has openvino, cpu"
    ]


@pytest.mark.parametrize("name", ["windows-12", "ort-1.2", "ort-1.99", "ort-x", ""])
def test_a_target_that_nobody_measured_is_refused_with_those_there_are(name):
    with pytest.raises(RefusedError, match=r"windows-11.*directml.*ort-1\.15 to ort-1\.31"):
        opsets.target(name)
