"""Every deployment file: it parses, fits its published schema, and sets only what exists.

What other tools say of their files is in test_manifests_read.py.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft4Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

import agent
from agent.adapters.azure.twin import desired_document
from agent.config import ENV_PREFIX, Config, load
from agent.core.errors import RefusedError
from agent.core.wire import parse_desired

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "module-manifests"
DEPLOYMENTS = ("deployment.amd64.json", "deployment.amd64-gpu.json", "deployment.arm64.json")
AGENT = "edge-model-agent"
DOCKERFILES = ("Dockerfile.amd64", "Dockerfile.arm64")
OPTION_CHARS_MAX = 512


def document(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


def desired(name: str) -> Any:
    return document(name)["modulesContent"]["$edgeAgent"]["properties.desired"]


def options(settings: dict[str, str]) -> Any:
    """createOptions as the runtime reads them: the pieces in order, then JSON."""
    return json.loads("".join(v for k, v in sorted(settings.items()) if k != "image"))


def layered(base: str) -> Any:
    """The deployment `base` with the layer on it, as IoT Hub merges them."""
    merged = document(base)
    layer = document("deployment.layered.json")["content"]["modulesContent"]
    for module, members in layer.items():
        for path, value in members.items():
            inner = merged["modulesContent"].setdefault(module, {})
            parts = ["properties.desired", *path.removeprefix("properties.desired.").split(".")]
            for part in parts[:-1]:
                inner = inner.setdefault(part, {})
            inner[parts[-1]] = value
    return merged


def environment(entry: Any) -> dict[str, str]:
    return {key: value["value"] for key, value in entry["env"].items()}


# ---- what each file sets -------------------------------------------------------------------------


def settings() -> Iterator[tuple[str, dict[str, str]]]:
    for name in ("deployment.template.json", *DEPLOYMENTS):
        yield name, environment(desired(name)["modules"][AGENT])
    merged = layered(DEPLOYMENTS[0])["modulesContent"]["$edgeAgent"]["properties.desired"]
    yield "deployment.layered.json", environment(merged["modules"][AGENT])
    yield "scale-out.yaml", pod_environment("scale-out.yaml", "StatefulSet")
    for name in DOCKERFILES:
        text = (ROOT / name).read_text(encoding="utf-8")
        yield name, dict(re.findall(rf"({ENV_PREFIX}\w+)=(\S+)", text))
    unit = (FOLDER / "systemd" / "edge-agent.service").read_text(encoding="utf-8")
    yield (
        "edge-agent.service",
        dict(re.findall(rf"^Environment=({ENV_PREFIX}\w+)=(.+)$", unit, re.MULTILINE)),
    )
    for name, service in documents("compose/compose.yaml")[0]["services"].items():
        if name == "edge-agent":
            # As Compose fills in ${NAME:-default}.
            env = service["environment"].items()
            yield "compose.yaml", {k: re.sub(r"\$\{\w+:-(.*)\}", r"\1", v) for k, v in env}
    for manifest in documents("greengrass/recipe.yaml")[0]["Manifests"]:
        run = manifest["Lifecycle"]["Run"]
        pairs = re.findall(rf"--env ({ENV_PREFIX}\w+)=(\S+)", run)
        name = f"recipe.yaml {manifest['Platform']['architecture']}"
        yield name, {k: _greengrass(v) for k, v in pairs}


def pod_environment(name: str, kind: str) -> dict[str, str]:
    """What a pod's first container is told; its own name where it asks for that."""
    found = next(d for d in documents(f"kubernetes/{name}") if d["kind"] == kind)
    env = found["spec"]["template"]["spec"]["containers"][0]["env"]
    return {entry["name"]: entry.get("value", "edge-agent-group-0") for entry in env}


def _greengrass(value: str) -> str:
    default = documents("greengrass/recipe.yaml")[0]["ComponentConfiguration"][
        "DefaultConfiguration"
    ]
    value = re.sub(r"\{configuration:/(\w+)\}", lambda found: default[found[1]], value)
    return value.replace("{iot:thingName}", "pump-7")


SETTINGS = dict(settings())


@pytest.mark.parametrize("name", SETTINGS)
def test_the_agent_takes_every_setting_that_a_file_makes(name):
    assert SETTINGS[name], f"{name} sets nothing"
    config = load(None, SETTINGS[name])
    for key in SETTINGS[name]:
        inner: Any = config
        for part in key.removeprefix(ENV_PREFIX).lower().split("__"):
            inner = getattr(inner, part)
        assert inner not in ("", (), None), f"{name} sets {key} to nothing"


def test_a_setting_that_does_not_exist_would_be_heard():
    with pytest.raises(RefusedError, match="nonsense"):
        load(None, {f"{ENV_PREFIX}MQTT__NONSENSE": "1"})


def test_the_configuration_of_compose_and_kubernetes_is_whole(tmp_path):
    compose = load(FOLDER / "compose" / "agent.toml", SETTINGS["compose.yaml"])
    embedded = documents("kubernetes/deployment.yaml")[0]["data"]["agent.toml"]
    path = tmp_path / "agent.toml"
    path.write_text(embedded, encoding="utf-8")
    kubernetes = load(path, SETTINGS["Dockerfile.amd64"])
    for config in (compose, kubernetes):
        assert isinstance(config, Config)
        assert config.mqtt.password_file
        assert config.repository.root_file
        assert [stream.name for stream in config.stream] == ["pump"]
    assert tomllib.loads(embedded)["mqtt"]["username"] == compose.mqtt.username


# ---- the container -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_runs_as_nobody_keeps_its_state_in_one_volume_and_asks_for_health(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    final = text[text.rindex("\nFROM ") :]
    assert re.findall(r"^USER (.*)$", final, re.MULTILINE) == ["10001:10001"]
    assert re.findall(r"^VOLUME (.*)$", final, re.MULTILINE) == ["/data"]
    assert 'CMD ["edge-agent", "health"]' in final
    assert " pip" not in final
    assert load(None, SETTINGS[name]).store.dir == "/data"
    assert not load(None, SETTINGS[name]).http.is_loopback


def test_the_two_images_differ_in_little():
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in DOCKERFILES]
    amd64, arm64 = (text[text.index("\nFROM ") :] for text in texts)
    assert amd64 == arm64


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_installs_only_what_it_knows_by_hash(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    first = re.search(r"^RUN --mount=type=secret(?:.*\\\n)*.*$", text, re.MULTILINE)
    assert first is not None
    assert "PIP_REQUIRE_HASHES=1" in first[0]
    assert "PIP_ONLY_BINARY=:all:" in first[0]
    rest = text.replace(first[0], "")
    assert re.findall(r"pip[^\n]* (?:install|wheel) (?!.*--no-index)", rest) == []


def test_only_what_is_packaged_goes_to_the_builder():
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert rules[1] == "*"
    kept = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = re.findall(
        r"^COPY (?!--)(.*) \S+$", (ROOT / "Dockerfile.amd64").read_text(), re.MULTILINE
    )
    assert kept == set(" ".join(copied).split())


# ---- the jail of the container, wherever it is run -----------------------------------------------


def host_configs() -> Iterator[tuple[str, Any, str, int]]:
    for name in DEPLOYMENTS:
        made = options(desired(name)["modules"][AGENT]["settings"])
        yield name, made["HostConfig"], made["User"], made["StopTimeout"]


@pytest.mark.parametrize(("name", "host", "user", "stop_s"), list(host_configs()))
def test_an_edge_module_has_no_rights_it_does_not_need(name, host, user, stop_s):
    assert user == "10001:10001"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Memory"] == host["MemorySwap"]
    assert host["LogConfig"]["Config"].keys() == {"max-size", "max-file"}
    assert host["PidsLimit"] == 128
    assert stop_s == 20
    for bindings in host["PortBindings"].values():
        assert [binding["HostIp"] for binding in bindings] == ["127.0.0.1"]
    writable = [bind for bind in host["Binds"] if not bind.endswith(":ro")]
    assert writable == ["edge-agent-data:/data"]


def test_the_gpu_is_asked_for_where_it_is_wanted_and_nowhere_else():
    asked = {name: host.get("DeviceRequests") for name, host, _, _ in host_configs()}
    want = [{"Count": -1, "Capabilities": [["gpu"]]}]
    assert asked == {name: want if "gpu" in name else None for name in DEPLOYMENTS}


def test_compose_and_kubernetes_give_the_same_rights():
    compose = documents("compose/compose.yaml")[0]["services"]["edge-agent"]
    assert (compose["user"], compose["read_only"], compose["cap_drop"]) == (
        "10001:10001",
        True,
        ["ALL"],
    )
    assert compose["ports"] == ["127.0.0.1:8080:8080"]
    for pod, _ in pods():
        container = pod["containers"][0]["securityContext"]
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        assert container["readOnlyRootFilesystem"] is True
        assert container["allowPrivilegeEscalation"] is False
        assert container["capabilities"] == {"drop": ["ALL"]}


def pods() -> Iterator[tuple[Any, set[str]]]:
    """Each pod, and the volumes that it gets."""
    for path in sorted((FOLDER / "kubernetes").glob("*.yaml")):
        for found in documents(f"kubernetes/{path.name}"):
            if found["kind"] in ("Deployment", "StatefulSet"):
                spec = found["spec"]
                claims = {c["metadata"]["name"] for c in spec.get("volumeClaimTemplates", ())}
                pod = spec["template"]["spec"]
                yield pod, {volume["name"] for volume in pod["volumes"]} | claims


def test_every_volume_that_kubernetes_mounts_is_there():
    assert len(list(pods())) == 2
    for pod, volumes in pods():
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == volumes


def test_those_that_share_a_stream_come_back_under_their_own_name_with_their_own_store():
    env = pod_environment("scale-out.yaml", "StatefulSet")
    config = load(None, env)
    assert config.stream[0].is_shared
    assert config.stream[0].qos == 1
    assert config.mqtt.version == 5
    assert config.device.id == "edge-agent-group-0"
    group = documents("kubernetes/scale-out.yaml")[-1]["spec"]
    assert group["replicas"] == 3
    assert group["volumeClaimTemplates"][0]["metadata"]["name"] == "data"
    kept = group["persistentVolumeClaimRetentionPolicy"]
    assert kept == {"whenDeleted": "Retain", "whenScaled": "Retain"}


# ---- Azure IoT Edge ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_create_options_come_in_pieces_that_the_runtime_takes(name):
    template = desired("deployment.template.json")
    for group in ("systemModules", "modules"):
        for module, entry in desired(name)[group].items():
            made = entry["settings"]
            assert all(len(v) <= OPTION_CHARS_MAX for k, v in made.items() if k != "image")
            asked = template[group][module]["settings"]["createOptions"]
            if "gpu" not in name:
                assert options(made) == asked


def test_the_pieces_are_numbered_from_the_second_on():
    made = desired("deployment.amd64.json")["modules"][AGENT]["settings"]
    assert list(made)[:3] == ["image", "createOptions", "createOptions01"]


@pytest.mark.parametrize(
    ("name", "platform"), list(zip(DEPLOYMENTS, ("amd64", "amd64-cuda", "arm64v8"), strict=True))
)
def test_a_deployment_runs_the_image_of_this_version_and_platform(name, platform):
    image = desired(name)["modules"][AGENT]["settings"]["image"]
    assert image.endswith(f"/edge-model-agent:{agent.__version__}-{platform}")


def complaints(schemas: Path, schema: str, instance: Any) -> list[str]:
    """What a published schema has against `instance`; schemas refer to each other by file name."""
    texts = {
        path.name: json.loads(path.read_text(encoding="utf-8")) for path in schemas.glob("*.json")
    }
    registry: Any = Registry().with_resources(
        (f"https://json.schemastore.org/{name}", Resource(text, DRAFT4))
        for name, text in texts.items()
    )
    errors = Draft4Validator(texts[schema], registry=registry).iter_errors(instance)
    return [f"{error.json_path}: {error.message}" for error in errors]


def test_the_template_fits_its_published_schema(shared_data):
    template = document("deployment.template.json")
    name = "azure-iot-edge-deployment-template-4.0.json"
    assert complaints(shared_data / "schemas", name, template) == []


def complaints_of_deployment(schemas: Path, whole: Any) -> list[str]:
    content = whole["modulesContent"]
    found = complaints(schemas, "azure-iot-edge-deployment-2.0.json", whole)
    for part in ("edgeAgent", "edgeHub"):
        schema = f"azure-iot-{part.lower()}-deployment-1.1.json"
        found += complaints(schemas, schema, {f"${part}": content[f"${part}"]})
    return found


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_deployments_fit_their_published_schemas(name, shared_data):
    assert complaints_of_deployment(shared_data / "schemas", document(name)) == []


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_layer_fits_every_deployment_it_can_lie_on(name, shared_data):
    """Alone it has no schema: IoT Hub checks what comes out."""
    assert complaints_of_deployment(shared_data / "schemas", layered(name)) == []


def test_the_layer_wishes_for_a_model_on_a_stream_that_is_there():
    content = layered(DEPLOYMENTS[0])["modulesContent"]
    wish = desired_document(content[AGENT]["properties.desired"])
    config = load(None, SETTINGS["deployment.layered.json"])
    models = parse_desired(wish).models
    assert {model.stream for model in models.values()} <= {s.name for s in config.stream}
    assert list(models) == ["pump-anomaly"]


@pytest.mark.parametrize(
    ("what", "where", "value"),
    [
        ("restartPolicy", ("$edgeAgent", "modules", AGENT), "sometimes"),
        ("startupOrder", ("$edgeAgent", "modules", AGENT), -1),
        ("priority", ("$edgeHub", "routes", "events"), 10),
        ("timeToLiveSecs", ("$edgeHub", "routes", "scores"), "a day"),
    ],
)
def test_a_broken_deployment_fails(what, where, value, shared_data):
    broken = document("deployment.amd64.json")
    inner = broken["modulesContent"][where[0]]["properties.desired"]
    for part in where[1:]:
        inner = inner[part]
    assert what in inner
    inner[what] = value
    assert complaints_of_deployment(shared_data / "schemas", broken)


ROUTE = re.compile(
    r"FROM /messages/modules/(?P<source>[\w-]+)/outputs/(?P<output>[\w*]+)"
    r"(?: WHERE .+)? INTO (?:\$upstream|"
    r'BrokeredEndpoint\("/modules/(?P<sink>[\w-]+)/inputs/(?P<input>[\w-]+)"\))'
)


@pytest.mark.parametrize("name", [*DEPLOYMENTS, "deployment.layered.json"])
def test_every_route_lives_for_a_while_and_leads_to_or_from_what_the_agent_has(name):
    whole = layered(DEPLOYMENTS[0]) if "layered" in name else document(name)
    inputs = {s.topic for s in load(None, SETTINGS[name]).stream if s.source == "input"}
    routes = whole["modulesContent"]["$edgeHub"]["properties.desired"]["routes"]
    assert {"sensorsToAgent", "events", "scores"} <= routes.keys()
    for route in routes.values():
        assert route["priority"] in range(10)
        assert route["timeToLiveSecs"] >= 3600
        found = ROUTE.fullmatch(route["route"])
        assert found, route["route"]
        if found["source"] == AGENT:
            assert found["output"] in ("scores", "events")
        if found["sink"] == AGENT:
            assert found["input"] in inputs
    assert routes["events"]["priority"] < routes["scores"]["priority"]


# ---- AWS IoT Greengrass --------------------------------------------------------------------------


def test_the_recipe_has_a_manifest_for_each_architecture_that_fetches_what_it_runs():
    manifests = documents("greengrass/recipe.yaml")[0]["Manifests"]
    assert [m["Platform"]["architecture"] for m in manifests] == ["amd64", "aarch64"]
    for manifest in manifests:
        image = manifest["Artifacts"][0]["URI"].removeprefix("docker:")
        assert f" {image} " in manifest["Lifecycle"]["Run"]
        assert f":{agent.__version__}-" in image
