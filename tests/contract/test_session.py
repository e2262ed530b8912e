"""What every Engine and Session promises, whether the version lives in a process or inline."""

import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.adapters.files.durable import sha256_of
from agent.adapters.onnx import InlineEngine
from agent.adapters.processes import Limits, ProcessEngine
from agent.core.errors import DamagedError, MisfitError, UnfitError
from agent.core.manifest import parse
from agent.core.names import Digest, ModelRef
from agent.core.packages import FileEntry, digest_of
from agent.ports import Answer, Engine, Session, WorkerLostError
from tests.world import wild, zoo
from tests.world.pack import reference

REF = ModelRef("pump", 3, Digest(f"sha256:{'0' * 64}"))
Load = Callable[..., Session]


@pytest.fixture(params=["process", "inline"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return (
        ProcessEngine(Limits(), sealed=False)
        if request.param == "process"
        else InlineEngine(sealed=False)
    )


@pytest.fixture
def load(engine: Engine) -> Iterator[Load]:
    """Loads a package with the engine under test, and closes its session after the test."""
    sessions: list[Session] = []

    def do(folder: Path, *, background: bool = False) -> Session:
        manifest = parse((folder / "model.toml").read_bytes())
        sessions.append(engine.load(REF, folder, manifest, background=background))
        return sessions[-1]

    yield do
    for session in sessions:
        session.close()


def collect(session: Session, count: int = 1, seconds: float = 10.0) -> list[Answer]:
    answers: list[Answer] = []
    while len(answers) < count:
        readable, _, _ = select.select([session.fileno()], [], [], seconds)
        assert readable, f"no answer within {seconds} s"
        answers += session.collect()
    return answers


def run(session: Session, *inputs: np.ndarray) -> Answer:
    session.submit(7, inputs)
    (answer,) = collect(session)
    assert answer.job == 7
    return answer


def batch(rows: int, features: int = 8) -> np.ndarray:
    return np.random.default_rng(rows).normal(size=(rows, features)).astype(np.float32)


# ---- scoring -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 1, 7, 1024, 200_000])
def test_scores_are_those_of_the_model_at_any_batch_size(
    load: Load, tmp_path: Path, rows: int
) -> None:
    folder = zoo.mlp(tmp_path / "m")
    session = load(folder)
    for _ in range(3):  # the second and third time go through what the first has laid out
        answer = run(session, x := batch(rows))
        assert not answer.error
        want = reference(folder / "model.onnx", {"x": x})["y"]
        np.testing.assert_allclose(answer.outputs[0], want, rtol=1e-5, atol=1e-6)


def test_answers_come_in_the_order_of_their_jobs_while_batches_change_size(
    load: Load, tmp_path: Path
) -> None:
    session = load(zoo.running_sum(tmp_path / "m"))
    sizes = [1, 30_000, 30_000, 2, 70_000, 80_000, 5, 5, 300_000, 1]
    got: list[Answer] = []
    for job, rows in enumerate(sizes):
        ones = np.full((rows, 1), job, np.float32)
        session.submit(job, [ones, ones])
        if job + 1 - len(got) == session.jobs_max:
            got += collect(session)
    got += collect(session, len(sizes) - len(got))
    assert [answer.job for answer in got] == list(range(len(sizes)))
    for answer, rows in zip(got, sizes, strict=True):
        assert [o.shape for o in answer.outputs] == [(rows, 1), (rows, 1)], answer.error
        assert (answer.outputs[0] == 2 * answer.job).all()


def test_inputs_are_copied_before_submit_returns_and_outputs_belong_to_the_caller(
    load: Load, tmp_path: Path
) -> None:
    session = load(zoo.running_sum(tmp_path / "m"))
    x = np.ones((4, 1), np.float32)
    session.submit(1, [x, x])
    x[:] = 99
    (first,) = collect(session)
    kept = first.outputs[0]
    run(session, x, x)
    assert (kept == 2).all()
    kept[:] = 0  # writable, and nobody else's


def test_inputs_need_not_be_contiguous(load: Load, tmp_path: Path) -> None:
    session = load(zoo.two_inputs(tmp_path / "m"))
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    answer = run(session, table[:, :2], table[:, 2:])
    np.testing.assert_allclose(answer.outputs[0], table @ np.array([[1], [10], [100]]))


def test_a_run_that_fails_is_an_answer_and_the_session_lives_on(load: Load, tmp_path: Path) -> None:
    session = load(zoo.mlp(tmp_path / "m"))
    wrong = run(session, batch(4).astype(np.float64))
    assert "double" in wrong.error
    assert not wrong.outputs
    assert "7" in run(session, batch(4, 7)).error
    assert run(session).error
    assert not run(session, batch(4)).error


def test_a_fixed_batch_size_is_met_in_pieces(load: Load, tmp_path: Path) -> None:
    folder = zoo.mlp(tmp_path / "fixed", batch=4)
    free = zoo.mlp(tmp_path / "free")
    session = load(folder)
    for rows in (1, 3, 4, 5, 8, 11):
        x = batch(rows)
        want = reference(free / "model.onnx", {"x": x})["y"]
        got = run(session, x).outputs[0]
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    assert run(session, batch(0)).outputs[0].shape == (0, 1)


@pytest.mark.parametrize("make", [zoo.classifier, zoo.cnn, zoo.columns, zoo.external, zoo.big])
def test_every_kind_of_model_reproduces_its_golden_outputs(
    load: Load, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    session = load(make(tmp_path / "m"))
    result = session.golden()
    assert (result.ok, result.why, result.samples) == (True, "", zoo.SAMPLES)
    assert result.worst <= 0
    assert len(result.run_ms) == 1


def test_tensors_are_told_by_name_type_and_shape(load: Load, tmp_path: Path) -> None:
    session = load(zoo.classifier(tmp_path / "m"))
    assert [(t.name, t.dtype, len(t.shape)) for t in session.inputs] == [("x", "float32", 2)]
    assert [(t.name, t.dtype) for t in session.outputs] == [
        ("probabilities", "float32"),
        ("label", "int64"),
    ]
    assert (session.ref, session.provider, session.wanted) == (REF, "cpu", "cpu")
    assert session.jobs_max >= 2
    assert session.load_ms > 0
    assert session.rss_bytes() > 2**20


# ---- golden samples ------------------------------------------------------------------------------


def test_golden_samples_that_are_off_are_named_with_what_was_wanted(
    load: Load, tmp_path: Path
) -> None:
    result = load(wild.wrong_golden(tmp_path / "m")).golden()
    assert not result.ok
    assert "golden sample" in result.why
    assert "of y is" in result.why
    assert "wanted" in result.why
    assert 0.4 < result.worst < 0.5


def test_a_nan_is_no_golden_output(load: Load, tmp_path: Path) -> None:
    result = load(wild.nan_always(tmp_path / "m")).golden()
    assert not result.ok
    assert "is nan, wanted 0" in result.why


# ---- refusals ------------------------------------------------------------------------------------

Refused = tuple[Callable[..., Path], dict[str, object], type[Exception], str]
REFUSED: list[Refused] = [
    (wild.unknown_op, {}, UnfitError, "node type Foo does not exist"),
    (wild.unknown_domain, {}, UnfitError, "my.ops"),
    (wild.new_opset, {}, MisfitError, r"opset 28 of ai.onnx needs a newer onnxruntime"),
    (wild.new_opset, {"opset": 17, "ir": 14}, MisfitError, "IR version 14 needs a newer"),
    (wild.truncated, {}, UnfitError, "truncated"),
    (wild.ort_format, {}, UnfitError, "own format"),
    (wild.hard_linked, {}, UnfitError, "weights.bin is a hard link"),
    (wild.symlinked, {}, UnfitError, "symbolic link"),
    (wild.zipmap, {}, UnfitError, "zipmap=False"),
    (wild.hungry, {}, UnfitError, "wants the input z that the manifest does not feed; it has x, z"),
    (zoo.mlp, {"output": {"score": {"tensor": "q"}}}, UnfitError, "the output q; the model has y"),
    (zoo.mlp, {"input": {"q": {}}}, UnfitError, "feeds q, which the model lacks; it has x"),
    (zoo.mlp, {"input": {"x": {"dtype": "float64"}}}, UnfitError, "takes float32"),
    (zoo.mlp, {"state": {"h": "h_out"}}, UnfitError, "feeds h, which the model lacks"),
    (zoo.two_inputs, {"input": None}, UnfitError, r"add an \[input\] table"),
    (zoo.cnn, {"window": {"size": "8"}}, UnfitError, r"\[batch, 16, 2\].*\[batch, 8, 2\]"),
    (zoo.mlp, {"golden": {"file": "other.npz"}}, UnfitError, "no other.npz"),
    (zoo.mlp, {"runtime": {"require": "cuda"}}, MisfitError, "requires cuda"),
    (
        zoo.mlp,
        {"runtime": {"providers": ["cuda", "cpu"], "require": "accelerated"}},
        MisfitError,
        "requires accelerated .* has no cuda",
    ),
]


@pytest.mark.parametrize("case", REFUSED, ids=[f"{r[0].__name__}-{r[3]}" for r in REFUSED])
def test_what_cannot_run_is_refused_with_the_right_blame_and_a_sentence(
    load: Load, tmp_path: Path, case: Refused
) -> None:
    make, members, error, sentence = case
    with pytest.raises(error, match=sentence) as caught:
        load(make(tmp_path / "m", **members))
    assert "\n" not in str(caught.value)
    assert "onnxruntime_src" not in str(caught.value)


SEALED = {"process": lambda: ProcessEngine(Limits()), "inline": InlineEngine}


@pytest.mark.parametrize("kind", SEALED)
def test_what_is_not_what_was_signed_is_not_loaded_and_nobody_is_blamed(
    kind: str, tmp_path: Path
) -> None:
    """[jail-1.1]"""
    folder = zoo.mlp(tmp_path / "m")
    manifest = parse((folder / "model.toml").read_bytes())
    files = [FileEntry(p.name, p.stat().st_size, sha256_of(p)) for p in folder.iterdir()]
    ref = ModelRef("pump", 3, digest_of("pump", files))
    engine = SEALED[kind]()
    session = engine.load(ref, folder, manifest, background=False)
    assert session.golden().ok

    def refused(load: Callable[[], object]) -> None:
        with pytest.raises(DamagedError, match=r"pump:3: what lies in the store .* not what was"):
            load()

    try:
        (folder / "more.bin").write_bytes(b"x")
        refused(lambda: engine.load(ref, folder, manifest, background=True))
        (folder / "more.bin").unlink()
        body = (folder / "model.onnx").read_bytes()
        for path, change in (
            ("model.onnx", body[:-1] + bytes([body[-1] ^ 1])),
            ("golden.npz", b""),
        ):
            whole = (folder / path).read_bytes()
            (folder / path).write_bytes(change)  # after it was verified, before it is loaded
            refused(lambda: engine.load(ref, folder, manifest, background=True))
            refused(session.revive)
            (folder / path).write_bytes(whole)
        session.revive()
        assert session.golden().ok
    finally:
        session.close()


def test_a_provider_that_is_not_here_falls_back_and_says_so(load: Load, tmp_path: Path) -> None:
    wishes = {"providers": ["tensorrt", "cuda", "cpu"]}
    session = load(zoo.mlp(tmp_path / "m", runtime=wishes))
    assert (session.provider, session.wanted) == ("cpu", "tensorrt")
    assert "no tensorrt" in session.fallback
    assert "no cuda" in session.fallback


def test_auto_takes_the_first_there_is(load: Load, engine: Engine, tmp_path: Path) -> None:
    session = load(zoo.mlp(tmp_path / "m", runtime={"providers": ["auto"]}))
    assert session.provider == session.wanted == next(iter(engine.providers()))


# ---- life and death ------------------------------------------------------------------------------


def test_a_killed_session_is_lost_and_revive_brings_the_same_version_back(
    load: Load, tmp_path: Path
) -> None:
    session = load(zoo.mlp(tmp_path / "m"))
    before = run(session, x := batch(4)).outputs[0]
    session.kill()
    with pytest.raises(WorkerLostError, match="pump:3"):
        collect(session)
    with pytest.raises(WorkerLostError):
        session.submit(1, [x])
    with pytest.raises(WorkerLostError):
        session.golden()
    session.revive()
    np.testing.assert_array_equal(run(session, x).outputs[0], before)
    assert session.golden().ok


def test_answers_that_came_before_the_end_are_not_lost(load: Load, tmp_path: Path) -> None:
    session = load(zoo.mlp(tmp_path / "m"))
    session.submit(1, [batch(4)])
    select.select([session.fileno()], [], [], 10)
    session.kill()
    assert [answer.job for answer in collect(session)] == [1]
    with pytest.raises(WorkerLostError):
        collect(session)


def test_a_background_load_serves_like_any_other(load: Load, tmp_path: Path) -> None:
    session = load(zoo.mlp(tmp_path / "m"), background=True)
    assert session.golden().ok
    session.serve()
    assert not run(session, batch(4)).error


def test_close_can_be_called_twice_and_ends_the_session(load: Load, tmp_path: Path) -> None:
    session = load(zoo.mlp(tmp_path / "m"))
    session.close()
    session.close()
    assert session.pid() is None
    assert session.rss_bytes() == 0
    with pytest.raises(WorkerLostError):
        session.submit(1, [batch(1)])


def test_two_versions_live_side_by_side(load: Load, tmp_path: Path) -> None:
    old = load(zoo.mlp(tmp_path / "old"))
    new = load(zoo.mlp(tmp_path / "new", bias=0.5), background=True)
    x = batch(16)
    difference = run(new, x).outputs[0] - run(old, x).outputs[0]
    np.testing.assert_allclose(difference, 0.5, atol=1e-6)


def test_the_engine_says_what_it_is(engine: Engine) -> None:
    assert "cpu" in engine.providers()
    assert engine.version()[0].isdigit()
    assert engine.jail()


# ---- what it takes -------------------------------------------------------------------------------


def test_a_version_is_measured_row_by_row(load: Load, tmp_path: Path) -> None:
    session = load(zoo.mlp(tmp_path / "m"), background=True)
    assert session.golden().ok
    measured = session.measure()
    assert len(measured.sample_ms) == zoo.SAMPLES
    assert all(0 < ms < 50 for ms in measured.sample_ms)
    assert measured.runs >= zoo.SAMPLES
    if session.pid() != os.getpid():
        assert 20 < measured.rss_mb <= measured.peak_mb < 400
    else:
        assert measured.rss_mb == 0  # it cannot be told apart


def test_a_slow_version_is_measured_as_slow(load: Load, tmp_path: Path) -> None:
    quick = load(zoo.mlp(tmp_path / "quick")).measure()
    slow = load(wild.slow(tmp_path / "slow")).measure()
    assert min(slow.sample_ms) > 10 * max(quick.sample_ms)


def test_a_version_that_runs_on_its_samples_together_only_is_bad(
    load: Load, tmp_path: Path
) -> None:
    """[jail-3.3]"""
    session = load(wild.only_together(tmp_path / "m"))
    assert session.golden().ok
    with pytest.raises(UnfitError, match="pump:3: it does not run on a single row"):
        session.measure()
