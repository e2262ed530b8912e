"""How `edge-agent repo` is told where the repository, its keys and its addresses are."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated
from urllib.parse import unquote, urlsplit

import typer

from agent.config import ENV_PREFIX
from agent.core.errors import RefusedError
from agent.core.packages import Package
from agent.repository.keys import read_secret
from agent.repository.layout import Repository
from agent.repository.publishing import check_tags
from agent.repository.signed import SignedPublisher
from agent.repository.wishes import pick

ENV_REPO = "EDGE_AGENT_REPO"

Repo = Annotated[
    str,
    typer.Option("--repo", help=f"The repository's folder; else {ENV_REPO}.", metavar="DIR"),
]
Keys = Annotated[
    Path | None, typer.Option("--keys", help="Where the keys are, if not in DIR/keys.")
]
Passphrase = Annotated[
    Path | None, typer.Option("--passphrase-file", help="What the keys are encrypted with.")
]
Pin = Annotated[Path | None, typer.Option("--pin-file", help="What opens the keys' tokens.")]
Uris = Annotated[
    list[str] | None,
    typer.Option("--key", help="A key on a PKCS#11 token.", metavar="LABEL=hsm:ID?label=TOKEN"),
]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="k=v; as often as you like.")]


def repository_of(folder: str) -> Path:
    """The repository's folder: as given, or as the environment has it, or this very folder.

    Raises:
        RefusedError: none of them.
    """
    url = os.environ.get(f"{ENV_PREFIX}REPOSITORY__URL", "")
    found = folder or os.environ.get(ENV_REPO, "")
    if not found and url.startswith("file:"):
        found = unquote(urlsplit(url).path)
    if not found and Repository(Path()).exists():
        found = "."
    if not found:
        raise RefusedError(f"no repository is named; pass --repo DIR or set {ENV_REPO}")
    return Path(found)


def secret_of(path: Path | None, what: str = "passphrase") -> bytes | None:
    """The first line of a file, if one is named.  Raises RefusedError."""
    return None if path is None else read_secret(path, what)


def uris_of(given: list[str] | None) -> dict[str, str]:
    """Keys on tokens, written as label=uri.  Raises RefusedError."""
    pairs = [text.partition("=") for text in given or ()]
    for label, equals, uri in pairs:
        if not (label and equals and uri):
            raise RefusedError(f"{label!r} names no key; write --key 'owner=hsm:2?label=edge'")
    return {label: uri for label, _, uri in pairs}


def tags_of(given: list[str] | None) -> dict[str, str]:
    """Tags written as k=v.  Raises RefusedError."""
    tags = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals:
            raise RefusedError(f"{text!r} is no tag; write --tag area=pumps")
        tags[key] = value
    check_tags(tags)
    return tags


def publisher_of(
    keys: Path | None,
    passphrase_file: Path | None,
    pin_file: Path | None,
    uris: Mapping[str, str] = MappingProxyType({}),
) -> SignedPublisher:
    """Who signs, with the keys that were named.  Raises RefusedError."""
    return SignedPublisher(
        keys=keys,
        passphrase=secret_of(passphrase_file),
        pin=secret_of(pin_file, "PIN"),
        uris=uris,
    )


def picked(repo: Repository, what: str) -> Package:
    """The release that NAME or NAME:VERSION means.  Raises RefusedError: there is none."""
    name, _, version = what.partition(":")
    return pick(repo.packages(), name, version)


def joined(package: Package) -> str:
    """Its tags as they were given: k=v, k=v."""
    return ", ".join(f"{key}={value}" for key, value in package.tags.items())


def address_of(text: str) -> tuple[str, int] | None:
    """Host and port; None for an empty text.  Raises RefusedError."""
    if not text:
        return None
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise RefusedError(f"{text!r} is no address; write HOST:PORT, such as 127.0.0.1:8088")
    return host.strip("[]") or "127.0.0.1", int(port)
