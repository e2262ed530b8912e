"""Whether this device can have a version, asked in the order of a rollout."""

import asyncio
import hashlib

import pytest

from agent.core.errors import MisfitError, UnfitError
from agent.core.fitting import DropFirst, Need, Overlap
from agent.core.names import Digest, ModelRef
from agent.core.packages import FileEntry, Package, digest_of
from agent.core.streams import StreamSpec
from agent.core.survey import FieldSeen, Seen
from agent.ports import Memory
from agent.runtime.assessing import Assessor, manifest_first
from tests.world.memory import FolderStore
from tests.world.scripted import ScriptedEngine

MB = 2**20
MANIFEST = b'name = "m"\n[features]\nnames = ["temp"]\n[output]\nscore = {tensor = "y"}\n'


class Box:
    """The `Machine` port: as much memory as a test says."""

    def __init__(self, limit_mb=512, free_mb=400):
        self.limit_mb, self.free_mb = limit_mb, free_mb

    def memory(self):
        return Memory(self.limit_mb * MB, self.free_mb * MB, "a box")

    def architecture(self):
        return "x86_64"


@pytest.fixture
def engine():
    made = ScriptedEngine()
    yield made
    made.close()


def package(raw=MANIFEST, **custom):
    def entry(path, body):
        return FileEntry(path, len(body), Digest(f"sha256:{hashlib.sha256(body).hexdigest()}"))

    files = (
        entry("golden.npz", b"12"),
        entry("model.onnx", b"1" * 999),
        entry("model.toml", raw),
    )
    return Package(ModelRef("m", 1, digest_of("m", files)), "1", files, custom=custom)


def fetched(made, raw=MANIFEST):
    """A store in which the manifest has come, and nothing else."""
    store = FolderStore()
    store.partial(made, made.files[2]).write(0, raw)
    return store


async def look(**fields):
    spec = StreamSpec(name="pump", format="json", fields={})
    found = {path: FieldSeen(values, 1.0, 0.0) for path, values in fields.items()}
    return Seen(spec, 100, 100, found)


def test_the_manifest_is_fetched_first_and_the_weights_last():
    """[rollout-8.2]"""
    assert [f.path for f in manifest_first(package())] == [
        "model.toml", "golden.npz", "model.onnx",
    ]  # fmt: skip


def test_what_the_signed_metadata_demands_is_held_against_this_device(engine):
    """[rollout-8.1]"""
    assessor = Assessor(Box(), engine, called=["pump-controller"])
    asyncio.run(assessor.demands(package(hw=["pump-controller"], runtime={"memory_mb": 486})))
    with pytest.raises(MisfitError, match="for models at most"):
        asyncio.run(assessor.demands(package(runtime={"memory_mb": 487})))
    with pytest.raises(MisfitError, match="needs edge-agent ≥ 99"):
        asyncio.run(assessor.demands(package(min_agent="99")))


def test_a_stream_without_the_feature_is_refused_when_only_the_manifest_has_come(engine):
    """[rollout-8.2]"""
    made = package()
    assessor = Assessor(Box(), engine)
    with pytest.raises(MisfitError, match=r"^m:1 wants another stream: feature temp is on no"):
        asyncio.run(assessor.stream(made, fetched(made), lambda: look(vib=[1.0])))
    assert asyncio.run(assessor.stream(made, fetched(made), lambda: look(temp=[1.0]))) == ()


def test_a_manifest_that_is_none_is_a_verdict_and_one_that_is_missing_is_left_to_verifying(engine):
    assessor, made = Assessor(Box(), engine), package(b"name = ")
    with pytest.raises(UnfitError, match=r"model\.toml is not TOML"):
        asyncio.run(assessor.stream(made, fetched(made, b"name = "), look))
    assert asyncio.run(assessor.stream(made, FolderStore(), look)) == ()


@pytest.mark.parametrize(
    ("free_mb", "wish", "kind"),
    [(400, "roomy", Overlap), (200, "roomy", DropFirst), (400, "tight", DropFirst)],
)
def test_a_version_is_placed_by_what_is_free(engine, free_mb, wish, kind):
    """[rollout-9.1]"""

    async def main():
        assessor = Assessor(Box(free_mb=free_mb), engine)
        need = Need(stated_mb=250)
        ref = package().ref
        async with assessor.placed(ref, need, wish, active_bytes=200 * MB) as decided:
            assert isinstance(decided, kind)

    asyncio.run(main())


def test_what_does_not_fit_is_a_misfit_with_the_numbers(engine):
    """[rollout-9.2]"""

    async def main():
        assessor = Assessor(Box(free_mb=100), engine)
        async with assessor.placed(package().ref, Need(stated_mb=250), "roomy", active_bytes=None):
            pytest.fail("it was placed")

    with pytest.raises(MisfitError, match=r"^m:1 does not fit this device: it needs 250 MB of mem"):
        asyncio.run(main())


def test_two_versions_are_not_promised_the_same_memory(engine):
    """[rollout-9.1]"""
    box = Box(free_mb=300)

    async def load(assessor):
        async with assessor.placed(package().ref, Need(stated_mb=200), "roomy", active_bytes=None):
            await asyncio.to_thread(int)  # the other one asks meanwhile
            box.free_mb -= 200

    async def main():
        assessor = Assessor(box, engine)
        return await asyncio.gather(load(assessor), load(assessor), return_exceptions=True)

    first, second = asyncio.run(main())
    assert first is None
    assert isinstance(second, MisfitError)
