"""`edge-agent repo init|rotate|override`: who signs, and what they allow besides releases."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from agent.commands.repo_options import (
    Keys,
    Passphrase,
    Pin,
    Repo,
    Uris,
    picked,
    publisher_of,
    repository_of,
    secret_of,
    uris_of,
)
from agent.commands.saying import AsJson, checked_id, ending, usage
from agent.core.errors import RefusedError
from agent.repository import publishing
from agent.repository.layout import Repository
from agent.repository.signed import SignedPublisher

DAY_S = 86400


def init(
    folder: Annotated[Path, typer.Argument(help="A new folder.", metavar="DIR")],
    *,
    team: Annotated[bool, typer.Option("--team", help="Thresholds: 2 of 3 root keys, …")] = False,
    days: Annotated[
        int, typer.Option("--days", min=1, max=3650, help="Devices install so long unheard.")
    ] = 30,
    keys: Keys = None,
    passphrase_file: Passphrase = None,
    pin_file: Pin = None,
    key: Uris = None,
    as_json: AsJson = False,
) -> None:
    """Make a repository, its keys, and the trust anchor for devices (DIR/root.json).

    Example: edge-agent repo init ./repo

    With a key on a PKCS#11 token: --key 'owner=hsm:2?label=edge' --pin-file ./pin
    """
    with ending():
        with usage():
            publisher = SignedPublisher(
                keys=keys,
                passphrase=secret_of(passphrase_file),
                pin=secret_of(pin_file, "PIN"),
                uris=uris_of(key),
                profile="team" if team else "solo",
                timestamp_days=days,
            )
        repo = publishing.init(folder, publisher)
        anchor = repo.folder / "root.json"
        if as_json:
            typer.echo(json.dumps({"schema": 1, "repository": str(folder), "root": str(anchor)}))
        else:
            typer.echo(anchor)
            typer.echo(f"give {anchor} to your devices as repository.root_file", err=True)


def rotate(
    role: Annotated[str, typer.Argument(help="root, targets, snapshot, timestamp or a model.")],
    *,
    repo: Repo = "",
    keys: Keys = None,
    passphrase_file: Passphrase = None,
    pin_file: Pin = None,
    key: Uris = None,
) -> None:
    """Replace the keys of a role; devices follow by themselves.

    Example: edge-agent repo rotate timestamp --repo ./repo
    """
    with ending():
        with usage():
            where = repository_of(repo)
            publisher = publisher_of(keys, passphrase_file, pin_file, uris_of(key))
        for path in publisher.rotate(Repository.open(where), role):
            typer.echo(path)
        typer.echo("these keys sign nothing any more: destroy them", err=True)


def override(
    what: Annotated[str, typer.Argument(help="NAME:VERSION.", metavar="NAME:VERSION")],
    *,
    device: Annotated[
        list[str] | None, typer.Option("--device", help="May go down; as often as you like.")
    ] = None,
    group: Annotated[str, typer.Option("--group", help="Every device of it may.")] = "",
    days: Annotated[int, typer.Option("--days", min=1, max=90, help="Good for so long.")] = 7,
    repo: Repo = "",
    keys: Keys = None,
    passphrase_file: Passphrase = None,
    pin_file: Pin = None,
    as_json: AsJson = False,
) -> None:
    """Let devices go down to an older release, once.  Publish, then `deploy` that version.

    The plain way down needs none: `repo add --again` makes old bytes a new release.

    Example: edge-agent repo override pump-anomaly:3 --device pump-7 --days 7
    """
    with ending():
        with usage():
            where = repository_of(repo)
            publisher = publisher_of(keys, passphrase_file, pin_file)
            devices = [checked_id("device", name) for name in device or ()]
            group = checked_id("group", group) if group else ""
            if bool(devices) == bool(group):
                raise RefusedError("say who may go down: --device D (again for more) or --group G")
            if ":" not in what:
                raise RefusedError(f"say to which version of {what}: {what}:VERSION")
        there = Repository.open(where)
        package = picked(there, what)
        not_after = time.time() + days * DAY_S
        path = publisher.allow(
            there,
            package.ref.name,
            package.ref.release,
            devices=devices,
            group=group,
            not_after=not_after,
        )
        if as_json:
            typer.echo(json.dumps({"schema": 1, "override": path, "not_after": int(not_after)}))
        else:
            typer.echo(path)
