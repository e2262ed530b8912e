"""Deployment files in the eyes of the tools that will read them, each with a mistake they must see.

Where a tool or a schema is not on this machine, its test is left out aloud.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "module-manifests"
KUBERNETES = "1.32"


def text(name):
    return (FOLDER / name).read_text(encoding="utf-8")


def ran(*command):
    """Exit status and everything said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def tool(name):
    """Where it is: beside the interpreter, or anywhere."""
    found = shutil.which(name, path=Path(sys.executable).parent) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


# ---- Dockerfiles ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Dockerfile.amd64", "Dockerfile.arm64"])
def test_hadolint_has_nothing_to_say(name):
    assert ran(tool("hadolint"), ROOT / name) == (0, "")


def test_hadolint_would_complain(tmp_path):
    broken = tmp_path / "Dockerfile"
    whole = (ROOT / "Dockerfile.amd64").read_text(encoding="utf-8")
    broken.write_text(whole.replace("USER 10001:10001", "USER root"), encoding="utf-8")
    status, said = ran(tool("hadolint"), broken)
    assert status == 1
    assert "DL3002" in said


# ---- Kubernetes ----------------------------------------------------------------------------------


def misfits(documents):
    """What Kubernetes has against them; it knows every member, so a misspelt one is told too."""
    kubernetes = pytest.importorskip("kubernetes_validate", reason="no schemas of Kubernetes here")
    found = []
    for document in documents:
        try:
            kubernetes.validate(document, KUBERNETES, strict=True)
        except kubernetes.ValidationError as error:
            found.append(str(error))
    return found


@pytest.mark.parametrize("name", ["deployment.yaml", "scale-out.yaml"])
def test_kubernetes_takes_every_object(name):
    documents = list(yaml.safe_load_all(text(f"kubernetes/{name}")))
    assert len(documents) == 3
    assert misfits(documents) == []


@pytest.mark.parametrize(
    ("right", "wrong"), [("replicas: 3", 'replicas: "three"'), ("readOnlyRootF", "readOnlyroot_f")]
)
def test_kubernetes_refuses_a_broken_object(right, wrong):
    broken = text("kubernetes/scale-out.yaml").replace(right, wrong)
    assert broken != text("kubernetes/scale-out.yaml")
    assert misfits(yaml.safe_load_all(broken))


def test_on_a_kubeedge_node_the_same_pod_runs_with_the_nodes_network():
    status, said = ran(tool("kubectl"), "kustomize", FOLDER / "kubeedge")
    assert status == 0, said
    documents = list(yaml.safe_load_all(said))
    assert misfits(documents) == []
    pod = next(d for d in documents if d["kind"] == "Deployment")["spec"]["template"]["spec"]
    assert pod["hostNetwork"] is True
    assert pod["nodeSelector"] == {"node-role.kubernetes.io/edge": ""}
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["host"] == "127.0.0.1"


# ---- Compose -------------------------------------------------------------------------------------


def test_compose_takes_its_file():
    compose = pytest.importorskip("compose_spec", reason="no reader of Compose files here")
    read = compose.PyCompose.from_yaml(text("compose/compose.yaml"))
    read.validate()
    assert sorted(read.service_names()) == ["broker", "edge-agent"]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("restart: unless-stopped", "restart: sometimes"), ("pids_limit:", "pid_limits:")],
)
def test_compose_refuses_a_broken_file(right, wrong):
    compose = pytest.importorskip("compose_spec", reason="no reader of Compose files here")
    broken = text("compose/compose.yaml").replace(right, wrong, 1)
    with pytest.raises(ValueError, match=wrong.split()[-1].strip(":")):
        compose.PyCompose.from_yaml(broken).validate()


# ---- systemd -------------------------------------------------------------------------------------


def verified(folder, unit):
    """systemd exits 0 on what it ignores: only silence is consent."""
    path = folder / "edge-agent.service"
    path.write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", unit), encoding="utf-8")
    return ran(tool("systemd-analyze"), "verify", "--man=no", path)


def test_systemd_takes_the_unit(tmp_path):
    assert verified(tmp_path, text("systemd/edge-agent.service")) == (0, "")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("ProtectSystem=strict", "ProtectSystem=sometimes"), ("UMask=", "Umask="), ("=always", "=so")],
)
def test_systemd_complains_about_a_broken_unit(right, wrong, tmp_path):
    _, said = verified(tmp_path, text("systemd/edge-agent.service").replace(right, wrong))
    assert "edge-agent.service" in said


# ---- AWS IoT Greengrass --------------------------------------------------------------------------


def lowered(value):
    """Greengrass takes its members in any case; its schema has them in lower case."""
    if isinstance(value, dict):
        return {key.lower(): lowered(inner) for key, inner in value.items()}
    return [lowered(inner) for inner in value] if isinstance(value, list) else value


@pytest.fixture
def recipe_schema(shared_data):
    """`gdk/static/recipe_schema.json` of Greengrass' development kit."""
    path = shared_data / "schemas" / "aws-greengrass-recipe.json"
    if not path.is_file():
        pytest.skip(f"no {path.name} among the published schemas here")
    return Draft7Validator(json.loads(path.read_text(encoding="utf-8")))


def test_the_recipe_fits_its_published_schema(recipe_schema):
    recipe = lowered(yaml.safe_load(text("greengrass/recipe.yaml")))
    assert [error.message for error in recipe_schema.iter_errors(recipe)] == []


def test_a_broken_recipe_does_not_fit(recipe_schema):
    recipe = lowered(yaml.safe_load(text("greengrass/recipe.yaml")))
    recipe["manifest"] = recipe.pop("manifests")
    assert list(recipe_schema.iter_errors(recipe))
