"""Native code that other packages on this device bring for onnxruntime: Windows ML's catalogue of
providers, and onnxruntime-extensions.

Both are looked for only where the configuration says so.  What is not there is a warning, never
the end of the agent.
"""

import importlib
from collections.abc import Callable, Mapping
from types import ModuleType

import structlog

from agent.core.accelerators import PROVIDERS

log = structlog.get_logger(__name__)

WINDOWS_ML = "winui3.microsoft.windows.ai.machinelearning"
EXTENSIONS = "onnxruntime_extensions"
Import = Callable[[str], ModuleType]
_SHORT = {provider.name: short for short, provider in PROVIDERS.items()}


def catalogue(load: Import = importlib.import_module) -> Mapping[str, str]:
    """Our name of a provider -> its library, of those that Windows ML has or could make ready.

    It may download, so it is asked once, at a start.
    """
    try:
        found = load(WINDOWS_ML).ExecutionProviderCatalog.get_default().find_all_providers()
    except (ImportError, OSError, AttributeError) as error:
        log.warning("catalogue.absent", why=str(error))
        return {}
    libraries = {}
    for provider in found:
        if (short := _SHORT.get(provider.name)) is None:
            continue
        try:
            outcome = provider.ensure_ready_async().get()
        except OSError as error:
            log.warning("catalogue.not_ready", provider=short, why=str(error))
            continue
        if getattr(outcome.status, "name", str(outcome.status)).upper() == "SUCCESS":
            libraries[short] = str(provider.library_path)
        else:
            log.warning("catalogue.not_ready", provider=short, why=str(outcome.status))
    return libraries


def extensions(load: Import = importlib.import_module) -> str:
    """The library of onnxruntime-extensions; empty where it is not installed."""
    try:
        return str(load(EXTENSIONS).get_library_path())
    except (ImportError, OSError, AttributeError) as error:
        log.warning("extensions.absent", why=str(error), help="pip install onnxruntime-extensions")
        return ""
