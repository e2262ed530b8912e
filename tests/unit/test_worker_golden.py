"""|got - want| ≤ atol + rtol·|want|, and what is said when it is not."""

import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.worker.golden import compare, read
from agent.worker.refusals import RefusalError

numbers = st.floats(width=32)


def one(got: float, want: float, rtol: float = 0.0, atol: float = 0.0) -> tuple[float, str]:
    return compare("y", np.float32([got]), np.float32([want]), rtol=rtol, atol=atol)


@given(numbers, numbers, st.floats(0, 1), st.floats(0, 1))
def test_it_agrees_with_the_definition(got: float, want: float, rtol: float, atol: float) -> None:
    excess, why = one(got, want, rtol, atol)
    if math.isnan(want) or math.isinf(want):
        right = got == want or (math.isnan(got) and math.isnan(want))
    else:
        right = abs(got - want) <= atol + rtol * abs(want)
    assert (why == "") == right
    assert (excess <= 0) == right
    assert math.isfinite(excess)


def test_the_sentence_names_sample_output_and_values() -> None:
    got, want = np.float32([[0], [0], [0], [0.51]]), np.float32([[0], [0], [0], [0.12]])
    _, why = compare("y", got, want, rtol=0.0, atol=0.001)
    assert why == "golden sample 3 of y is 0.51, wanted 0.12 (tolerance 0.001)"


def test_of_several_columns_the_worst_is_named() -> None:
    got, want = np.zeros((2, 3)), np.array([[0, 0.2, 0], [0, 0, 0.9]])
    excess, why = compare("p", got, want, rtol=1e-3, atol=0.0)
    assert why.startswith("golden sample 1 of p[2] is 0, wanted 0.9 (tolerance")
    assert excess == pytest.approx(0.9 - 0.0009)


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (np.array([1, 2]), np.array([1, 3])),
        (np.array(["ok", "worn"]), np.array(["ok", "ok"])),
        (np.array([True, False]), np.array([True, True])),
    ],
)
def test_what_is_no_float_has_to_be_equal(got: np.ndarray, want: np.ndarray) -> None:
    assert compare("label", got, got, rtol=1.0, atol=9.0)[1] == ""
    assert "golden sample 1 of label" in compare("label", got, want, rtol=1.0, atol=9.0)[1]


def test_another_shape_is_never_right() -> None:
    _, why = compare("y", np.zeros((4, 1)), np.zeros(4), rtol=1, atol=1)
    assert why == "golden output y has the shape (4, 1), wanted (4,)"


def test_a_golden_file_with_a_pickle_in_it_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "g.npz", **{"in:x": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(RefusalError, match="is no golden file"):
        read(tmp_path / "g.npz")


def test_a_golden_file_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "g.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("in:x.npy", bytes(65 * 2**20))
    with pytest.raises(RefusalError, match="unpacks to more than 64 MiB"):
        read(tmp_path / "g.npz")


@pytest.mark.parametrize("raw", [b"", b"PK\x03\x04", b"garbage" * 100])
def test_what_is_no_golden_file_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "g.npz").write_bytes(raw)
    with pytest.raises(RefusalError, match="is no golden file"):
        read(tmp_path / "g.npz")
