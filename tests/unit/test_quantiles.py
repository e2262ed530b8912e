"""Medians and quantiles say what numpy says, and import nothing when they are asked."""

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agent.core.quantiles import medians, quantile

FINITE = st.floats(-1e6, 1e6)
ASKED = """
import sys
import numpy as np
from agent.core.quantiles import medians, quantile
before = set(sys.modules)
medians(np.array([[1.0, np.nan, 3.0]]))
quantile(np.arange(5.0), 0.3)
print(*sorted(set(sys.modules) - before))
"""


@given(hnp.arrays(np.float64, st.integers(1, 30), elements=FINITE), st.floats(0, 1))
def test_quantile_is_numpys(values, share):
    values.sort()
    assert np.isclose(quantile(values, share), np.quantile(values, share), rtol=1e-9, atol=1e-9)


def test_of_no_number_there_is_no_quantile():
    assert np.isnan(quantile(np.empty(0), 0.5))


@given(st.data(), st.integers(1, 8), st.integers(1, 8))
def test_medians_pass_over_nan_as_numpys(data, height, width):
    some = hnp.arrays(np.float64, (height, width), elements=FINITE | st.just(np.nan))
    rows = data.draw(some)
    rows[:, data.draw(st.integers(0, width - 1))] = data.draw(FINITE)
    assert np.array_equal(medians(rows), np.nanmedian(rows, axis=1))


def test_asking_imports_nothing():
    ran = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""
