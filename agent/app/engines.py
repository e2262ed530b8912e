"""Which engine holds versions, and what the configuration gives it."""

from dataclasses import replace
from pathlib import Path

from agent.adapters.catalogue import catalogue, extensions
from agent.config import Config
from agent.core.accelerators import EXTENSION_DOMAINS, Outfit
from agent.ports import Engine, Notes

COMPILED = "compiled"  # beneath store.dir


def engine(config: Config, notes: Notes) -> Engine:
    """Versions in worker processes, or in this one where the device is too small for that.

    `notes` is where it is remembered which provider was the fastest.
    """
    outfit, domains = _outfit(config)
    if config.engine.isolation == "inline":
        from agent.adapters.onnx import InlineEngine

        return InlineEngine(domains=domains, run_s=config.engine.run_s_max, outfit=outfit)
    from agent.adapters.processes import Compiled, Limits, ProcessEngine

    kept = Compiled(Path(config.store.dir) / COMPILED, int(config.accelerators.compiled_mb * 2**20))
    limits = replace(Limits.of(config.engine), domains=domains)
    return ProcessEngine(limits, outfit=outfit, compiled=kept, notes=notes)


def _outfit(config: Config) -> tuple[Outfit, tuple[str, ...]]:
    """And the operator sets that go with it."""
    section, domains = config.accelerators, config.engine.domains
    outfit = section.outfit()
    if section.catalogue:
        outfit = replace(outfit, plugins={**catalogue(), **outfit.plugins})
    if section.extensions and (library := extensions()):
        outfit = replace(outfit, libraries=(*outfit.libraries, library))
        domains = (*domains, *EXTENSION_DOMAINS)
    libraries = tuple(map(_from_the_root, outfit.libraries))
    plugins = {name: _from_the_root(path) for name, path in outfit.plugins.items()}
    return replace(outfit, libraries=libraries, plugins=plugins), domains


def _from_the_root(path: str) -> str:
    """Workers stand elsewhere; a bare name the system finds stays what it is."""
    return str(Path(path).absolute()) if Path(path).exists() else path
