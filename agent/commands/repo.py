"""`edge-agent repo`: the signed repository of packages."""

import json
import logging
import os
import signal
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from agent.commands import repo_keys
from agent.commands.logs import to_stderr
from agent.commands.repo_options import (
    Keys,
    Passphrase,
    Pin,
    Repo,
    Tags,
    address_of,
    joined,
    picked,
    publisher_of,
    repository_of,
    tags_of,
)
from agent.commands.saying import AsJson, Broker, Root, ending, screen, usage
from agent.config import ENV_PREFIX
from agent.core.errors import RefusedError
from agent.core.packages import describe
from agent.repository import authoring, dial, publishing, samples
from agent.repository.layout import Repository
from agent.repository.serving import ChunkServer
from agent.repository.web import WebServer

app = typer.Typer(no_args_is_help=True)

What = Annotated[str, typer.Argument(help="NAME or NAME:VERSION.", metavar="NAME[:VERSION]")]


app.command()(repo_keys.init)
app.command()(repo_keys.rotate)
app.command()(repo_keys.override)


@app.callback()
def repo_() -> None:
    """Keep the signed repository of model packages."""
    to_stderr()


@app.command()
def add(
    folder: Annotated[Path, typer.Argument(help="The package's folder.", metavar="DIR")],
    *,
    repo: Repo = "",
    tag: Tags = None,
    again: Annotated[
        bool, typer.Option("--again", help="A new release even if the bytes are the newest's.")
    ] = False,
    min_release: Annotated[
        int, typer.Option("--min-release", min=0, help="From now on none older may run: for ever.")
    ] = 0,
    min_agent: Annotated[
        str, typer.Option("--min-agent", help="The oldest agent that runs it.", metavar="VERSION")
    ] = "",
    ort: Annotated[
        str, typer.Option("--ort", help="Of onnxruntime, such as '>=1.23'.", metavar="VERSIONS")
    ] = "",
    hw: Annotated[
        list[str] | None, typer.Option("--hw", help="For such devices only; as often as you like.")
    ] = None,
    keys: Keys = None,
    passphrase_file: Passphrase = None,
    pin_file: Pin = None,
    as_json: AsJson = False,
) -> None:
    """Register the next version of a model, sign it and print NAME:VERSION.

    Visible to devices at once.  Builds golden samples first where they are missing.

    Example: edge-agent repo add ./pump-anomaly --repo ./repo --tag area=pumps
    """
    with ending():
        with usage():
            where, tags = repository_of(repo), tags_of(tag)
            publisher = publisher_of(keys, passphrase_file, pin_file)
        there = Repository.open(where)
        with Console(stderr=True).status("adding"):
            added = publishing.add(
                there,
                folder,
                publisher,
                tags=tags,
                demands={
                    "min_agent": min_agent,
                    "hw": hw,
                    "min_release": min_release,
                    "ort": ort,
                },
                again=again,
                build=authoring.build,
                look=samples.look,
            )
        label = f"{added.package.ref.name}:{added.package.version}"
        if as_json:
            typer.echo(json.dumps({"schema": 1, "fresh": added.fresh, **describe(added.package)}))
        else:
            typer.echo(label)
            if not added.fresh:
                typer.echo(f"these bytes are {label} already; --again makes a release", err=True)
        _aside(added.notes)


@app.command()
def publish(
    *,
    repo: Repo = "",
    keys: Keys = None,
    passphrase_file: Passphrase = None,
    pin_file: Pin = None,
    as_json: AsJson = False,
) -> None:
    """Sign anew what is there, before signatures run out.  `add` does it by itself.

    Example: edge-agent repo publish --repo ./repo
    """
    with ending():
        with usage():
            where, publisher = repository_of(repo), publisher_of(keys, passphrase_file, pin_file)
        count, notes = publishing.publish(Repository.open(where), publisher)
        if as_json:
            typer.echo(json.dumps({"schema": 1, "releases": count, "notes": list(notes)}))
        else:
            typer.echo(f"published {count} releases")
            _aside(notes)


@app.command("list")
def list_(
    name: Annotated[str, typer.Argument(help="Only this model.", metavar="[NAME]")] = "",
    *,
    tag: Tags = None,
    repo: Repo = "",
    as_json: AsJson = False,
) -> None:
    """List releases, the newest of each model last.

    Example: edge-agent repo list pump-anomaly --tag area=pumps --json
    """
    with ending():
        with usage():
            where, wanted = repository_of(repo), tags_of(tag)
        found = [
            package
            for package in Repository.open(where).packages()
            if name in ("", package.ref.name) and wanted.items() <= dict(package.tags).items()
        ]
        if as_json:
            document = {"schema": 1, "packages": [describe(package) for package in found]}
            typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
            return
        if not found:
            typer.echo(f"there is no release{f' of {name}' if name else ''} here", err=True)
            return
        table = Table(box=None)
        for column in ("model", "size", "tags", "digest"):
            table.add_column(column, justify="right" if column == "size" else "left")
        for package in found:
            size = decimal(package.size)
            label = f"{package.ref.name}:{package.version}"
            table.add_row(label, size, joined(package), package.ref.digest[:19])
        screen().print(table)


@app.command()
def show(what: What, *, repo: Repo = "", as_json: AsJson = False) -> None:
    """Show one release, the newest if no version is named.

    Example: edge-agent repo show pump-anomaly:3
    """
    with ending():
        with usage():
            where = repository_of(repo)
        package = picked(Repository.open(where), what)
        if as_json:
            typer.echo(json.dumps({"schema": 1, **describe(package)}, indent=2, ensure_ascii=False))
            return
        table = Table(show_header=False, box=None)
        table.add_column()
        table.add_column(overflow="fold")
        table.add_row("model", f"{package.ref.name}:{package.version}")
        table.add_row("release", str(package.ref.release))
        table.add_row("digest", package.ref.digest)
        table.add_row("tags", joined(package))
        demands = {k: v for k, v in package.custom.items() if k != "runtime"}
        for key, value in {**demands, **package.custom.get("runtime", {})}.items():
            table.add_row(key, json.dumps(value))
        for file in package.files:
            table.add_row("file", f"{file.path}  {file.size:,} bytes  {file.sha256}")
        screen().print(table)


@app.command()
def remove(
    what: Annotated[str, typer.Argument(help="NAME:VERSION.", metavar="NAME:VERSION")],
    *,
    repo: Repo = "",
    keys: Keys = None,
    passphrase_file: Passphrase = None,
    pin_file: Pin = None,
) -> None:
    """Forget a release.  Devices that run it go on; its number is not given again.

    Example: edge-agent repo remove pump-anomaly:1
    """
    with ending():
        with usage():
            where, publisher = repository_of(repo), publisher_of(keys, passphrase_file, pin_file)
            if ":" not in what:
                raise RefusedError(f"say which version of {what} to remove: {what}:VERSION")
        there = Repository.open(where)
        package = picked(there, what)
        freed = publishing.remove(there, package.ref.name, package.ref.release, publisher)
        typer.echo(f"removed {package.ref.name}:{package.version}, {decimal(freed)} freed")


@app.command()
def serve(
    *,
    repo: Repo = "",
    mqtt: Broker = "",
    root: Root = "",
    http: Annotated[
        str, typer.Option("--http", help="Also serve the files here.", metavar="HOST:PORT")
    ] = "",
    cert: Annotated[str | None, typer.Option("--cert", help="PEM chain: serve https.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="PEM key of --cert.")] = None,
) -> None:
    """Answer chunk requests over MQTT, and ranged GETs over HTTP, until Ctrl-C.

    Example: edge-agent repo serve --repo ./repo --mqtt mqtt://broker.plant:1883 --http :8088
    """
    with ending():
        with usage():
            where = repository_of(repo)
            address = address_of(http)
            if bool(cert) != bool(key) or "" in (cert, key):  # of an unset variable: no plain http
                raise RefusedError("--cert and --key go together")
            over_mqtt = bool(mqtt or f"{ENV_PREFIX}MQTT__URL" in os.environ or not http)
            settings = dial.settings(mqtt, root, os.environ) if over_mqtt else None
        there = Repository.open(where)
        to_stderr(logging.INFO)
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        with ExitStack() as stack:
            if settings is not None:
                stack.enter_context(ChunkServer(there, settings))
                typer.echo(f"serving chunks on {dial.url_of(settings)}, {settings.root}/repo/get/+")
            if address is not None:
                tls = (cert, key) if cert and key else None
                typer.echo(
                    f"serving {stack.enter_context(WebServer(there, *address, tls=tls)).url}"
                )
            try:
                while not stop.wait(1.0):
                    pass
            except KeyboardInterrupt:
                typer.echo("stopped", err=True)


def _aside(notes: Sequence[str]) -> None:
    for note in notes:
        typer.echo(note, err=True)
