"""Makes onnxruntime sessions: on the first wished provider that really runs the model.

Every session option that is ever set is set here.
"""

import contextlib
import ctypes
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime as ort

from agent.core.accelerators import CPU, PROVIDERS
from agent.worker import proof, providers
from agent.worker.refusals import RefusalError, misfit, of_load, shortened

VERSION: str = ort.__version__
FATAL_ONLY = 4  # onnxruntime's severity: what it raises it need not print as well
OPTIMIZED = "optimized.onnx"
Told = Callable[[str], None]

_registered: set[str] = set()


@dataclass(slots=True)
class Made:
    """A session, the short name of what runs it, and why that is not the first wish.

    nodes      share of the graph's nodes by our name of who runs them; empty if nobody can tell
    profile    its first runs are being profiled: whoever runs them ends that
    compiled   `built` or `kept`, where compiled code is kept
    """

    session: Any
    provider: str
    fallback: str = ""
    nodes: dict[str, float] = field(default_factory=dict)
    profile: bool = False
    compiled: str = ""


def compiled_in() -> list[str]:
    """The providers of this onnxruntime, registered ones included, by its own names."""
    built = list(ort.get_available_providers())
    if _registered:
        built += [d.ep_name for d in ort.get_ep_devices() if d.ep_name not in built]
    return built


def register(outfit: Mapping[str, Any]) -> dict[str, str]:
    """Load the libraries that the configuration names, once; why each that failed did.

    Native code: it has to run before the jail closes, and never comes from a package.
    """
    failed = {}
    if PROVIDERS["cuda"].name in ort.get_available_providers():
        with contextlib.suppress(
            Exception
        ):  # CUDA from wheels beside it; else the system's is used
            ort.preload_dlls()
    for name, path in outfit.get("plugins", {}).items():
        if name in _registered:
            continue
        try:
            ort.register_execution_provider_library(name, path)
            _registered.add(name)
        except Exception as error:  # noqa: BLE001  onnxruntime's errors share no base but this
            failed[name] = str(error)
    for path in outfit.get("libraries", ()):
        try:
            ctypes.CDLL(path)
        except OSError as error:
            failed[path] = str(error)
    return failed


def first_that_works(path: Path, brief: Mapping[str, Any], tell: Told) -> Made:
    """A session on the first wish that starts, and takes at least one node; `tell` is told whom
    is being tried.

    Raises:
        RefusalError: none works, or not one that the manifest requires.
    """
    built = compiled_in()
    avoid: Mapping[str, str] = brief.get("avoid", {})
    why: list[str] = []
    refusal: RefusalError | None = None
    for wish in providers.wishes(brief["providers"], built):
        if not providers.satisfies(brief["require"], wish):
            continue
        if PROVIDERS[wish].name not in built:
            why.append(absent(wish))
            continue
        if wish in avoid:
            why.append(f"{wish} is left out: {avoid[wish]}")
            continue
        tell(wish)
        try:
            made = _kept_or_anew(wish, path, brief, built)
        except Exception as error:  # noqa: BLE001  onnxruntime's errors share no base but this
            refusal = error if isinstance(error, RefusalError) else of_load(error, VERSION)
            why.append(f"{wish} failed: {refusal.why}")
            continue
        if doubt := not_there(made.session, wish, made.nodes):
            if made.profile:
                proof.ended(made.session)
            why.append(f"{wish} {doubt}")
            continue
        made.fallback = "; ".join(why)
        return made
    if refusal is not None and brief["require"] in ("any", CPU):
        raise refusal  # the CPU was tried too: it is the model, not the provider
    raise misfit(
        f"it requires {brief['require']} to run on: {'; '.join(why) or 'none is wished for'}"
    )


def _kept_or_anew(wish: str, path: Path, brief: Mapping[str, Any], built: Sequence[str]) -> Made:
    """What was compiled before may have gone bad, or be impossible to keep: then without it."""
    try:
        return session_on(wish, path, brief, built)
    except Exception:
        outfit = brief.get("outfit", {})
        if _cache(wish, outfit)[0] is None:
            raise
        return session_on(wish, path, {**brief, "outfit": {**outfit, "cache": ""}}, built)


def absent(wish: str) -> str:
    """That this onnxruntime has no such provider, and what would bring it."""
    return f"this build of onnxruntime has no {wish}; it comes with {PROVIDERS[wish].install}"


def not_there(session: Any, wish: str, nodes: Mapping[str, float]) -> str:
    """Why a session that was made does not run on what it was asked to; empty if it does."""
    if session.get_providers()[0] != PROVIDERS[wish].name:
        needs = PROVIDERS[wish].needs
        return f"could not be started (its driver or libraries are missing: it needs {needs})"
    if nodes and not nodes.get(wish) and not any(nodes.get(b) for b in PROVIDERS[wish].beside):
        return "cannot run a single node of this model"
    return ""


def session_on(
    wish: str, path: Path, brief: Mapping[str, Any], built: Sequence[str], *, watched: bool = True
) -> Made:
    """A session by path: from bytes it would need 2.5 times the memory (reference figures).

    `watched`: its first runs are profiled.
    """
    outfit: Mapping[str, Any] = brief.get("outfit", {})
    cache, compiled = _cache(wish, outfit)
    options = session_options(wish, threads=brief["threads"])
    _add_libraries(options, outfit)
    scratch = _watch(options, profiled=watched) if wish != CPU else None
    if wish == CPU and cache is not None:
        if compiled == "kept":
            path = cache / OPTIMIZED
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        else:
            options.optimized_model_filepath = str(cache / OPTIMIZED)
    asked = providers.asked(
        wish,
        built,
        threads=brief["threads"],
        outfit=outfit,
        cache=cache.as_posix() if cache is not None else "",
    )
    try:
        session = _opened(path, options, wish, asked)
    except BaseException:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        raise
    session.disable_fallback()  # at run time it would rebuild the session elsewhere, in silence
    return Made(session, wish, "", _nodes(session, wish), scratch is not None, compiled)


def _add_libraries(options: Any, outfit: Mapping[str, Any]) -> None:
    """Of custom operators; one that does not load is the device's fault and no model's."""
    for library in outfit.get("libraries", ()):
        try:
            options.register_custom_ops_library(library)
        except Exception as error:
            why = f"accelerators.libraries: {library} does not load: {shortened(error)}"
            raise misfit(why) from error


def _opened(
    path: Path, options: Any, wish: str, asked: Sequence[tuple[str, dict[str, str]]]
) -> Any:
    if not PROVIDERS[wish].registered:
        return ort.InferenceSession(str(path), options, providers=asked, enable_fallback=0)
    devices = [d for d in ort.get_ep_devices() if d.ep_name == PROVIDERS[wish].name]
    options.add_provider_for_devices(devices, asked[0][1])
    return ort.InferenceSession(str(path), options, enable_fallback=0)


def session_options(wish: str, *, threads: int) -> Any:
    """What holds for every session on this provider."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = PROVIDERS[wish].mem_pattern
    options.log_severity_level = FATAL_ONLY
    # A spinning pool costs a whole core at 200 runs a second.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _watch(options: Any, *, profiled: bool) -> Path | None:
    """So that it can be told where nodes were placed, and for its first runs where time went; the
    folder of the profile, where there is room for one.
    """
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if not profiled:
        return None
    try:
        folder = Path(tempfile.mkdtemp(prefix="edge-agent-"))
    except OSError:
        return None
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    return folder


def _cache(wish: str, outfit: Mapping[str, Any]) -> tuple[Path | None, str]:
    """Where `wish` keeps compiled code, and whether it does so anew."""
    if not outfit.get("cache") or (wish == CPU and outfit.get("compiled") != "all"):
        return None, ""
    if wish != CPU and not PROVIDERS[wish].cached:
        return None, ""
    folder = Path(outfit["cache"]) / wish
    if folder.is_dir() and any(folder.iterdir()):
        return folder, "kept"
    if not outfit.get("cache_bytes"):
        return None, ""  # sealed without it
    folder.mkdir(exist_ok=True)
    return folder, "built"


def _nodes(session: Any, wish: str) -> dict[str, float]:
    if wish == CPU:
        return {CPU: 1.0}
    try:
        told = session.get_provider_graph_assignment_info()
    except Exception:  # noqa: BLE001  older ones have no such call, or have not recorded it
        return {}
    counts: dict[str, int] = {}
    for part in told:
        name = providers.short(part.ep_name)
        counts[name] = counts.get(name, 0) + len(part.get_nodes())
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()} if total else {}
