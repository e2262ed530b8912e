"""What the images install: pinned, hashed, from no index in particular, as pyproject.toml asks."""

import importlib.machinery
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def script(name):
    """A script of ours as a module."""
    loader = importlib.machinery.SourceFileLoader(name, str(ROOT / "scripts" / name))
    spec = importlib.util.spec_from_loader(name, loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def lock():
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    yield script("lock")
    sys.dont_write_bytecode = before


def test_there_is_one_for_each_flavour_and_one_to_build_with(lock):
    assert {path.stem for path in LOCKS} == {*lock.FLAVOURS, "build"}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(lock.FLAVOURS) <= extras["optional-dependencies"].keys()


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_every_version_is_pinned_with_its_hashes_and_no_index_is_named(path):
    text = path.read_text(encoding="utf-8")
    entries = re.split(r"\n(?=\S)", text.split("\n", 1)[1].strip())
    assert entries
    for entry in entries:
        first, *hashes = entry.replace(" \\\n", "\n").splitlines()
        assert re.match(r"[a-z0-9-]+==\d\S*( ; .+)?$", first), first
        assert hashes
        assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}", line) for line in hashes), first
    assert "://" not in text
    assert "--index" not in text


def test_the_locks_keep_what_the_project_asks_for(lock):
    assert list(lock.complaints()) == []


def test_a_lock_that_is_behind_would_be_told(lock, tmp_path):
    for path in LOCKS:
        text = path.read_text(encoding="utf-8").replace("onnxruntime==1.", "onnxruntime==0.")
        (tmp_path / path.name).write_text(text.replace("typer==", "typist=="), encoding="utf-8")
    lock.FOLDER = tmp_path
    try:
        found = list(lock.complaints())
    finally:
        lock.FOLDER = ROOT / "requirements"
    assert "requirements/cpu.txt: onnxruntime is not >=1.31" in found
    assert "requirements/cuda.txt has no typer" in found


def test_the_bill_of_what_is_installed_names_every_package_once():
    run = [sys.executable, ROOT / "scripts" / "sbom", "numpy"]
    bill = json.loads(subprocess.run(run, check=True, capture_output=True).stdout)
    refs = [part["bom-ref"] for part in bill["components"]]
    assert bill["metadata"]["component"]["name"] == "numpy"
    assert any(ref.startswith("pkg:pypi/onnxruntime@") for ref in refs)
    assert not any(ref.startswith("pkg:pypi/numpy@") for ref in refs)
    assert len(set(refs)) == len(refs)
    assert bill["dependencies"][0]["dependsOn"] == refs
