"""What an author does with a package folder: init, build, verify, show.

The model runs in the same jailed worker as on a device, so what is verified here is what a device
will check; only recording golden outputs runs it in this process.
"""

import math
import re
import shutil
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agent.adapters.files.contents import (
    MODEL_FILE,
    Contents,
    read_folder,
    read_model,
)
from agent.adapters.files.durable import make_folder, weather, write_atomic
from agent.adapters.onnx import record_golden
from agent.adapters.processes import ProcessEngine
from agent.core import requirements
from agent.core.accelerators import CPU
from agent.core.errors import RefusedError, UnfitError
from agent.core.manifest import MANIFEST, Manifest, parse
from agent.core.names import ModelRef, is_id
from agent.core.opsets import Target
from agent.core.packages import digest_of
from agent.repository import samples
from agent.repository.guess import manifest_text, tensors_of

_RUNTIME = re.compile(r"^[ \t]*\[runtime\][^\n]*\n", re.MULTILINE)
_MEMORY = re.compile(r"^([ \t]*memory_mb[ \t]*=[ \t]*)[0-9._eE+]+", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of a build or a verification: how it ran, and sentences worth reading."""

    contents: Contents
    samples: int
    provider: str
    wanted: str
    run_ms: float  # of all golden samples together
    memory_mb: float
    notes: tuple[str, ...] = field(default=())

    def document(self) -> dict[str, Any]:
        """As `--json` shows it."""
        return {
            **described(self.contents),
            "golden": {"samples": self.samples, "run_ms": round(self.run_ms, 3)},
            "provider": self.provider,
            "wanted": self.wanted,
            "memory_mb": self.memory_mb,
            "notes": list(self.notes),
        }


def init(model: Path, out: Path | None = None, *, name: str = "") -> Path:
    """Make a package folder out of an .onnx file; gives the folder.

    `model` may be a folder that holds `model.onnx`: then it becomes the package itself.  Weights in
    other files come along.

    Raises:
        UnfitError: the file is no model.
        RefusedError: there is a manifest already (409), or none can be written for such a model.
    """
    source = model / MODEL_FILE if model.is_dir() else model
    in_place = source.name == MODEL_FILE and out is None
    folder = out or (source.parent if in_place else Path(source.stem))
    if (folder / MANIFEST).exists():
        raise RefusedError(f"{folder / MANIFEST} is there already; edit it, or name --out", 409)
    facts = read_model(source)
    if name and not is_id(name):
        raise RefusedError(f"{name!r} is no model name: letters, digits, . _ - and at most 64")
    title = source.resolve().parent.name if in_place else source.stem
    title = name or re.sub(r"[^A-Za-z0-9._-]+", "-", title).strip("-._")[:64] or "model"
    text = manifest_text(title, source.name, *tensors_of(source))
    with weather(f"cannot write {folder}"):
        make_folder(folder)
        if source.resolve() != (folder / MODEL_FILE).resolve():
            shutil.copyfile(source, folder / MODEL_FILE)
            for weights in facts.external:
                shutil.copyfile(source.parent / weights, folder / weights)
        write_atomic(folder / MANIFEST, text.encode())
    return folder


def build(
    folder: Path,
    *,
    given: Path | None = None,
    count: int = samples.COUNT,
    seed: int = 0,
    tell: Callable[[str], object] = lambda _: None,
) -> Checked:
    """Check the manifest against the model and record what it answers to golden samples.

    Inputs come from `given` (.npz of tensors, or .csv of readings), else from the golden file that
    is there, else they are made up from the manifest's ranges and scale.  `tell` hears of progress.

    Raises:
        UnfitError: model and manifest do not agree, or the model does not run; the text says where.
        RefusedError: `given` is no such file.
    """
    tell("reading the package")
    contents = read_folder(folder)
    manifest = contents.manifest
    inputs, _ = tensors_of(folder / MODEL_FILE)
    notes = []
    path = folder / manifest.golden.file
    if given is not None and given.suffix.lower() == ".csv":
        feed = samples.recorded(manifest, inputs, given, count=count)
    elif given is not None:
        feed = samples.given(inputs, given)
    else:
        try:
            feed = samples.given(inputs, path)
        except UnfitError as error:
            if path.exists():
                notes.append(f"golden inputs were made anew: {error}")
            feed = samples.made(manifest, inputs, count=count, seed=seed)
    tell("recording golden outputs")
    want = record_golden(folder, manifest, feed)
    for tensor, array in want.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            notes.append(
                f"golden output {tensor} is not finite everywhere; are the inputs sensible?"
            )
    samples.write(path, feed, want)
    tell("checking them in a worker")
    portable = manifest.runtime.model_copy(
        update={"providers": (CPU,), "require": "any", "memory_mb": None}
    )
    checked = _run(folder, manifest.model_copy(update={"runtime": portable}), tuple(notes))
    stated = manifest.runtime.memory_mb
    if stated is None or not 0.8 * checked.memory_mb <= stated <= 4 * checked.memory_mb:
        _write_memory(folder, checked.memory_mb)
    return Checked(
        read_folder(folder),
        checked.samples,
        checked.provider,
        manifest.runtime.providers[0] if manifest.runtime.providers else CPU,
        checked.run_ms,
        checked.memory_mb,
        checked.notes,
    )


def verify(folder: Path) -> Checked:
    """Check everything a device will check, on this machine: files, manifest, golden samples.

    Raises:
        UnfitError: something is wrong with the package; one sentence.
        MisfitError: nothing is, but this machine cannot run it.
        UnavailableError: no worker could be started.
    """
    contents = read_folder(folder)
    if not contents.has_golden:
        golden = contents.manifest.golden.file
        raise UnfitError(f"{folder} has no {golden}; `edge-agent model build {folder}` makes it")
    return _run(folder, contents.manifest, ())


def against(folder: Path, targets: Sequence[Target]) -> dict[str, list[str]]:
    """By target, why it does not take the package, in sentences; nothing is run.

    Raises:
        UnfitError: something is wrong with the package itself.
    """
    contents = read_folder(folder)
    facts, runtime = contents.facts, contents.manifest.runtime
    return {
        each.name: requirements.against(
            facts.opsets, facts.ir_version, runtime.providers, runtime.require, each
        )
        for each in targets
    }


def _run(folder: Path, manifest: Manifest, notes: tuple[str, ...]) -> Checked:
    contents = read_folder(folder)
    ref = ModelRef(manifest.name, 0, digest_of(manifest.name, contents.files))
    session = ProcessEngine(sealed=False).load(ref, folder.resolve(), manifest, background=False)
    try:
        result = session.golden()
        if not result.ok:
            raise UnfitError(f"{manifest.name}: {result.why}")
        memory_mb = float(math.ceil(session.rss_bytes() / 2**20))
        if session.provider != session.wanted:
            notes += (f"it ran on {session.provider}, for want of {session.wanted}",)
        return Checked(
            contents,
            result.samples,
            session.provider,
            session.wanted,
            sum(result.run_ms),
            memory_mb,
            notes,
        )
    finally:
        session.close()


def described(contents: Contents) -> dict[str, Any]:
    """A package as `model show --json` shows it."""
    manifest, files = contents.manifest, contents.files
    return {
        "schema": 1,
        "name": manifest.name,
        "description": manifest.description,
        "digest": digest_of(manifest.name, files),
        "bytes": sum(file.size for file in files),
        "files": [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in files],
        "ir_version": contents.facts.ir_version,
        "opsets": dict(contents.facts.opsets),
        "nodes": contents.facts.nodes,
        "has_golden": contents.has_golden,
        "manifest": manifest.model_dump(mode="json", exclude_defaults=True),
    }


def _write_memory(folder: Path, memory_mb: float) -> None:
    """Put `memory_mb` into `[runtime]`, and touch nothing else the author wrote.

    Where it cannot be done by changing one line, it is left to the author.
    """
    path = folder / MANIFEST
    text = path.read_text(encoding="utf-8")
    before = tomllib.loads(text)
    line = f"memory_mb = {memory_mb:g}  # measured by `edge-agent model build`\n"
    if "memory_mb" in before.get("runtime", {}):
        changed = _MEMORY.sub(rf"\g<1>{memory_mb:g}", text, count=1)
    elif _RUNTIME.search(text):
        changed = _RUNTIME.sub(lambda found: found[0] + line, text, count=1)
    elif "runtime" not in before:
        changed = f"{text.rstrip()}\n\n[runtime]\n{line}"
    else:
        return
    wanted = {**before, "runtime": {**before.get("runtime", {}), "memory_mb": memory_mb}}
    try:
        if tomllib.loads(changed) != wanted:
            return
        parse(changed.encode())
    except (tomllib.TOMLDecodeError, UnfitError):
        return
    with weather(f"cannot write {path}"):
        write_atomic(path, changed.encode())
