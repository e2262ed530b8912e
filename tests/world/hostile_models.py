"""The 19 hostile models that `docs/spec/jail.md` is held to: each built by code, as a package.

Three of them do harm through names (links cannot be signed, so `signable` leaves them out), eight
through sizes, three through what they do when they run, five are no models at all.
"""

import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.world import wild, zoo
from tests.world.pack import constant, model, tensor, write
from tests.world.wild import ONES, ZEROS, X, Y

SECRET = "secret.bin"


def _package(folder: Path, made: onnx.ModelProto | bytes, **members: Any) -> Path:
    return write(folder, made, zoo.manifest(1, **members), ONES, ZEROS)


def _adding(*weights: TensorProto) -> onnx.ModelProto:
    """y = x + w"""
    return model([helper.make_node("Add", ["x", "w"], ["y"])], [X], [Y], weights)


def _elsewhere(location: str, *, length: int = 64, offset: int | None = None) -> onnx.ModelProto:
    """y = x + w, with w in another file."""
    weights = TensorProto(name="w", data_type=1, dims=[length // 4])
    weights.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "length": length, "offset": offset}
    for key, value in entries.items():
        if value is not None:
            weights.external_data.add(key=key, value=str(value))
    return _adding(weights)


def _secret(folder: Path) -> Path:
    """A file beside the package folder that is none of the model's business."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f"{folder.name}.{SECRET}")
    path.write_bytes(b"S" * 64)
    return path


# ---- names ---------------------------------------------------------------------------------------


def dotdot(folder: Path, **members: Any) -> Path:
    """Weights above the package."""
    return _package(folder, _elsewhere(f"../{_secret(folder).name}"), **members)


def absolute(folder: Path, **members: Any) -> Path:
    """Weights anywhere on the device."""
    return _package(folder, _elsewhere("/etc/hostname", length=4), **members)


def symlink(folder: Path, **members: Any) -> Path:
    """Weights through a symbolic link."""
    (folder / "link.bin").symlink_to(_secret(folder))
    return _package(folder, _elsewhere("link.bin"), **members)


def hard_link(folder: Path, **members: Any) -> Path:
    """Weights through a second name of another file: onnxruntime 1.31 reads it."""
    os.link(_secret(folder), folder / "hard.bin")
    return _package(folder, _elsewhere("hard.bin"), **members)


def memory_address(folder: Path, **members: Any) -> Path:
    """Weights at an address in the process's own memory (onnxruntime #28709)."""
    return _package(folder, _elsewhere("*/_ORT_MEM_ADDR_/*", offset=4096), **members)


def huge_offset(folder: Path, **members: Any) -> Path:
    """Weights 2^62 bytes into a file of 64."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "w.bin").write_bytes(bytes(64))
    return _package(folder, _elsewhere("w.bin", offset=2**62), **members)


# ---- sizes ---------------------------------------------------------------------------------------


def huge_constant(folder: Path, **members: Any) -> Path:
    """2^36 floats, as many as a constant says."""
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["lots"]),
        helper.make_node("ReduceSum", ["lots"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    made = model(nodes, [X], [Y], [constant("shape", [1 << 36], "int64")])
    return _package(folder, made, **members)


def negative_size(folder: Path, **members: Any) -> Path:
    """A tensor of -5 elements."""
    weights = TensorProto(name="w", data_type=1, dims=[-5], raw_data=bytes(64))
    return _package(folder, _adding(weights), **members)


def overflowing_size(folder: Path, **members: Any) -> Path:
    """A tensor of 2^80 elements in 64 bytes."""
    weights = TensorProto(name="w", data_type=1, dims=[1 << 40, 1 << 40], raw_data=bytes(64))
    return _package(folder, _adding(weights), **members)


def many_nodes(folder: Path, **members: Any) -> Path:
    """200,000 nodes: 4 s and 500 MiB to load."""
    count = 200_000
    names = ["x", *(f"a{i}" for i in range(1, count)), "y"]
    nodes = [helper.make_node("Identity", [names[i]], [names[i + 1]]) for i in range(count)]
    return _package(folder, model(nodes, [X], [Y]), **members)


def deep_branches(folder: Path, **members: Any) -> Path:
    """Branches 30 deep."""

    def branch(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
        return helper.make_graph(nodes, name, [], [tensor(name, "f4", None)])

    inner = branch("t0", helper.make_node("Identity", ["x"], ["t0"]))
    for i in range(1, 30):
        other = branch(f"e{i}", helper.make_node("Identity", ["x"], [f"e{i}"]))
        fork = helper.make_node("If", ["c"], [f"t{i}"], then_branch=inner, else_branch=other)
        inner = branch(f"t{i}", fork)
    other = branch("e", helper.make_node("Identity", ["x"], ["e"]))
    fork = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=other)
    return _package(folder, model([fork], [X], [Y], [constant("c", True, "bool")]), **members)


def deep_protobuf(folder: Path, **members: Any) -> Path:
    """Graphs in attributes of nodes of graphs, 2000 deep, as no library would write them."""

    def field(number: int, body: bytes) -> bytes:
        length, left = b"", len(body)
        while left >= 0x80:
            length, left = length + bytes([left & 0x7F | 0x80]), left >> 7
        return bytes([number << 3 | 2]) + length + bytes([left]) + body

    graph = b""
    for _ in range(2000):
        graph = field(1, field(5, field(6, graph)))
    return _package(folder, b"\x08\x08" + field(7, graph) + field(8, b"\x10\x11"), **members)


# ---- no models -----------------------------------------------------------------------------------


def empty(folder: Path, **members: Any) -> Path:
    """Nothing."""
    return _package(folder, b"", **members)


def garbage(folder: Path, **members: Any) -> Path:
    """5000 bytes of noise."""
    return _package(folder, Random(5).randbytes(5000), **members)


def custom_operator(folder: Path, **members: Any) -> Path:
    """A node from nobody's operator set."""
    node = helper.make_node("Evil", ["x"], ["y"], domain="evil")
    return _package(folder, model([node], [X], [Y], opsets={"evil": 1}), **members)


# name -> how it is made, and what its refusal says; by a worker that may have some 600 MB
HOSTILE: dict[str, tuple[Callable[..., Path], str]] = {
    "weights above": (dotdot, "a package is flat"),
    "weights anywhere": (absolute, "'/etc/hostname'; a package is flat"),
    "weights by symlink": (symlink, "link.bin"),
    "weights by hard link": (hard_link, "hard.bin"),
    "weights in memory": (memory_address, "_ORT_MEM_ADDR_/*'; a package is flat"),
    "weights far away": (huge_offset, "wants w.bin up to byte 4611686018427387968, and it has 64"),
    "huge, by a constant": (huge_constant, "more memory than a worker may use here"),
    "huge, by its input": (wild.huge, "more memory than a worker may use here"),
    "grows": (wild.grows, "the golden samples"),  # need more memory, or do not end: what is first
    "hangs": (wild.hang, "the golden samples did not end within"),
    "deep branches": (deep_branches, "nests graphs deeper than 8"),
    "deep protobuf": (deep_protobuf, "nests graphs deeper than 8"),
    "200,000 nodes": (many_nodes, "more than 50000 nodes"),
    "truncated": (wild.truncated, "truncated"),
    "empty": (empty, "model.onnx is empty"),
    "garbage": (garbage, "no ONNX model"),
    "negative size": (negative_size, "[-5]; no size is below 0"),
    "overflowing size": (overflowing_size, "with no more than 16 values in it"),
    "custom operator": (custom_operator, "Evil is from evil, a library of custom operators"),
}


def signable(folder: Path) -> Path:
    """`folder` without its links: what a signer signs are bytes, and bytes are what travels."""
    for path in folder.iterdir():
        if path.is_symlink() or path.stat().st_nlink > 1:
            path.unlink()
    return folder


def good(folder: Path, **members: Any) -> Path:
    """The one that is not hostile: y = x + 1."""
    made = _adding(constant("w", np.ones(1)))
    return write(folder, made, zoo.manifest(1, **members), ONES)
