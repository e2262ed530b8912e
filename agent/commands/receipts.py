"""`edge-agent receipts`: what devices can prove of their swaps and rollbacks, and the proof."""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from securesystemslib.signer import SSlibKey

from agent.commands.saying import AsJson, Broker, Patience, Root, checked_id, ending, fail, usage
from agent.core.errors import RefusedError
from agent.core.strict import read_object
from agent.core.wording import receipt_lines
from agent.repository import dial, proofs
from agent.repository.asking import ask
from agent.repository.conversation import Conversation

FILE_BYTES_MAX = 8 * 2**20

app = typer.Typer(no_args_is_help=True, help="The proofs of swaps and rollbacks.")
Key = Annotated[
    Path | None,
    typer.Option("--key", help="The device's public key or certificate, PEM.", metavar="FILE"),
]


@app.command("list")
def list_(
    device: Annotated[str, typer.Option("--device", help="Whose.")],
    model: Annotated[str, typer.Option("--model", help="All of this one; else the last few.")] = "",
    *,
    key: Key = None,
    as_json: AsJson = False,
    timeout: Patience = 30.0,
    mqtt: Broker = "",
    root: Root = "",
) -> None:
    """What a device keeps, the newest first; with --key, exit 0 only if all of it is genuine.

    Example: edge-agent receipts list --device pump-7 --model pump-anomaly --key pump-7.pub
    """
    with ending():
        with usage():
            settings = dial.settings(mqtt, root, os.environ)
            checked_id("device", device)
            args = {"model": checked_id("model", model)} if model else {}
            public = proofs.public_key(key) if key else None
        with Conversation(settings) as talk:
            answer = ask(talk, device, "diagnostics", args, timeout_s=timeout)
        if answer.get("code", 200) != 200:
            fail(f"{device} says {answer.get('code')}: {answer.get('why') or 'no reason given'}")
        envelopes = list(proofs.envelopes_in(answer))
        _end(envelopes, public, as_json=as_json, none=f"{device} keeps no receipt yet")


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A receipt, an event, or /receipts; - for stdin.")],
    *,
    key: Annotated[
        Path,
        typer.Option("--key", help="The device's public key or certificate, PEM.", metavar="FILE"),
    ],
    as_json: AsJson = False,
) -> None:
    """Say whether receipts are what the device has signed; exit 0 only if all of them are.

    Example: curl -s http://127.0.0.1:8080/receipts | edge-agent receipts verify - --key pump-7.pub
    """
    with ending():
        with usage():
            public = proofs.public_key(key)
            document = read_object(_read(file), str(file), bytes_max=FILE_BYTES_MAX)
        envelopes = list(proofs.envelopes_in(document))
        if not envelopes:
            fail(f"there is no receipt in {file}")
        _end(envelopes, public, as_json=as_json, none="")


def _read(file: Path) -> bytes:
    try:
        if str(file) == "-":
            return sys.stdin.buffer.read(FILE_BYTES_MAX + 1)
        with file.open("rb") as opened:
            return opened.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise RefusedError(f"cannot read {file}: {error.strerror}") from error


def _end(
    envelopes: list[Mapping[str, Any]],
    key: SSlibKey | None,
    *,
    as_json: bool,
    none: str,
) -> None:
    doubts = [proofs.doubt(envelope, key) if key else "" for envelope in envelopes]
    if as_json:
        found = [
            {"receipt": e["receipt"], "signature": e.get("signature")}
            | ({"genuine": not why, "why": why} if key else {})
            for e, why in zip(envelopes, doubts, strict=True)
        ]
        typer.echo(json.dumps({"schema": 1, "receipts": found}, ensure_ascii=False))
    else:
        for envelope, why in zip(envelopes, doubts, strict=True):
            word = "genuine" if key else _signature(envelope)
            word = f"NOT GENUINE: {why}" if why else word
            typer.echo("\n    ".join(_lines(envelope["receipt"], word)))
        if not envelopes:
            typer.echo(none)
    if any(doubts):
        fail(f"{sum(map(bool, doubts))} of {len(doubts)} are not genuine")


def _signature(envelope: Mapping[str, Any]) -> str:
    signature = envelope.get("signature")
    if not isinstance(signature, Mapping):
        return "not signed"
    return f"signed by {str(signature.get('keyid'))[:8]}, not checked"


def _lines(receipt: Mapping[str, Any], word: str) -> Iterable[str]:
    told, *evidence = receipt_lines(receipt)
    where = " ".join(f"{receipt.get(part)}" for part in ("device", "model"))
    yield f"{where} #{receipt.get('number')} {_when(receipt.get('time'))} [{word}]"
    yield told
    yield from evidence


def _when(value: object) -> str:
    try:
        then = datetime.fromtimestamp(float(value), UTC)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, OSError):
        return "at no known time"
    return then.isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")
