"""Libraries of operators: from the configuration they run, in the jail; else they are refused."""

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from agent.adapters.processes import Limits, ProcessEngine
from agent.core.accelerators import EXTENSION_DOMAINS, Outfit
from agent.core.errors import MisfitError, UnfitError
from agent.core.manifest import parse
from agent.core.names import Digest, ModelRef
from tests.world import zoo
from tests.world.pack import model, tensor, write

FOLDER = Path(__file__).resolve().parents[2] / ".cache" / "extensions"
WHEEL = "onnxruntime-extensions==0.15.2"
REF = ModelRef("zoo", 1, Digest(f"sha256:{'0' * 64}"))


@functools.cache
def library():
    """Of onnxruntime-extensions, kept under .cache; None where it is not to be had."""
    if not FOLDER.is_dir():
        install = ["install", "--quiet", "--no-deps", "--only-binary", ":all:", "--target", FOLDER]
        subprocess.run(
            [sys.executable, "-m", "pip", *install, WHEEL], check=False, capture_output=True
        )
    found = FOLDER.glob("onnxruntime_extensions/_extensions_pydll*")
    return next((path for path in found if path.suffix in (".so", ".pyd")), None)


@pytest.fixture
def package(tmp_path):
    """y = the positive part of x, by an operator that onnxruntime has not."""
    node = helper.make_node("NegPos", ["x"], ["n", "y"], domain="ai.onnx.contrib")
    made = model(
        [node],
        [tensor("x", "f4", ["b", 1])],
        [tensor("y", "f4", ["b", 1])],
        opsets={"ai.onnx.contrib": 1},
    )
    x = zoo.rows(1)
    return write(tmp_path / "m", made, zoo.manifest(1), {"x": x}, {"y": np.maximum(x, 0)})


def load(package, *, domains=(), libraries=()):
    engine = ProcessEngine(
        Limits(domains=domains), sealed=False, outfit=Outfit(libraries=libraries)
    )
    manifest = parse((package / "model.toml").read_bytes())
    return engine.load(REF, package, manifest, background=False)


def test_with_the_library_configured_it_runs_in_the_jail(package):
    """[accelerators-1.5]"""
    if (path := library()) is None:
        pytest.skip(f"NO LIBRARY OF OPERATORS: {WHEEL} cannot be installed here")
    session = load(package, domains=EXTENSION_DOMAINS, libraries=(str(path),))
    try:
        result = session.golden()
        assert result.ok, result.why
    finally:
        session.close()


def test_without_it_the_model_is_refused_whatever_its_package_says(package):
    """[accelerators-1.5]"""
    with pytest.raises(UnfitError, match="NegPos is from ai"):
        load(package)
    (package / "_extensions_pydll.so").write_bytes(b"\x7fELF")
    with pytest.raises(UnfitError, match="NegPos is from ai"):
        load(package, domains=EXTENSION_DOMAINS)


def test_a_library_that_does_not_load_is_the_device_s_fault_and_no_model_s(package):
    with pytest.raises(MisfitError, match=r"accelerators\.libraries: /nowhere/none\.so does not"):
        load(package, domains=EXTENSION_DOMAINS, libraries=("/nowhere/none.so",))
