"""`edge-agent check`: could this device run?  Looks, changes nothing, starts nothing."""

import json
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from agent.adapters.files.contents import read_folder
from agent.adapters.folder import folder_of
from agent.adapters.web import probe
from agent.commands.findings import Probe, document, exit_code, look, show
from agent.commands.run import settings
from agent.commands.saying import AsJson, usage
from agent.config import Config, FactoryModel
from agent.core.errors import RefusedError, UnavailableError
from agent.core.trust import begin
from agent.repository.conversation import Conversation

ROOM_BYTES_LEAST = 64 * 2**20


def check(
    config: Annotated[str, typer.Option("--config", help="agent.toml.", metavar="FILE")] = "",
    as_json: AsJson = False,
) -> None:
    """Say whether this device could run: configuration, store, broker, trust, providers.

    Example: edge-agent check --config agent.toml
    """
    with usage():
        known = settings(config or None)
    parts: list[tuple[str, Probe]] = [
        ("configuration", lambda: _configuration(known)),
        ("store", lambda: _store(Path(known.store.dir))),
        ("broker", lambda: _broker(known)),
        ("repository", lambda: _repository(known)),
        ("trust", lambda: _trust(known)),
        ("receipts", lambda: _receipts(known)),
        ("http", lambda: probe(known.http)),
        ("providers", lambda: _providers(known)),
    ]
    parts += [(f"model {m.name}", partial(_model, m)) for m in known.model]
    found = look(parts)
    if as_json:
        typer.echo(json.dumps(document(found), ensure_ascii=False))
    else:
        show(found)
    raise typer.Exit(exit_code(found))


def _configuration(config: Config) -> str:
    if not config.stream:
        raise RefusedError("there is no [[stream]]: no reading will ever come in")
    streams = ", ".join(stream.name for stream in config.stream)
    return f"device {config.device.id}, streams {streams}"


def _store(folder: Path) -> str:
    """Written to and taken away again; the folder is made by `run`, not here."""
    there = folder
    while not there.exists():
        there = there.parent
    try:
        with tempfile.NamedTemporaryFile(dir=there) as trial:
            trial.write(b"edge-agent check")
            trial.flush()
            os.fsync(trial.fileno())
        free = shutil.disk_usage(there).free
    except OSError as error:
        why = f"cannot write to {there}: {error.strerror}; set store.dir or its rights"
        raise UnavailableError(why) from error
    database = folder / "agent.db"
    if database.exists() and not (database.is_file() and os.access(database, os.W_OK)):
        raise UnavailableError(f"{database} is no file that can be written to")
    if free < ROOM_BYTES_LEAST:
        raise UnavailableError(f"{there} has {free / 2**20:.0f} MB free; at least 64 are needed")
    return f"{folder}, {free / 2**30:.1f} GB free"


def _broker(config: Config) -> str:
    if config.mqtt.url == "embedded":
        from agent.adapters.embedded import EmbeddedBroker

        EmbeddedBroker(config.mqtt.embedded_bind, Path(config.store.dir))
        return f"embedded, will listen on {config.mqtt.embedded_bind}"
    with Conversation(config.mqtt):
        return f"{config.mqtt.url} lets us in"


def _repository(config: Config) -> str:
    url = config.repository.url
    if url.startswith("file:") and not folder_of(url).is_dir():
        raise UnavailableError(f"there is no repository at {folder_of(url)}")
    return url


def _trust(config: Config) -> str:
    if config.repository.trust == "none":
        return 'none: unsigned packages are installed, because repository.trust = "none"'
    path = config.repository.root_file
    if not path:
        raise RefusedError("repository.root_file names no trust anchor: nothing can be installed")
    try:
        begin(Path(path).read_bytes())
    except OSError as error:
        raise UnavailableError(f"cannot read {path}: {error.strerror}") from error
    return f"anchored in {path}"


def _receipts(config: Config) -> str:
    """What they would be signed with; where a key is named, one that cannot sign is a finding."""
    if not config.device.key_file:
        return "not signed: device.key_file is not set"
    from agent.adapters.device_key import DeviceKey

    key = DeviceKey(Path(config.device.key_file))
    return f"signed with the {key.scheme} key {key.keyid[:8]}"


def _model(model: FactoryModel) -> str:
    """One that came with the device: that it is a package, not that it would pass."""
    if not Path(model.path).is_dir():
        raise UnavailableError(f"there is no folder {model.path}")
    manifest = read_folder(Path(model.path)).manifest
    if manifest.name != model.name:
        raise RefusedError(f"the package in {model.path} is called {manifest.name}")
    return f"{model.path}, on the stream {model.stream}"


def _providers(config: Config) -> str:
    from agent.adapters.processes import Limits, ProcessEngine

    engine = ProcessEngine(Limits.of(config.engine))
    return f"{', '.join(engine.providers())}; onnxruntime {engine.version()}, jail {engine.jail()}"
