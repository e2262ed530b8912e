"""Models made to do harm, and good ones with a mistake, against a real worker and a real agent.

pytest tests/faults/test_hostile_models.py -m soak -s     all 500, about a quarter of an hour
"""

import itertools
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.adapters.files.durable import sha256_of
from agent.adapters.onnx import InlineEngine
from agent.adapters.processes import Limits, ProcessEngine
from agent.core import preflight
from agent.core.errors import MisfitError, UnfitError
from agent.core.manifest import parse
from agent.core.names import ModelRef
from agent.core.packages import FileEntry, digest_of
from agent.ports import Engine
from tests.bench.stand import SCORES, Child, child, quiet_broker
from tests.world import careless, mutations, zoo
from tests.world.broker import Broker
from tests.world.hostile_models import HOSTILE, good, signable
from tests.world.pack import reference
from tests.world.site import Site
from tests.world.waiting import eventually

LIMITS = Limits(load_s=30.0, run_s=1.0, memory_bytes=600 * 2**20)
FEW, MANY = 24, 500
ROWS = 256
RATE = 500  # readings a second
QUIET_S = 1.0  # of a lap without: about as long as one of them takes, so that p99s compare
LAP = 5  # how many are tried after one
RATIO_MAX = 1.2
# What a device runs in its own process it can only look at: these would have to be run.
RUN = ("hangs", "grows", "huge, by its input", "huge, by a constant")


def proven(engine: Engine, folder: Path) -> np.ndarray:
    """What the agent does with a candidate; its scores for fresh inputs."""
    manifest = parse((folder / "model.toml").read_bytes())
    plain = [path for path in folder.iterdir() if not path.is_symlink()]
    files = [FileEntry(p.name, p.stat().st_size, sha256_of(p)) for p in plain]
    ref = ModelRef("m", 1, digest_of("m", files))
    session = engine.load(ref, folder, manifest, background=True)
    try:
        result = session.golden()
        if not result.ok:
            raise (MisfitError if result.blame == "misfit" else UnfitError)(result.why)
        preflight.check(ref, manifest.runtime, session.measure())
    finally:
        session.close()
    feed = mutations.fresh(folder, ROWS, seed=99)
    answers = reference(folder / "model.onnx", feed)
    return answers[manifest.output.score.tensor]


def sentence(error: Exception) -> str:
    """The refusal, which has to be fit for people."""
    why = str(error)
    assert why
    assert "\n" not in why
    assert "onnxruntime_src" not in why
    assert len(why) < 600
    return why


@pytest.mark.parametrize("kind", ["process", "inline"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_is_refused_and_its_refusal_names_the_reason(
    tmp_path: Path, name: str, kind: str
) -> None:
    """[jail-4.1]"""
    if kind == "inline" and name in RUN:
        pytest.skip("would have to be run in this process")
    make, words = HOSTILE[name]
    engine: Engine = InlineEngine() if kind == "inline" else ProcessEngine(LIMITS)
    with pytest.raises((UnfitError, MisfitError)) as caught:
        proven(engine, make(tmp_path / "m", name="m"))
    assert words in sentence(caught.value)


@pytest.mark.parametrize(
    "engine", [ProcessEngine(LIMITS), InlineEngine()], ids=["process", "inline"]
)
def test_the_good_one_among_them_passes(tmp_path: Path, engine: Engine) -> None:
    assert len(HOSTILE) == 19
    proven(engine, good(tmp_path / "good", name="m"))


@pytest.mark.parametrize("number", [FEW, pytest.param(MANY, marks=pytest.mark.soak)])
def test_a_good_model_with_a_mistake_is_refused_or_as_good_as_before(
    tmp_path: Path, number: int
) -> None:
    """[jail-4.2]"""
    engine = ProcessEngine(LIMITS)
    tally: Counter[str] = Counter()
    unseen = []
    for seed, good_one in zip(range(number), goods(tmp_path), strict=False):
        what = mutations.mutant(seed, good_one, folder := tmp_path / f"mutant-{seed}")
        try:
            scores = proven(engine, folder)
        except (UnfitError, MisfitError) as error:
            tally[type(error).__name__] += 1
            sentence(error)
            continue
        want = reference(good_one / "model.onnx", mutations.fresh(good_one, ROWS, seed=99))
        score = parse((good_one / "model.toml").read_bytes()).output.score.tensor
        if np.allclose(scores, want[score], rtol=1e-2, atol=1e-3):
            tally["harmless"] += 1
        else:
            unseen.append(f"{what} {np.abs(scores - want[score]).max():.3g}")
    print(f"\n{number} mutations: {dict(tally)}; told apart by no golden sample: {unseen}")
    assert tally.total() + len(unseen) == number
    assert len(unseen) <= number // 100


def goods(folder: Path) -> Iterator[Path]:
    """The good ones, again and again."""
    kinds = range(len(mutations.GOOD))
    made = [mutations.good(k, folder / mutations.GOOD[k].__name__, name="m") for k in kinds]
    return itertools.cycle(made)


# ---- deployed, signed, under a live stream -------------------------------------------------------


class Line:
    """An agent that scores a live stream, and a sink beside its consumer that times the scores."""

    def __init__(self, site: Site, sink: Child, folder: Path) -> None:
        self.site, self._sink, self._folder = site, sink, folder
        self.good = site.deploy(zoo.mlp(folder / "good", name="m"))
        self.allowed = {self.good}
        self.quiet: list[float] = []  # p99 in ms, of laps in which nothing is deployed
        self.refused: list[float] = []  # … in which one is, and is turned away
        self.swapped: list[float] = []  # … and goes live

    def try_on(self, folders: Sequence[Path]) -> list[str]:
        """Deploy what lies in each, signed as it is; why it was refused, or "" where it serves."""
        made = [careless.publish(self.site._repo.folder, folder) for folder in folders]
        os.sync()  # what a publisher writes, a device does not
        self._lap()
        self._looked_on()
        self.quiet.append(self._lap())
        whys = []
        for package in made:
            whys.append(self._deployed(package.ref))
            (self.refused if whys[-1] else self.swapped).append(self._lap())
        return whys

    def ratio(self) -> float:
        """The stream's p99 while one is refused ÷ before: of the median lap of each kind, for on a
        machine with other work one lap says little.
        """
        return statistics.median(self.refused) / statistics.median(self.quiet)

    def _deployed(self, ref: ModelRef) -> str:
        """Told by the device, not asked of it: to answer takes time, and nobody asks in a lap in
        which nothing is deployed.
        """
        self.site.desire("m", ref.release)

        def over() -> dict[str, Any] | None:
            model = self.site.reported["models"]["m"]
            if model["phase"] != "steady":
                return None
            serves = (model["active"] or {}).get("release") == ref.release
            return model if serves or str(ref) in model["why"] else None

        model = eventually(over, 60, f"{ref} settled")
        if model["active"]["release"] == ref.release:
            self.allowed.add(ref.release)
            return ""
        assert model["active"]["release"] in self.allowed
        assert model["known_good"]["release"] in self.allowed
        return str(model["why"])

    def _looked_on(self) -> None:
        """Nothing is deployed, and looked at as it is while something is."""
        until = time.monotonic() + QUIET_S
        eventually(
            lambda: time.monotonic() > until and self.site.reported["models"]["m"], 2 * QUIET_S
        )

    def _lap(self) -> float:
        """p99 of the ages of the scores since the last lap."""
        self._sink.say(1)
        return float(json.loads(self._sink.line())["p99"])


@contextmanager
def line(folder: Path) -> Iterator[Line]:
    engine = {"run_s_max": 1.0, "load_s_max": 30.0}
    with (
        quiet_broker() as broker,
        child("sink", broker.url, SCORES) as sink,
        Site(broker, folder, engine=engine) as site,
        child("sensors", broker.url, 1, RATE, RATE * 3600) as sensors,
    ):
        site.start()
        under = Line(site, sink, folder)
        sensors.say()
        site.scored("m", 2 * RATE, 30)
        yield under
        with site._lock:
            rows = dict(site.books["m"].rows)
        assert {row[3] for row in rows.values()} <= under.allowed, "a refused version scored"
        assert sorted(rows) == list(range(len(rows))), "seq has a gap"


FAST = ("weights anywhere", "grows", "hangs", "garbage")
MEMORY = {"runtime": {"memory_mb": 64}}


@pytest.mark.parametrize(
    ("names", "mutants"),
    [(FAST, 3), pytest.param(tuple(HOSTILE), MANY, marks=pytest.mark.soak)],
    ids=["some", "all"],
)
def test_none_of_them_reaches_the_live_slot_or_disturbs_the_stream(
    tmp_path: Path, names: Sequence[str], mutants: int
) -> None:
    """[jail-4.3]"""
    tally: Counter[str] = Counter()
    with line(tmp_path) as under:
        left = iter(enumerate(names))
        while some := list(itertools.islice(left, LAP)):
            places = [tmp_path / f"hostile-{number}" for number, _ in some]
            made = [
                signable(HOSTILE[name][0](place, name="m", **MEMORY))
                for (_, name), place in zip(some, places, strict=True)
            ]
            for (_, name), why in zip(some, under.try_on(made), strict=True):
                assert HOSTILE[name][1] in why
                tally["hostile, refused"] += 1
        told = f"p99 with hostile ones ÷ before: {under.ratio():.2f}"
        seeds = zip(range(mutants), goods(tmp_path), strict=False)
        while mutants_of := list(itertools.islice(seeds, LAP)):
            places = [tmp_path / f"mutant-{seed}" for seed, _ in mutants_of]
            for (seed, good_one), place in zip(mutants_of, places, strict=True):
                mutations.mutant(seed, good_one, place)
            for why in under.try_on(places):
                tally["mutant, refused" if why else "mutant, harmless"] += 1
        refusals = [event for event in under.site.events if event["type"] == "refusal"]
        laps = {"before": under.quiet, "refused": under.refused, "live": under.swapped or [0.0]}
        figures = {kind: f"{statistics.median(p99s):.1f} ms" for kind, p99s in laps.items()}
    print(f"\n{dict(tally)}; {told}, with all: {under.ratio():.2f}; medians of laps: {figures}")
    assert tally["hostile, refused"] == len(names)
    assert len(refusals) >= tally["hostile, refused"] + tally["mutant, refused"]
    if mutants == MANY:
        assert under.ratio() <= RATIO_MAX


def test_a_byte_changed_on_the_device_is_never_loaded_and_is_fetched_anew(
    tmp_path: Path, broker: Broker
) -> None:
    """[jail-1.1]"""
    with Site(broker, tmp_path) as site:
        site.start().deploy(zoo.mlp(tmp_path / "good", name="m"))
        site.stop()
        (path,) = (tmp_path / "store").glob("models/sha256/*/model.onnx")
        whole = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        site.start(ready=True)
        assert site.log().count("store.adopted") == 2
        assert path.read_bytes() == whole
        assert not site.model("m")["quarantined"]
