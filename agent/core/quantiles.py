"""Medians and quantiles of a few numbers, without what numpy's own bring along.

`numpy.nanmedian` and `numpy.quantile` import `numpy.ma` when they are first called, which takes
20 ms and would take them from the lane, in the middle of a stream.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def quantile(ascending: Floats, share: float) -> float:
    """Of sorted numbers, linear between two, as `numpy.quantile` has it; of none, NaN."""
    if not len(ascending):
        return float("nan")
    places = np.arange(len(ascending))
    return float(np.interp(share * (len(ascending) - 1), places, ascending))


def medians(rows: Floats) -> Floats:
    """Of each row, passing over NaN; each has one number at least."""
    ordered = np.sort(rows, axis=1)  # NaN comes last
    numbers = np.count_nonzero(~np.isnan(rows), axis=1)
    at = np.arange(len(rows))
    middle: Floats = (ordered[at, (numbers - 1) // 2] + ordered[at, numbers // 2]) / 2
    return middle
