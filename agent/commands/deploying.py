"""`edge-agent deploy`: wish for a version, and follow the wish to its end."""

import json
import os
import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console

from agent.commands.narrator import Narrator
from agent.commands.repo_options import Repo, repository_of
from agent.commands.saying import AsJson, Broker, Root, checked_id, ending, fail, usage
from agent.core.bars import Bars
from agent.core.errors import RefusedError
from agent.core.packages import Package
from agent.core.topics import Topics
from agent.core.wire import DesiredModel, apply_bars, unknown_bars
from agent.core.wording import receipt_words
from agent.repository import dial
from agent.repository.chronicle import Chronicle
from agent.repository.conversation import Conversation
from agent.repository.fleet import (
    Device,
    Follower,
    Newer,
    Progress,
    amend,
    bars_from,
    fleet_of,
    take,
)
from agent.repository.layout import Repository
from agent.repository.wishes import (
    check_not_lost,
    members_of,
    pick,
    replacement,
    wished_by,
)

RECEIPT_S_MAX = 5.0  # after the end, for the figures that come after a swap
NEVER = "never reported"  # where a wish stands on a device that nobody has heard of

_BARS: dict[str, dict[str, Any]] = Bars().model_dump()


def deploy(
    what: Annotated[str, typer.Argument(help="NAME or NAME:VERSION.", metavar="NAME[:VERSION]")],
    *,
    device: Annotated[str, typer.Option("--device", help="To this device.")] = "",
    group: Annotated[str, typer.Option("--group", help="To every device of this group.")] = "",
    repo: Repo = "",
    stream: Annotated[str, typer.Option(help="What it scores; the one it had, if absent.")] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A bar of the rollout, e.g. shadow.windows=50."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow it until it is committed.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to follow it.")] = 600.0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start a new desired document; retires the rest.")
    ] = False,
    as_json: AsJson = False,
    mqtt: Broker = "",
    root: Root = "",
) -> None:
    """Wish for a version on a device or a group; with --wait, exit 0 only if it was committed.

    A group's members are the devices whose reports name it; with --wait those that have a wish of
    their own for this model are left out, and one that has never reported is not waited for.

    Each phase is told on stderr with its evidence; with --json as one object a line, and the
    outcome as one document on stdout.  Ctrl-C ends the following, never the wish.

    Example: edge-agent deploy pump-anomaly:2 --device pump-7 --repo ./repo --wait
    """
    with ending():
        with usage():
            broker = dial.settings(mqtt, root, os.environ)
            if bool(device) == bool(group):
                raise RefusedError("say where: either --device D or --group G")
            checked_id("device" if device else "group", device or group)
            name, _, version = what.partition(":")
            checked_id("model", name)
            rollout = _bars(settings or [])
            if stream:
                checked_id("stream", stream)
            folder = repository_of(repo)
        repository = Repository.open(folder)
        package = pick(repository.packages(), name, version)
        wish = DesiredModel(package.ref.release, stream or None, rollout)
        with Conversation(broker) as talk:
            deployment = _Deployment(talk, package, wish, device=device, group=group)
            deployment.publish(repository.metadata_files(), fresh=fresh)
            if not as_json:
                typer.echo(deployment.line())
            outcome = deployment.follow(timeout, as_json=as_json) if wait else {}
        _end(deployment, outcome, wait=wait, as_json=as_json, timeout_s=timeout)


class _Deployment:
    """One wish on its way, and who is expected to fulfil it."""

    def __init__(
        self, talk: Conversation, package: Package, wish: DesiredModel, *, device: str, group: str
    ) -> None:
        self._talk, self.package, self._wish = talk, package, wish
        self._device, self._group = device, group
        self.revision = 0
        self.receipts: dict[str, Mapping[str, Any]] = {}  # of the devices that have written one
        topics = Topics(talk.root, device)
        self.topic = topics.desired if device else topics.group_desired(group)
        self._documents = talk.retained(
            f"{talk.root}/{device or '+'}/reported",
            f"{talk.root}/{device or '+'}/status",
            f"{talk.root}/{device or '+'}/desired",
            f"{talk.root}/group/+/desired",
        )
        self._fleet = fleet_of(self._documents, talk.root)
        self._newer: dict[str, Newer | None] = {}  # by topic: what is wished for instead

    def publish(self, metadata: Mapping[str, bytes], *, fresh: bool) -> None:
        """Amend the retained document and publish it."""
        name = self.package.ref.name
        previous = None if fresh else self._documents.get(self.topic)
        known = self._fleet.get(self._device)
        above = known.revision if known else 0
        if previous is None and known is not None and not fresh:
            check_not_lost(known, name, self._documents)
        try:
            done = amend(previous, name, self._wish, metadata=metadata, above=above)
        except RefusedError as error:
            if error.code != 413 or not metadata:
                raise
            typer.echo(f"note: the signed metadata stays behind: {error}", err=True)
            done = amend(previous, name, self._wish, metadata={}, above=above)
        self.revision, body = done
        self._talk.publish(self.topic, body, retain=True)

    def follow(self, timeout_s: float, *, as_json: bool) -> dict[str, Progress]:
        """Watch the reports until every device has settled, or time is up."""
        until = time.monotonic() + timeout_s
        last: dict[str, Progress] = {}
        try:
            with Narrator(self.package.ref, as_json=as_json) as narrator:
                expected = self._watch(until, last, narrator)
        except KeyboardInterrupt:
            typer.echo("followed no longer; the wish stands, see edge-agent status", err=True)
            raise
        return {name: last.get(name, Progress(NEVER)) for name in sorted(expected)}

    def _watch(self, until: float, last: dict[str, Progress], narrator: Narrator) -> set[str]:
        expected = self._expected()
        followers: dict[str, tuple[Follower, Chronicle]] = {}
        for message in self._talk.messages(until):
            if message is not None:
                take(self._fleet, message.topic, message.payload, self._talk.root)
                self._take_wish(message.topic, message.payload)
            expected |= self._expected()
            for name in sorted(expected):
                follower, chronicle = followers.setdefault(name, self._follower(name))
                device = self._fleet.get(name)
                if device is None:
                    continue
                model = device.model(self.package.ref.name)
                follower.replaced(self._newer.get(self._own(name)) or self._newer.get(self.topic))
                if (receipt := chronicle.receipt(model)) is not None:
                    self.receipts[name] = receipt
                if name not in last or not _settled(last[name]):
                    last[name] = follower.see(device, time.monotonic())
                    narrator.tell(device, last[name], chronicle)
            if expected and all(name in last and _settled(last[name]) for name in expected):
                until = min(until, time.monotonic() + RECEIPT_S_MAX)
                if self._are_complete() or time.monotonic() >= until:
                    break
            narrator.tick(self._talk.away)
        return expected

    def _take_wish(self, topic: str, raw: bytes) -> None:
        """A desired document, if it is one: ours, or one that goes over it or takes its place."""
        if topic.endswith("/desired"):
            ref, ours = self.package.ref, topic == self.topic
            of = topic.split("/")[-2]
            above = self.revision if ours else None
            self._newer[topic] = replacement(raw, ref.name, ref.release, above=above, of=of)

    def _own(self, device: str) -> str:
        return Topics(self._talk.root, device).desired

    def _are_complete(self) -> bool:
        return all(receipt.get("complete", True) for receipt in self.receipts.values())

    def line(self) -> str:
        """What was wished, and where."""
        ref, version = self.package.ref, self.package.version
        shown = f"{ref.name}:{version}" + ("" if version == str(ref.release) else f" ({ref})")
        return f"{shown} is desired at {self.topic}, revision {self.revision}"

    def nobody(self, timeout_s: float) -> str:
        """Why there was no device to follow."""
        if own := sorted(members_of(self._fleet, self._group)):
            return (
                f"{', '.join(own)} of this group follow wishes of their own for"
                f" {self.package.ref.name}; use --device for them"
            )
        return f"no device of this group has reported within {timeout_s:g} s; the wish stands"

    def _expected(self) -> set[str]:
        if self._device:
            return {self._device}
        members = members_of(self._fleet, self._group)
        return {m for m in members if not wished_by(m, self.package.ref.name, self._documents)}

    def _follower(self, name: str) -> tuple[Follower, Chronicle]:
        ref = self.package.ref
        before = fleet_of(self._documents, self._talk.root).get(name) or Device(name)
        revision = self.revision if self._device else None
        follower = Follower(ref.name, ref.release, revision, before.report)
        return follower, Chronicle(ref.release, before.model(ref.name))


def _settled(progress: Progress) -> bool:
    return progress.committed is not None


def _end(
    deployment: _Deployment,
    outcome: Mapping[str, Progress],
    *,
    wait: bool,
    as_json: bool,
    timeout_s: float,
) -> None:
    if as_json:
        typer.echo(json.dumps(_document(deployment, outcome), ensure_ascii=False))
    if not wait:
        return
    if not outcome:
        fail(deployment.nobody(timeout_s))
    if not as_json:
        for name, receipt in sorted(deployment.receipts.items()):
            typer.echo(f"{name}: {receipt_words(receipt)}")
    sentences = [_sentence(d, p, timeout_s) for d, p in outcome.items() if not p.committed]
    if sentences:
        fail("; ".join(sentences))
    if not as_json:
        Console().print(f"committed on {', '.join(outcome)}", style="green", highlight=False)


def _sentence(device: str, progress: Progress, timeout_s: float) -> str:
    why = f": {progress.why}" if progress.why else ""
    if progress.committed is None:
        stands = progress.instead or "the wish stands"
        seen = f"last seen {progress.phase} {progress.share:.0%}{why}"
        if progress.phase == NEVER:
            seen = "and has never reported (is that its id, and is it connected?)"
        return f"{device} has not committed it within {timeout_s:g} s, {seen}; {stands}"
    return f"{device}: {progress.phase}{why}"


def _document(deployment: _Deployment, outcome: Mapping[str, Progress]) -> dict[str, Any]:
    package = deployment.package
    return {
        "schema": 1,
        "name": package.ref.name,
        "version": package.version,
        "release": package.ref.release,
        "digest": package.ref.digest,
        "topic": deployment.topic,
        "revision": deployment.revision,
        "devices": {
            device: {
                "committed": p.committed,
                "phase": p.phase,
                "why": p.why,
                "receipt": deployment.receipts.get(device),
            }
            for device, p in outcome.items()
        },
    }


def _bars(settings: list[str]) -> dict[str, dict[str, Any]]:
    overrides = bars_from(settings)
    if unknown := unknown_bars(overrides):
        known = ", ".join(f"{bar}.{member}" for bar in _BARS for member in _BARS[bar])
        raise RefusedError(f"there is no bar {', '.join(unknown)}; there are {known}")
    apply_bars(Bars(), overrides)
    return overrides
