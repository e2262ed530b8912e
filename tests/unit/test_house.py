"""The rules of the house that no linter knows: names, sizes, docstrings, freshness, numbering."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

import agent

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("agent", "tests", "scripts", "docs", "examples", "module-manifests", ".ci")
LINES_MAX = 300
SAYS_NOTHING = {
    *("manager", "managers", "handler", "handlers", "util", "utils", "helper", "helpers"),
    *("common", "base", "service", "services", "data", "info", "misc"),
}
PLACES = re.compile(r"(?:^|[^A-Za-z])/(?:work|farm|root)/")  # of one machine, of nobody else's
INDEXES = re.compile(r"(?:pypi|pythonhosted|npmjs)\.(?:org|com)")
ADR_PARTS = ("## Context", "## Options", "## Decision", "## Consequences")
REQUIREMENT = re.compile(r"\[([a-z]+-\d+\.\d+)\]")


def files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def is_python(path: Path) -> bool:
    if path.suffix == ".py":
        return True
    with path.open("rb") as file:
        return not path.suffix and b"python" in file.readline(80)


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


PYTHON = [path for path in files("agent", "tests", "scripts", "examples") if is_python(path)]
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in PYTHON}


def words_of(name: str) -> set[str]:
    """`HTTPHealthPage`, `health_page` and `health-page` as lower-case words."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ModelManager", {"model", "manager"}),
        ("HTTPInfo", {"http", "info"}),
        ("metadata", {"metadata"}),
        ("tcp_utils", {"tcp", "utils"}),
    ],
)
def test_a_name_is_read_word_by_word(name, words):
    assert words_of(name) == words


def test_no_file_and_no_class_has_a_name_that_says_nothing():
    names = [(path, path.stem) for path in PYTHON]
    names += [
        (path, node.name)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]
    assert [f"{short(p)}: {name}" for p, name in names if words_of(name) & SAYS_NOTHING] == []


def test_no_file_is_longer_than_a_reader_can_hold():
    lines = {
        short(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in files("agent")
        if path.suffix in (".py", ".js", ".html", ".css")
    }
    assert {name: n for name, n in lines.items() if n > LINES_MAX} == {}


def test_every_module_says_what_it_is():
    assert [short(path) for path, tree in TREES.items() if not ast.get_docstring(tree)] == []


@pytest.mark.parametrize("banned", [PLACES, INDEXES], ids=["a path of one machine", "a host"])
def test_no_file_names_where_it_was_made(banned):
    named = []
    for path in [*files(*FOLDERS), *(p for p in ROOT.iterdir() if p.is_file())]:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        named += [f"{short(path)}: {found[0]}" for found in banned.finditer(text)]
    assert named == []


def test_nothing_is_left_to_do_in_the_code():
    markers = re.compile(r"\b(?:TODO|FIXME|XXX)\b|raise NotImplementedError|pragma: no cover")
    left = [
        f"{short(path)}: {found[0]}"
        for path in files("agent")
        if path.suffix == ".py"
        for found in markers.finditer(path.read_text(encoding="utf-8"))
    ]
    assert left == []


def imports_of(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_a_worker_imports_the_standard_library_numpy_and_onnxruntime_only():
    allowed = sys.stdlib_module_names | {"numpy", "onnxruntime"}
    foreign = [
        f"{short(path)}: {name}"
        for path, tree in TREES.items()
        if path.is_relative_to(ROOT / "agent" / "worker")
        for name in imports_of(tree)
        if name.split(".")[0] not in allowed
        and not f"{name}.".startswith("agent.worker.")
        and not (path.name == "gate.py" and name.startswith("agent.core"))  # pure files
        and name != "agent.core.accelerators"  # a table
    ]
    assert foreign == []


def test_no_unit_test_waits_for_a_clock():
    waiting = [
        f"{short(path)}:{node.lineno}"
        for path, tree in TREES.items()
        if path.is_relative_to(ROOT / "tests" / "unit")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "sleep"
    ]
    assert waiting == []


@pytest.mark.parametrize("script", ["diagram", "deployment"])
def test_generated_files_are_fresh(script):
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / script, "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def adrs() -> list[Path]:
    return sorted(p for p in (ROOT / "docs" / "adr").glob("*.md") if p.name != "README.md")


def test_decisions_are_numbered_without_gaps_and_all_in_the_index():
    assert [path.name[:4] for path in adrs()] == [f"{n + 1:04}" for n in range(len(adrs()))]
    index = (ROOT / "docs" / "adr" / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in adrs() if f"]({path.name})" not in index] == []


@pytest.mark.parametrize("path", adrs(), ids=lambda path: path.name[:4])
def test_a_decision_names_its_context_options_choice_and_price(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# {path.name[:4]} ")
    assert [part for part in ADR_PARTS if f"\n{part}\n" not in text] == []


def test_every_dependency_has_its_reason():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    names = {re.split(r"[\[<>=~; ]", entry)[0] for entry in wanted} - {project["name"]}
    reasons = next(p for p in adrs() if "dependencies" in p.name).read_text(encoding="utf-8")
    assert sorted(name for name in names if f"`{name}`" not in reasons) == []


def test_every_command_the_readme_names_is_one():
    made = set(
        re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    told = set()
    for name in ("README.md", "CONTRIBUTING.md", "tests/README.md", "module-manifests/README.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        told |= set(re.findall(r"(?:`|^    |run )make ([a-z]+)", text, re.MULTILINE))
    assert told >= {"demo", "test"}
    assert told - made == set()


def test_links_between_the_pages_lead_somewhere():
    dead = [
        f"{short(page)}: {target}"
        for page in [*ROOT.glob("*.md"), *(p for p in files(*FOLDERS) if p.suffix == ".md")]
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert dead == []


def test_every_numbered_requirement_has_a_test_and_every_number_in_a_test_is_one():
    spec = Counter(
        number
        for path in (ROOT / "docs" / "spec").glob("*.md")
        if path.name != "README.md"
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.lstrip().startswith(("- [", "| [", "["))
        for number in REQUIREMENT.findall(line)[:1]
    )
    assert [number for number, times in spec.items() if times > 1] == []
    tested = {
        number
        for path in files("tests")
        if path.suffix == ".py" and path != Path(__file__)
        for number in REQUIREMENT.findall(path.read_text(encoding="utf-8"))
    }
    assert sorted(spec.keys() - tested) == [], "promised without a test"
    assert sorted(tested - spec.keys()) == [], "tested without being promised"


def test_the_version_is_the_same_everywhere():
    module = (ROOT / "module-manifests" / "module.json").read_text(encoding="utf-8")
    assert f'"version": "{agent.__version__}"' in module
    for name in ("Dockerfile.amd64", "Dockerfile.arm64"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert f"ARG VERSION={agent.__version__}\n" in text
