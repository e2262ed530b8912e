"""`edge-agent status`, `rollback` and `command`: what the fleet says, and single words to it."""

import json
import os
import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from agent.commands.deploying import deploy
from agent.commands.fleet_table import render
from agent.commands.saying import (
    AsJson,
    Broker,
    Patience,
    Root,
    checked_id,
    ending,
    fail,
    screen,
    usage,
)
from agent.core.names import is_id
from agent.core.wire import COMMANDS
from agent.repository import dial
from agent.repository.asking import ask
from agent.repository.conversation import Conversation
from agent.repository.fleet import Device, fleet_of, take, value_of

__all__ = ["command", "deploy", "rollback", "status"]

WATCH_S = 0.5  # between two drawings


def status(
    *,
    device: Annotated[str, typer.Option("--device", help="Only this one.")] = "",
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it, live.")] = False,
    as_json: AsJson = False,
    mqtt: Broker = "",
    root: Root = "",
) -> None:
    """The fleet as its retained reports tell it.

    Example: edge-agent status --mqtt mqtt://broker.plant:1883 --watch
    """
    with ending():
        with usage():
            settings = dial.settings(mqtt, root, os.environ)
            one = checked_id("device", device) if device else "+"
        with Conversation(settings) as talk:
            filters = [f"{talk.root}/{one}/{kind}" for kind in ("reported", "status")]
            fleet = fleet_of(talk.retained(*filters), talk.root)
            if watch:
                _watch(talk, fleet, as_json=as_json)
                return
        if as_json or fleet or not device:
            _show(fleet, as_json=as_json)
        if device and device not in fleet:
            fail(f"{device} has never reported under {settings.root}/; is that its id?")


def rollback(
    name: Annotated[str, typer.Argument(help="The model.")],
    *,
    device: Annotated[str, typer.Option("--device", help="On which device.")],
    as_json: AsJson = False,
    timeout: Patience = 30.0,
    mqtt: Broker = "",
    root: Root = "",
) -> None:
    """Back to the known good version of a model.

    Example: edge-agent rollback pump-anomaly --device pump-7
    """
    args = {"model": name}
    _send(device, "rollback", args, broker=(mqtt, root), timeout_s=timeout, as_json=as_json)


def command(
    device: Annotated[str, typer.Argument(help="The device.")],
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(COMMANDS)}.")],
    *,
    arg: Annotated[
        list[str] | None, typer.Option("--arg", help="k=v; numbers, lists and tables as JSON.")
    ] = None,
    as_json: AsJson = False,
    timeout: Patience = 30.0,
    mqtt: Broker = "",
    root: Root = "",
) -> None:
    """Send one command to a device and show its answer.

    Example: edge-agent command pump-7 pause --arg stream=pump
    """
    args: dict[str, Any] = {}
    for pair in arg or []:
        key, equals, text = pair.partition("=")
        if not (key and equals):
            fail(f"{pair!r} is no argument; write one as stream=pump", code=2)
        args[key] = value_of(text)
    if name not in COMMANDS:
        fail(f"{name!r} is no command; known are {', '.join(COMMANDS)}", code=2)
    for need in COMMANDS[name]:
        args[need] = str(args.get(need, ""))  # a name, though it may look like a number
        if not is_id(args[need]):
            fail(f"{name} needs --arg {need}=NAME", code=2)
    _send(device, name, args, broker=(mqtt, root), timeout_s=timeout, as_json=as_json)


def _send(
    device: str,
    name: str,
    args: Mapping[str, Any],
    *,
    broker: tuple[str, str],
    timeout_s: float,
    as_json: bool,
) -> None:
    with ending():
        with usage():
            settings = dial.settings(*broker, os.environ)
            checked_id("device", device)
        with Conversation(settings) as talk:
            answer = ask(talk, device, name, args, timeout_s=timeout_s)
        code, why = answer.get("code", 200), str(answer.get("why") or "")
        if as_json:
            typer.echo(json.dumps(answer, ensure_ascii=False))
        elif code == 200:
            more = {k: v for k, v in answer.items() if k not in ("schema", "id", "code", "why")}
            typer.echo(f"{device}: {name} done{f', {why}' if why else ''}")
            if more:
                Console().print_json(data=more)
        if code != 200:
            fail(f"{device} says {code}: {why or 'no reason given'}")


def _show(fleet: Mapping[str, Device], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(_document(fleet), ensure_ascii=False))
    elif fleet:
        console = screen()
        console.print(render(fleet, console.width))
    else:
        typer.echo("no device has reported yet")


def _document(fleet: Mapping[str, Device]) -> dict[str, Any]:
    devices = {
        name: {
            "online": device.online,
            "status": device.status or None,
            "reported": device.report or None,
            **({"trouble": device.trouble} if device.trouble else {}),
        }
        for name, device in fleet.items()
    }
    return {"schema": 1, "devices": devices}


def _watch(talk: Conversation, fleet: dict[str, Device], *, as_json: bool) -> None:
    """Until Ctrl-C.  On a terminal one table that changes, elsewhere what changed, as it does."""
    console = screen()
    if as_json or not console.is_terminal:
        _show(fleet, as_json=as_json)
        while True:
            message = talk.next(WATCH_S)
            if message is None:
                continue
            changed = take(fleet, message.topic, message.payload, talk.root)
            if changed is not None:
                _show({changed.name: changed}, as_json=as_json)
    with Live(console=console, auto_refresh=False) as live:
        live.update(render(fleet, console.width), refresh=True)
        drawn = time.monotonic()
        while True:
            message = talk.next(WATCH_S)
            if message is not None:
                take(fleet, message.topic, message.payload, talk.root)
            if time.monotonic() - drawn >= WATCH_S:
                live.update(render(fleet, console.width), refresh=True)
                drawn = time.monotonic()
