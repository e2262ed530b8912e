"""Both images: what is in them and what is not, and the agent inside scores a stream and swaps.

`make images` builds them and runs this; it prints the figures that docs/limits.md has.
"""

import json
import re
import stat
import time

import pytest

import agent
from tests.images.container import USER, Container, Image
from tests.world import zoo
from tests.world.site import Site
from tests.world.stream import Stream, accounted, reading
from tests.world.waiting import eventually

PATIENCE_S = {"amd64": 30, "arm64": 240}  # arm64 runs under emulation, many times slower
RATE = 100.0  # readings per second
TOOLS = re.compile(r"(pip[0-9.]*|g?cc|[gc]\+\+|clang|ld|make|curl|wget|git|ssh|sudo)")
pytestmark = pytest.mark.timeout(900)  # a foreign architecture is emulated
CLEAN = {"lost": 0, "repeated": 0, "disordered": 0}


@pytest.fixture(scope="module", params=["amd64", "arm64v8", "amd64-openvino", "amd64-cuda"])
def image(request):
    made = Image(request.param)
    yield made
    made.close()


class Boxed(Site):
    """A plant whose agent is in a container; broker, sensors and consumer are outside."""

    def __init__(self, image, broker, folder):
        super().__init__(broker, folder, repository="file:///mnt", mqtt={"url": broker.url})
        self.settings["repository"] = {"root_file": "/mnt/root.json"}
        self.settings["store"] = {"dir": "/data"}
        self.settings["engine"] = {"start_s_max": 120, "run_s_max": 60}
        self.image, self.box = image, None

    def start(self, *, ready=False):
        port = self.http.rpartition(":")[2]
        self.box = Container(
            self.image,
            self.folder,
            data=self.folder / "data",
            mounts={"/mnt": self.folder / "repo", "/etc/edge-agent/agent.toml": self.config()},
            env={"EDGE_AGENT__HTTP__BIND": f"0.0.0.0:{port}"},
        )
        if ready:
            self.ready()
        return self

    def stop(self):
        box, self.box = self.box, None
        return box.stop() if box else None

    def log(self):
        return self.box.log.read_text(errors="replace")

    def state(self):
        token = self.folder / "data" / "http-token"
        if token.is_file():
            self._pool.headers["Authorization"] = f"Bearer {token.read_text().strip()}"
        return super().state()


def test_an_image_says_who_made_it_and_how_it_is_to_be_run(image):
    config = image.config
    assert image.architecture in ("amd64", "arm64")
    assert config["User"] == f"{USER}:{USER}"
    assert list(config["Volumes"]) == ["/data"]
    assert config["Healthcheck"]["Test"] == ["CMD", "edge-agent", "health"]
    assert (config["Entrypoint"], config["Cmd"]) == (["edge-agent"], ["run"])
    labels = {
        key.removeprefix("org.opencontainers.image."): value
        for key, value in config["Labels"].items()
        if key.startswith("org.opencontainers.image.")
    }
    assert labels["version"] == agent.__version__
    assert labels.keys() >= {"title", "description", "licenses", "revision", "created"}
    assert re.fullmatch(r"[0-9a-f]{40}", labels["revision"])


def test_an_image_has_no_tool_to_build_or_fetch_with_and_nothing_runs_as_another_user(image):
    programs, risen, writable = [], [], []
    for path in image.root.rglob("*"):
        found, inside = path.lstat(), "/" + str(path.relative_to(image.root))
        if path.parent.name in ("bin", "sbin") and TOOLS.fullmatch(path.name):
            programs.append(inside)
        if stat.S_ISREG(found.st_mode) and found.st_mode & (stat.S_ISUID | stat.S_ISGID):
            risen.append(inside)
        is_open = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
        is_stored = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
        if found.st_uid == USER or (is_open and is_stored):
            writable.append(inside)
    assert (programs, risen, writable) == ([], [], ["/data"])
    packages = {
        path.name for path in image.root.glob("opt/edge-agent/lib/python3*/site-packages/*")
    }
    assert "onnxruntime" in packages
    assert not {"pip", "setuptools", "hatchling"} & packages


def test_an_image_lists_what_is_in_it(image):
    bill = json.loads((image.root / "usr/share/sbom/edge-model-agent.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["version"] == agent.__version__
    listed = {part["purl"].split("@")[0] for part in bill["components"]}
    assert {"pkg:pypi/tuf", "pkg:deb/debian/libc6"} <= listed
    assert sum(name.startswith("pkg:pypi/onnxruntime") for name in listed) == 1
    installed = image.root.glob("opt/edge-agent/lib/python3*/site-packages/*.dist-info")
    wheels = sum(1 for part in bill["components"] if part["purl"].startswith("pkg:pypi/"))
    assert wheels + 1 == len(list(installed))


def test_no_secret_of_the_build_is_left(image):
    left = [
        str(path)
        for name in ("pip.conf", "ca.crt", "pip")
        for path in image.root.rglob(name)
        if "dist-packages" not in path.parts
    ]
    assert left == []


def test_the_agent_inside_scores_a_stream_and_swaps(image, broker, tmp_path):
    """User 10001, a read-only root, and a Mosquitto outside."""
    patience = PATIENCE_S[image.architecture]
    with Boxed(image, broker, tmp_path) as site:
        began = time.monotonic()
        site.start()
        eventually(site.state, patience, "an answer")
        answered = time.monotonic() - began
        first = site.deploy(zoo.mlp(tmp_path / "v1", name="m"), seconds=patience)
        with Stream(broker.port, RATE) as stream:
            site.scored("m", 100, patience)
            assert site.box.execute("edge-agent", "health")[0] == 0
            second = site.deploy(
                zoo.mlp(tmp_path / "v2", bias=1.0, name="m"),
                seconds=patience,
                rollout={"probation": {"windows": 0, "time": "1s"}},
            )
            sent = stream.stop()
        books = site.scored("m", sent, patience)
        assert accounted(books, sent) == CLEAN
        assert {row[3] for row in books.rows.values()} == {first, second}
        about = site.state()["agent"]
        assert site.box.execute("touch", "/opt/x")[0] != 0
        assert site.box.execute("id", "-u")[1].strip() == str(USER)
        site.stop()
        began = time.monotonic()
        site.start()
        site.publish("plant/p0", reading(sent))
        site.scored("m", sent + 1, patience)
        scoring = time.monotonic() - began
        assert site.stop() == 0
    print(
        f"\n{image.architecture}: {image.size() / 1e6:.0f} MB; answers after {answered:.1f} s, "
        f"scores again {scoring:.1f} s after a start; {about['rss_mb']} MB resident; "
        f"jail {about['jail']}"
    )
