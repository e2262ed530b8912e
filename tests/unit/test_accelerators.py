"""The table of providers, how `auto` chooses and remembers, and how a profile is read."""

import json
import re

import pytest

from agent.adapters.catalogue import catalogue, extensions
from agent.adapters.processes.choosing import DOCUMENT, Chooser, resolved
from agent.app import engines
from agent.config import Config
from agent.core.acceleration import Accelerators
from agent.core.accelerators import CPU, PROVIDERS, Placement, Trial, ranked
from agent.core.errors import MisfitError, UnavailableError, UnfitError
from agent.core.manifest import parse
from agent.core.names import Digest, ModelRef
from agent.core.preflight import Measures
from agent.ports import GoldenResult
from agent.worker import proof, providers
from agent.worker.making import compiled_in, not_there, session_options
from agent.worker.refusals import is_device
from tests.world.scripted import ScriptedSession

REF = ModelRef("m", 1, Digest(f"sha256:{'1' * 64}"))


# ---- the table -----------------------------------------------------------------------------------


def test_every_row_says_what_installs_it_and_only_the_known_are_named_beside_it():
    """[accelerators-1.1]"""
    names = [row.name for row in PROVIDERS.values()]
    assert len(set(names)) == len(names)
    for short, row in PROVIDERS.items():
        assert row.name.endswith("ExecutionProvider")
        assert row.install
        assert row.needs or short == CPU
        assert set(row.beside) < set(PROVIDERS)
    assert list(PROVIDERS)[-1] == CPU


@pytest.mark.parametrize("short", PROVIDERS)
def test_what_holds_for_every_session_is_on_the_options_that_are_passed(short):
    """[accelerators-1.2] [accelerators-6.1]"""
    options = session_options(short, threads=3)
    assert options.intra_op_num_threads == 3
    assert options.inter_op_num_threads == 1
    assert "ORT_SEQUENTIAL" in str(options.execution_mode)
    assert options.enable_mem_pattern is (short != "directml")
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.get_session_config_entry("session.inter_op.allow_spinning") == "0"


def filled(short, *, cache="", memory=0, over=None):
    outfit = {"memory_bytes": memory, "options": {short: over or {}}}
    return providers.options_of(short, threads=2, outfit=outfit, cache=cache)


@pytest.mark.parametrize("cache", ["", "/c"])
@pytest.mark.parametrize("memory", [0, 1 << 20])
@pytest.mark.parametrize("short", PROVIDERS)
def test_no_place_is_left_open_in_any_option(short, cache, memory):
    assert not [v for v in filled(short, cache=cache, memory=memory).values() if "$" in v]


def test_options_of_the_table_are_filled_in_and_the_device_s_go_over_them():
    """[accelerators-1.2]"""
    assert "gpu_mem_limit" not in filled("cuda")
    assert filled("cuda", memory=5)["gpu_mem_limit"] == "5"
    assert filled("cuda", over={"device_id": "1"})["device_id"] == "1"
    assert filled("cuda", over={"arena_extend_strategy": "x"})["arena_extend_strategy"] == "x"
    without = json.loads(filled("openvino")["load_config"])
    assert without == {"CPU": {"INFERENCE_NUM_THREADS": "2", "PERFORMANCE_HINT": "LATENCY"}}
    assert json.loads(filled("openvino", cache="/c")["load_config"])["CPU"]["CACHE_DIR"] == "/c"
    assert filled("tensorrt", cache="/c")["trt_engine_cache_path"] == "/c"
    assert "trt_engine_cache_path" not in filled("tensorrt")


# ---- native code ---------------------------------------------------------------------------------

LEAST = (
    'name = "m"\n[features]\nnames = ["a"]\n[output]\nscore = {tensor = "y"}\n[runtime]\n'
    'providers = ["cpu"]\n'
)


@pytest.mark.parametrize("key", ["libraries", "plugins", "options", "extensions"])
def test_a_package_cannot_name_native_code(key):
    """[accelerators-1.5]"""
    parse(LEAST.encode())
    with pytest.raises(UnfitError, match=key):
        parse(f'{LEAST}{key} = ["/tmp/evil.so"]\n'.encode())


def test_the_configuration_can_and_only_of_what_is_known():
    """[accelerators-1.5]"""
    section = Accelerators(libraries=("/opt/a.so",), plugins={"qnn": "/q.so"}, memory_mb=2)
    outfit = section.outfit()
    assert (outfit.libraries, outfit.plugins) == (("/opt/a.so",), {"qnn": "/q.so"})
    assert outfit.memory_bytes == 2 * 2**20
    with pytest.raises(ValueError, match="unknown provider 'gpu'"):
        Accelerators(plugins={"gpu": "/q.so"})


class Ready:
    """What Windows ML's bindings give for one provider."""

    def __init__(self, name, status="SUCCESS"):
        self.name, self.library_path, self._status = name, f"C:/{name}.dll", status

    def ensure_ready_async(self):
        status = type("Status", (), {"name": self._status})()
        outcome = type("Outcome", (), {"status": status})()
        return type("Later", (), {"get": staticmethod(lambda: outcome)})()


def windows_ml(*found):
    default = type("C", (), {"find_all_providers": staticmethod(lambda: list(found))})
    kind = type("K", (), {"get_default": staticmethod(lambda: default)})
    return lambda _: type("M", (), {"ExecutionProviderCatalog": kind})


def test_the_catalogue_of_windows_ml_gives_libraries_of_providers_that_are_known_and_ready():
    """[accelerators-1.5]"""
    load = windows_ml(
        Ready("QNNExecutionProvider"),
        Ready("VitisAIExecutionProvider", "FAILURE"),
        Ready("SomeExecutionProvider"),
    )
    assert catalogue(load) == {"qnn": "C:/QNNExecutionProvider.dll"}


def test_what_is_not_installed_is_no_end_of_the_agent():
    assert catalogue() == {}
    assert extensions(lambda _: (_ for _ in ()).throw(ImportError("no such module"))) == ""


# ---- auto ----------------------------------------------------------------------------------------


def test_the_fastest_that_is_right_is_first_and_near_ties_go_to_the_cpu():
    """[accelerators-2.1]"""
    trials = [
        Trial("cuda", "golden sample 0 of y is 1", sample_ms=0.01),
        Trial("openvino", sample_ms=1.0),
        Trial("directml", sample_ms=3.0),
        Trial(CPU, sample_ms=1.009),
    ]
    assert ranked(trials) == [CPU, "openvino", "directml"]
    trials[-1] = Trial(CPU, sample_ms=1.1)
    assert ranked(trials) == ["openvino", CPU, "directml"]
    assert resolved({"providers": ["auto"]}, trials) == ["openvino", CPU]
    assert resolved({"providers": ["qnn", "auto"]}, trials) == ["qnn", "openvino", CPU]
    assert ranked([]) == []


class Notes:
    def __init__(self):
        self.documents = {}

    def load_document(self, name):
        return self.documents.get(name)

    def save_document(self, name, body):
        self.documents[name] = body


class Bench:
    """Providers that take a known time, or fail; counts how often they are loaded."""

    def __init__(self, **ms):
        self.ms, self.loads = ms, []

    def load(self, provider):
        self.loads.append(provider)
        told = self.ms[provider]
        if isinstance(told, Exception):
            raise told
        session = ScriptedSession(REF)
        session.measures = Measures((told,), 1)
        if told < 0:
            session.golden_result = GoldenResult(ok=False, samples=1, why="y is 7, wanted 1")
        return session


def test_a_choice_is_kept_until_what_it_depends_on_is_another():
    """[accelerators-2.2]"""
    notes, bench = Notes(), Bench(cpu=2.0, openvino=1.0)
    first = Chooser(notes).trials(REF, "k1", ["openvino", "cpu"], bench.load)
    assert ranked(first) == ["openvino", "cpu"]
    again = Chooser(notes).trials(REF, "k1", ["openvino", "cpu"], bench.load)
    assert [t.document() for t in again] == [t.document() for t in first]
    assert bench.loads == ["openvino", "cpu"]
    Chooser(notes).trials(REF, "another driver", ["openvino", "cpu"], bench.load)
    assert bench.loads == ["openvino", "cpu"] * 2
    notes.documents[DOCUMENT] = b"{damaged"
    Chooser(notes).trials(REF, "k1", ["cpu"], bench.load)
    assert bench.loads[-1] == "cpu"


def test_what_is_wrong_or_does_not_load_is_not_taken_and_weather_is_not_kept():
    """[accelerators-2.2] [accelerators-2.3]"""
    notes = Notes()
    bench = Bench(cuda=MisfitError("no driver"), directml=-1.0, qnn=UnfitError("SIGSEGV"), cpu=9.0)
    trials = Chooser(notes).trials(REF, "k", ["cuda", "directml", "qnn", "cpu"], bench.load)
    assert ranked(trials) == ["cpu"]
    assert [t.why for t in trials] == ["no driver", "y is 7, wanted 1", "SIGSEGV", ""]
    assert DOCUMENT in notes.documents
    notes, bench = Notes(), Bench(cuda=UnavailableError("no memory now"), cpu=9.0)
    Chooser(notes).trials(REF, "k", ["cuda", "cpu"], bench.load)
    assert notes.documents == {}


# ---- proof ---------------------------------------------------------------------------------------


class OnCuda:
    """A session that says it is on CUDA."""

    def get_providers(self):
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def test_a_provider_that_runs_no_node_is_not_there_whatever_the_session_lists():
    """[accelerators-1.4]"""
    assert not_there(OnCuda(), "cuda", {"cpu": 1.0}) == "cannot run a single node of this model"
    assert not not_there(OnCuda(), "cuda", {"cuda": 0.1, "cpu": 0.9})
    assert not not_there(OnCuda(), "cuda", {})  # an older one that cannot tell
    assert "driver or libraries are missing: it needs Windows" in not_there(
        OnCuda(), "directml", {"directml": 1.0}
    )


def event(name, start, took, provider=""):
    told = {"cat": "Node" if provider else "Session", "name": name, "ts": start, "dur": took}
    return told | ({"args": {"provider": provider}} if provider else {})


def test_shares_of_time_are_those_of_the_last_run():
    """[accelerators-3.2]"""
    events = [
        event("model_run", 0, 100),
        event("a_kernel_time", 5, 90, "CPUExecutionProvider"),
        event("model_run", 200, 10),
        event("a_kernel_time", 201, 6, "CUDAExecutionProvider"),
        event("b_kernel_time", 207, 2, "CPUExecutionProvider"),
        event("a_fence_before", 201, 50, "CUDAExecutionProvider"),
    ]
    assert proof.shares(events) == {"cuda": 0.75, "cpu": 0.25}
    assert proof.shares(events[:1]) == {}
    assert proof.shares([]) == {}
    document = Placement({"cuda": 1.0}, proof.shares(events)).document()
    assert document["time"] == {"cuda": 0.75, "cpu": 0.25}


LOST = [
    "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=x",
    "CUDA error cudaErrorLaunchFailure: unspecified launch failure",
    "CUBLAS failure 14: CUBLAS_STATUS_INTERNAL_ERROR",
    "887A0005 The GPU device instance has been suspended. Use GetDeviceRemovedReason",
    "DXGI_ERROR_DEVICE_HUNG 887A0006",
    "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 9",
    "[GPU] CL_OUT_OF_RESOURCES",
    "ZE_RESULT_ERROR_DEVICE_LOST",
]


@pytest.mark.parametrize("text", LOST)
def test_a_lost_device_is_known_by_its_words_and_never_on_the_cpu(text):
    """[accelerators-5.1]"""
    assert is_device(Exception(text), "cuda")
    assert not is_device(Exception(text), CPU)
    assert not is_device(Exception("Got invalid dimensions for input: x"), "cuda")


def test_an_error_is_told_by_its_class_where_its_words_are_new():
    kind = type("DeviceReset", (Exception,), {})
    assert is_device(kind("whatever"), "directml")
    assert re.match("CPU", compiled_in()[-1])


def test_libraries_named_from_where_the_agent_stands_are_its_workers_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.so").touch()
    section = {"libraries": ["mine.so", "/its/own.so", "bare.so"], "plugins": {"qnn": "mine.so"}}
    config = Config.model_validate({"device": {"id": "d"}, "accelerators": section})
    outfit, _ = engines._outfit(config)
    mine = str(tmp_path / "mine.so")
    assert [*outfit.libraries] == [mine, "/its/own.so", "bare.so"]
    assert outfit.plugins == {"qnn": mine}
