"""Whether a version reproduces the outputs it was published with.

For each element |got - want| ≤ atol + rtol·|want|.  `golden.npz` holds `in:<input>` and
`out:<output>`; axis 0 of each array counts the samples.
"""

import io
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.worker.loaded import Loaded
from agent.worker.refusals import Blame, RefusalError, is_memory, of_run, shortened, unfit

Array = NDArray[Any]
Lost = Callable[[BaseException], object]
BYTES_MAX = 64 * 2**20  # of the samples, unpacked
ARRAYS_MAX = 16384
UNFIT: Blame = "unfit"
MISFIT: Blame = "misfit"


def warm_up() -> None:
    """Import whatever reading a golden file imports late."""
    memory = io.BytesIO()
    np.savez(memory, warm=np.zeros(1, np.float32))
    _unpacked(memory)


def read(path: Path) -> dict[str, Array]:
    """The arrays in a golden file, by their full keys.

    Raises:
        RefusalError: it is none, or unpacks to more than BYTES_MAX.
    """
    try:
        return _unpacked(path)
    except FileNotFoundError as error:
        raise unfit(f"the package has no {path.name}; `edge-agent model build` makes it") from error
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise unfit(f"{path.name} is no golden file: {shortened(error)}") from error


def _unpacked(source: Path | io.BytesIO) -> dict[str, Array]:
    arrays = {}
    with zipfile.ZipFile(source) as archive:
        members = archive.infolist()
        if len(members) > ARRAYS_MAX or sum(m.file_size for m in members) > BYTES_MAX:
            msg = f"it unpacks to more than {BYTES_MAX >> 20} MiB"
            raise ValueError(msg)
        for member in members:
            raw = io.BytesIO(archive.read(member))
            key = member.filename.removesuffix(".npy")
            arrays[key] = np.lib.format.read_array(raw, allow_pickle=False)
    return arrays


class Golden:
    """The samples of one version, checked against its tensors."""

    def __init__(self, path: Path, loaded: Loaded, *, rtol: float, atol: float) -> None:
        """Raises RefusalError."""
        arrays = read(path)
        self._loaded, self._rtol, self._atol = loaded, rtol, atol
        self._inputs = [_of(arrays, f"in:{name}", path.name) for name, _, _ in loaded.inputs]
        self._wants = [_of(arrays, f"out:{name}", path.name) for name, _, _ in loaded.outputs]
        counts = {len(a) if a.ndim else 0 for a in (*self._inputs, *self._wants)}
        self.samples = min(counts, default=0)
        if len(counts) != 1 or self.samples < 1:
            raise unfit(
                f"{path.name} has {sorted(counts)} samples; every array needs the same number"
            )

    @property
    def inputs(self) -> Sequence[Array]:
        """In the order of the graph's; axis 0 counts the samples."""
        return self._inputs

    @property
    def runs(self) -> int:
        """How many times onnxruntime is run for them."""
        return -(-self.samples // (self._loaded.batch or self.samples))

    def check(self, options: Any = None, *, lost: Lost = lambda _: None) -> dict[str, Any]:
        """Run them and compare; the members of a GoldenResult.

        `lost` sees what a run raised before it is anybody's verdict.
        """
        started = time.perf_counter_ns()
        try:
            got = self._loaded.run(self._inputs, options)
        except Exception as error:  # noqa: BLE001  onnxruntime's errors share no base but this
            lost(error)
            why, blame = f"the golden samples do not run: {of_run(error).why}", UNFIT
            if is_memory(error):
                why = "the golden samples need more memory than a worker may use here"
                blame = MISFIT
            return failed(why, blame=blame, samples=self.samples)
        run_ms = (time.perf_counter_ns() - started) / 1e6
        worst, why = 0.0, ""
        names = [name for name, _, _ in self._loaded.outputs]
        for index, (name, have, want) in enumerate(zip(names, got, self._wants, strict=True)):
            excess, sentence = compare(name, have, want, rtol=self._rtol, atol=self._atol)
            worst = excess if index == 0 else max(worst, excess)
            why = why or sentence
        return {
            "ok": not why,
            "samples": self.samples,
            "why": why,
            "worst": worst,
            "run_ms": [run_ms],
            "blame": "unfit" if why else "",
        }


def failed(why: str, *, blame: Blame, samples: int = 0) -> dict[str, Any]:
    """The members of a GoldenResult where there is nothing to compare."""
    return {
        "ok": False,
        "samples": samples,
        "why": why,
        "worst": 0.0,
        "run_ms": [],
        "blame": blame,
    }


def _of(arrays: Mapping[str, Array], key: str, file: str) -> Array:
    if key not in arrays:
        raise unfit(f"{file} has no array {key!r}; `edge-agent model build` records it anew")
    return arrays[key]


def compare(name: str, got: Array, want: Array, *, rtol: float, atol: float) -> tuple[float, str]:
    """The largest |got - want| - (atol + rtol·|want|), and a sentence if that is above 0.

    A NaN is right only where one is wanted; an infinity only where the same one is.  Integers,
    booleans and strings are right only if equal.  Where the excess has no finite value it is the
    largest float, so that it survives JSON.
    """
    if got.shape != want.shape:
        return _MOST, f"golden output {name} has the shape {got.shape}, wanted {want.shape}"
    if got.size == 0:
        return 0.0, ""
    if got.dtype.kind != "f" or want.dtype.kind != "f":
        wrong = np.asarray(got != want)
        excess = np.where(wrong, _MOST, 0.0)
        tolerance = ""
    else:
        have, aim = got.astype(np.float64), want.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            excess = np.abs(have - aim) - (atol + rtol * np.abs(aim))
        same = (have == aim) | (np.isnan(have) & np.isnan(aim))
        excess = np.where(same & ~np.isfinite(aim), -atol, excess)
        excess = np.where(np.isfinite(excess), excess, _MOST)
        wrong = excess > 0
        tolerance = f" (tolerance {atol:g} + {rtol:g} of it)" if rtol else f" (tolerance {atol:g})"
    worst = float(excess.max())
    if not wrong.any():
        return worst, ""
    at = np.unravel_index(int(np.argmax(excess)), excess.shape)
    where = f"golden sample {at[0]} of {name}"
    if len(at) > 1 and got[0].size > 1:
        where += f"[{', '.join(str(i) for i in at[1:])}]"
    return worst, f"{where} is {_shown(got[at])}, wanted {_shown(want[at])}{tolerance}"


_MOST = float(np.finfo(np.float64).max)


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, np.floating) else str(value)


def outputs_of(loaded: Loaded, feed: Mapping[str, Array]) -> dict[str, Array]:
    """What the model answers to `feed`, by output name; for recording golden samples.

    Raises:
        RefusalError: an input is missing, or they do not run.
    """
    missing: Sequence[str] = [name for name, _, _ in loaded.inputs if name not in feed]
    if missing:
        raise unfit(f"no golden samples were given for the input {', '.join(missing)}")
    try:
        got = loaded.run([feed[name] for name, _, _ in loaded.inputs])
    except Exception as error:
        why = f"the model does not run on the golden samples: {shortened(error)}"
        raise RefusalError("unfit", why) from error
    return dict(zip((name for name, _, _ in loaded.outputs), got, strict=True))
