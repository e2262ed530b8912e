"""Bad packages, signed and sent like good ones, while a good version scores a live stream.

After each of them the good version is still active and the known good, its stream has no gap, and
one sentence says what is wrong: in /state, in `reported` and as an event.  One agent takes them
all, one after the other, as a device in the field would.
"""

import itertools
import platform
import threading
import time

import onnx
import pytest

from agent.core.errors import UnfitError
from agent.repository import publishing
from agent.repository.layout import Repository
from agent.repository.signed import SignedPublisher
from tests.world import careless, wild, zoo
from tests.world.broker import Broker
from tests.world.site import Site
from tests.world.waiting import eventually

EVERY_S = 0.01  # a reading
WATCHED = {"probation": {"time": "60s"}}  # as long as it takes the bad value to come


class Plant:
    """A site whose sensor never stops, and whose good version is deployed."""

    def __init__(self, site, folder):
        self.site, self.folder = site, folder
        self.sent = 0
        self.good = site.deploy(zoo.mlp(folder / "good", features=1, name="m"))
        self._next = None  # what the next reading shall say
        self._names = itertools.count()
        self._stopping = threading.Event()
        self._sensor = threading.Thread(target=self._measure, name="sensor")
        self._sensor.start()

    @property
    def repository(self):
        return self.site._repo.folder

    def stop(self):
        self._stopping.set()
        self._sensor.join()

    def place(self):
        """A folder for the next package."""
        return self.folder / f"package-{next(self._names)}"

    def say(self, value):
        """The next reading has this value."""
        self._next = value
        eventually(lambda: self._next is None, 5)

    def wish(self, package, rollout=None):
        """Publish a package unseen, desire it and return it."""
        made = careless.publish(self.repository, package)
        self.site.desire("m", made.ref.release, rollout=rollout)
        return made

    def settled(self, package, seconds=40):
        """The model's part of /state, once the rollout of `package` has come to its end."""

        def over():
            model = self.site.model("m")
            done = model.get("phase") == "steady" and str(package.ref) in model["why"]
            return model if done else None

        return eventually(over, seconds, f"{package.ref} settled; {self.site.model('m')}")

    def waits(self, words, seconds=20):
        """The model's part of /state, once it says that it waits, and for what."""

        def waiting():
            model = self.site.model("m")
            return model if words in (model.get("why") or "") else None

        return eventually(waiting, seconds, f"{words!r}; {self.site.model('m')}")

    def unharmed(self, model):
        """The good version scores what comes, and nothing that came is missing."""
        assert model["active"]["release"] == model["known_good"]["release"] == self.good
        sent = self.sent
        books = self.site.scored("m", sent, 10)
        with self.site._lock:
            rows = dict(books.rows)
        assert sorted(rows) == list(range(len(rows))), "seq has a gap"
        eventually(lambda: books.rows[max(books.rows)][3] == self.good, 5, "the good one scores")

    def replaced(self, package):
        """`package` is good after all and serves from now on."""
        self.site.committed("m", package.ref.release, 40)
        self.good = package.ref.release
        self.unharmed(self.site.model("m"))

    def on_trial(self, package):
        """Wish for a package that is good until it sees the wrong value; it has the stream now."""
        made = self.wish(package, rollout=WATCHED)
        on_trial = lambda: self.site.model("m").get("phase") == "probation"  # noqa: E731
        eventually(on_trial, 20, f"{made.ref} on trial; {self.site.model('m')}")
        return made

    def told(self, model, package, words, kind):
        """`why` in /state, `reported` and one event say the same, in one sentence."""
        why = model["why"]
        assert words in why
        assert why.startswith(f"{package.ref} ")
        assert "\n" not in why
        assert len(why) < 600
        reported = lambda: self.site.reported["models"]["m"]["why"]  # noqa: E731
        eventually(lambda: reported() == why, 10, f"reported: {why}")
        told = lambda: [e for e in self.site.events if str(package.ref) in e["why"]]  # noqa: E731
        (event,) = eventually(told, 10, "an event")
        assert (event["type"], event["model"]) == (kind, "m")
        assert words in event["why"]

    def _measure(self):
        for n in itertools.count():
            if self._stopping.wait(EVERY_S):
                return
            value, self._next = self._next, None
            value = n % 19 / 10 - 0.9 if value is None else value
            document = {"ts": time.time(), **{f"f{i}": value for i in range(8)}}
            self.site.readings([document])
            self.sent += 1


@pytest.fixture(scope="module")
def plant(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plant")
    engine = {"run_s_max": 1.0, "load_s_max": 30.0}
    with Broker() as broker, Site(broker, folder, engine=engine) as site:
        plant = Plant(site.start(), folder)
        yield plant
        plant.stop()
        sent = plant.sent
        assert site.scored("m", sent).check() == sent, "not every reading has one score"


def without(name, make):
    """`make`, and then one file of the package is not published."""

    def maker(folder, **members):
        make(folder, **members)
        (folder / name).unlink()
        return folder

    return maker


def misspelt(folder, **members):
    """An author's typo in the manifest."""
    zoo.mlp(folder, **members)
    path = folder / "model.toml"
    path.write_text(path.read_text().replace("[features]", "[fetaures]"))
    return folder


def no_toml(folder, **members):
    """A manifest that is not TOML."""
    zoo.mlp(folder, **members)
    (folder / "model.toml").write_text("name = 'm'\n[features\n")
    return folder


def weights_elsewhere(folder, **members):
    """Its weights are to be read from outside of the package."""
    zoo.external(folder, **members)
    path = folder / "model.onnx"
    made = onnx.load(path, load_external_data=False)
    for weight in made.graph.initializer:
        for entry in weight.external_data:
            if entry.key == "location":
                entry.value = "../../../../../../etc/passwd"
    path.write_bytes(made.SerializeToString())
    return folder


CASES = {
    "unknown op": (wild.unknown_op, {}, "node type Foo does not exist"),
    "unknown opset": (wild.new_opset, {}, "opset 28 of ai.onnx needs a newer onnxruntime"),
    "unknown domain": (wild.unknown_domain, {}, "my.ops, a library of custom operators"),
    "hungry": (wild.hungry, {}, "wants the input z that the manifest does not feed"),
    "wrong output": (
        zoo.mlp,
        {"output": {"score": {"tensor": "nope"}}},
        "the manifest names the output nope; the model has y",
    ),
    "wrong input": (
        zoo.mlp,
        {"input": {"q": {"features": ["f0"]}}},
        "the manifest feeds q, which the model lacks; it has x",
    ),
    "golden mismatch": (wild.wrong_golden, {}, "golden sample 3 of y is 0.0189075, wanted 0.51890"),
    "NaN always": (wild.nan_always, {}, "golden sample 0 of y is nan, wanted 0"),
    "crash at load": (wild.crash_at_load, {}, "was killed by SIGSEGV while loading"),
    "hang": (wild.hang, {}, "the golden samples did not end within 2 s"),
    "huge": (wild.huge, {"runtime": {"memory_mb": 64}}, "memory"),
    "grows": (wild.grows, {"runtime": {"memory_mb": 64}}, "the golden samples"),
    "truncated": (wild.truncated, {}, "truncated"),
    "zipmap": (wild.zipmap, {}, "zipmap=False"),
    "own format": (wild.ort_format, {}, "onnxruntime's own format"),
    "typo": (misspelt, {}, "fetaures"),
    "no TOML": (no_toml, {}, "model.toml"),
    "no manifest": (without("model.toml", zoo.mlp), {}, "has no model.toml"),
    "no model": (without("model.onnx", zoo.mlp), {}, "no model.onnx"),
    "no golden": (without("golden.npz", zoo.mlp), {}, "golden.npz"),
    "no weights": (without("weights.bin", zoo.external), {}, "weights.bin"),
    "weights elsewhere": (weights_elsewhere, {}, "weights"),
    "another name": (zoo.mlp, {"name": "other"}, "model.toml is of other, not of m"),
    "no such provider": (
        zoo.mlp,
        {"runtime": {"providers": ["cuda"], "require": "cuda"}},
        "cuda",
    ),
}
MISFITS = ("unknown opset", "no such provider", "huge")
EITHER = ("grows",)  # past its memory, or past its time: whichever comes first


@pytest.mark.parametrize("case", CASES)
def test_a_package_that_cannot_serve_is_refused_in_a_sentence(plant, case):
    """[versions-1.1] [versions-1.2] [versions-1.3] [versions-2.1]"""
    make, members, words = CASES[case]
    package = plant.wish(make(plant.place(), **{"name": "m"} | members))
    model = plant.settled(package)
    plant.unharmed(model)
    plant.told(model, package, words, "refusal")
    fits = package.ref.digest in model["quarantined"] if case in EITHER else case not in MISFITS
    assert model["state"] == ("Healthy" if fits else "Unschedulable")
    assert (package.ref.digest in model["quarantined"]) == fits


def test_bytes_that_are_not_those_that_were_signed_are_fetched_again_and_blamed_on_nobody(plant):
    package = careless.publish(
        plant.repository, zoo.mlp(plant.place(), features=1, bias=0.25, name="m")
    )
    blob = careless.blob(plant.repository, package, "model.onnx")
    whole = blob.read_bytes()
    blob.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    plant.site.desire("m", package.ref.release)
    model = plant.settled(package)
    plant.unharmed(model)
    words = "model.onnx of m:{} is not what was signed: its SHA-256 is wrong, 3 times"
    plant.told(model, package, words.format(package.ref.release), "refusal")
    assert model["state"] == "Healthy"
    assert package.ref.digest not in model["quarantined"]
    blob.write_bytes(whole)
    plant.site.command("retry", {"model": "m"})
    plant.replaced(package)


def test_a_file_that_the_repository_lacks_is_waited_for_across_a_restart_and_said(plant):
    package = careless.publish(
        plant.repository, zoo.mlp(plant.place(), features=1, bias=0.5, name="m")
    )
    blob = careless.blob(plant.repository, package, "model.onnx")
    aside = blob.rename(blob.with_suffix(".aside"))
    plant.site.desire("m", package.ref.release)
    model = plant.waits("lacks model.onnx")
    assert (model["state"], model["phase"]) == ("Transitioning", "fetching")
    plant.unharmed(model)
    said = lambda: "lacks model.onnx" in plant.site.reported["models"]["m"]["why"]  # noqa: E731
    eventually(said, 10)
    plant.site.stop()
    plant.site.start(ready=True)
    plant.unharmed(plant.waits("lacks model.onnx"))
    aside.rename(blob)
    plant.replaced(package)


def test_scores_that_become_nan_take_a_version_back(plant):
    package = plant.on_trial(wild.nan_above(plant.place(), threshold=100, name="m"))
    plant.say(200.0)
    model = plant.settled(package)
    plant.unharmed(model)
    plant.told(model, package, "the score is not a finite number", "rollback")
    assert model["state"] == "Healthy"
    assert package.ref.digest in model["quarantined"]


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="this division traps on x86 only"
)
def test_a_version_that_keeps_crashing_is_taken_back_and_its_batch_is_scored(plant):
    """[versions-2.2]"""
    package = plant.on_trial(wild.crash_on_minus_one(plant.place(), name="m"))
    plant.say(-1.0)
    model = plant.settled(package)
    plant.unharmed(model)
    plant.told(model, package, "was killed by SIGFPE", "rollback")
    assert "3 times" in model["why"]
    assert package.ref.digest in model["quarantined"]


def test_a_version_that_hangs_is_killed_taken_back_and_its_batch_is_scored(plant):
    """[versions-2.2]"""
    package = plant.on_trial(wild.hang_above(plant.place(), threshold=100, name="m"))
    plant.say(200.0)
    model = plant.settled(package)
    plant.unharmed(model)
    plant.told(model, package, "a run did not end", "rollback")
    assert package.ref.digest in model["quarantined"]


def test_links_do_not_travel_what_they_point_to_does_or_is_refused(plant):
    repo = Repository.open(plant.repository)
    with pytest.raises(UnfitError, match=r"model\.onnx is a symbolic link"):
        publishing.add(repo, wild.symlinked(plant.place(), name="m"), SignedPublisher())
    plant.replaced(plant.wish(wild.hard_linked(plant.place(), features=1, name="m")))
