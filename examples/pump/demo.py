"""The story, live, on this machine alone: a swap that proves itself, and undoes itself.

    make demo            the page stays up until Ctrl-C
    make demo ONCE=1     unattended; exits 0 only if each step happened

An agent with a broker inside, three simulated pumps, a signed repository.  Version 1 scores, 2
swaps in without a reading lost, 3 looks good and goes wrong and is rolled back, 4 is not what was
tested and is refused; the stream is scored all along.  Only commands that a person could type are
used; `--verbose` shows them.
"""

import argparse
import json
import sys
import time

from rich.panel import Panel
from rich.table import Table
from stage import DEVICE, HERE, NAME, Stage, State, StoryError, say

from agent.config import Mqtt
from agent.repository.conversation import Conversation

DEPLOY_S = 120


# ---- the story -----------------------------------------------------------------------------------


def perform(stage: Stage) -> None:
    """All of it, step by step.  Raises StoryError."""
    say.rule("[bold]0  a signed repository, an agent, three pumps")
    stage.do("repo", "init", stage.repo)
    stage.start_agent("agent", "run", "--config", HERE / "agent.toml")
    stage.wait("the agent is up", stage.state)
    stage.start_agent("repository", "repo", "serve", "--repo", stage.repo, "--mqtt", stage.mqtt)
    simulator = ["--mqtt", stage.mqtt, "--rate", "20", "--pumps", "3", "--seed", "7"]
    stage.start("pumps", [sys.executable, str(HERE / "simulate.py"), *simulator])
    say.print(f"the page: [bold link={stage.page}]{stage.page}")
    with Conversation(Mqtt(url=stage.mqtt)) as events:
        events.follow(f"edge/{DEVICE}/events")
        first(stage)
        swap(stage, events)
        rolled_back(stage, events)
        refused(stage)
    account(stage)


def first(stage: Stage) -> None:
    """v1 is deployed and scores."""
    say.rule("[bold]1  version 1 comes in and scores")
    release = deploy(stage, "v1")
    told = stage.wait("version 1 scores", lambda: scored(stage) > 100 and stage.model())
    active(told, release)
    say.print(f"[green]✓[/] v1 scores: {told['counts']['scored']} readings so far")


def swap(stage: Stage, events: Conversation) -> None:
    """v2 replaces v1, and a receipt proves what it cost."""
    say.rule("[bold]2  version 2 swaps in, under load")
    release = deploy(stage, "v2")
    told = event(events, "swap", release)
    receipt = told.get("receipt") or told
    if receipt.get("gap") or receipt.get("duplicates"):
        raise StoryError(f"the swap cost readings: {json.dumps(receipt)}")
    model = stage.model()
    for seen in model["trail"]:
        say.print(f"[dim]{seen['words']}")
    say.print(Panel(shown(receipt, model), title="swap receipt", expand=False))
    say.print("[green]✓[/] v2 serves; no reading lost, none scored twice")


def shown(receipt: State, told: State) -> Table:
    """A receipt for people; `told` is what the device says of the model now."""
    p99, memory = receipt["p99_ms"], receipt["rss_mb"]
    table = Table.grid(padding=(0, 2))
    for what, figure in (
        ("release", f"{receipt['from']['release']} → {receipt['to']['release']}"),
        ("last row of the old", receipt["last_seq"]),
        ("first row of the new", receipt["first_seq"]),
        ("rows missing, repeated", f"{receipt['gap']}, {receipt['duplicates']}"),
        ("p99 before, during, after", ", ".join(f"{p99[when]} ms" for when in p99)),
        ("memory before, with both", f"{memory['before']:.0f} MB, {memory['after']:.0f} MB"),
        ("memory now", f"{told['rss_mb']:.0f} MB"),
    ):
        table.add_row(f"[dim]{what}", str(figure))
    return table


def rolled_back(stage: Stage, events: Conversation) -> None:
    """v3 is promoted, goes wrong, and is taken out by the device itself."""
    say.rule("[bold]3  version 3 looks good, and is not")
    good = stage.model()["active"]["release"]
    why = deploy_bad(stage, "v3")
    told = event(events, "rollback", None)
    active(stage.model(), good)
    say.print(f"[green]✓[/] v3 was rolled back: [yellow]{told.get('why') or why}")
    again = (told.get("receipt") or {}).get("rescored") or {}
    if not again.get("rows") or again.get("missing"):
        raise StoryError(f"what v3 had said was not taken back: {again}")
    say.print(f"[green]✓[/] v2 scored again the {again['rows']} rows that v3 had answered")


def refused(stage: Stage) -> None:
    """v4 does not do what it was published with, and never sees a live reading."""
    say.rule("[bold]4  version 4 is not what was tested")
    good, before = stage.model()["active"]["release"], scored(stage)
    why = deploy_bad(stage, "v4")
    active(stage.model(), good)
    stage.wait("v2 scores on", lambda: scored(stage) > before)
    say.print(f"[green]✓[/] v4 was refused: [yellow]{why}")


def account(stage: Stage) -> None:
    """Every reading is accounted for, across all of it."""
    say.rule("[bold]5  the account")
    counts = stage.model()["counts"]
    out = (
        counts["scored"] + sum(counts["rejected"].values()) + counts["expired"] + counts["pending"]
    )
    if counts["in"] != out:
        raise StoryError(f"the account does not balance: {counts['in']} in, {out} accounted for")
    refusals = ", ".join(f"{why} {count}" for why, count in counts["rejected"].items())
    say.print(
        f"[green]✓[/] {counts['in']} in = {counts['scored']} scored"
        f" + {sum(counts['rejected'].values())} rejected ({refusals or 'none'})"
        f" + {counts['expired']} expired + {counts['pending']} pending"
    )


# ---- its parts -----------------------------------------------------------------------------------


def deploy(stage: Stage, version: str) -> int:
    """Publish `version`, wish for it, and follow it until it is committed; its release."""
    told = _deploy(stage, version)
    outcome = told["devices"].get(DEVICE, {})
    if outcome.get("committed") is not True:
        raise StoryError(f"{version} was not committed: {outcome}")
    return int(told["release"])


def deploy_bad(stage: Stage, version: str) -> str:
    """The same with a version that must not be committed; why it was not."""
    outcome = _deploy(stage, version)["devices"].get(DEVICE, {})
    if outcome.get("committed") is not False:
        raise StoryError(f"{version} should have been taken out: {outcome}")
    return str(outcome["why"])


def _deploy(stage: Stage, version: str) -> State:
    stage.do("repo", "add", HERE / "models" / version, "--repo", stage.repo)
    where = ("--repo", stage.repo, "--mqtt", stage.mqtt, "--device", DEVICE)
    words = ("deploy", NAME, *where, "--stream", "pump", "--wait", "--timeout", str(DEPLOY_S))
    with say.status(f"deploying {version}"):
        done = stage.do(*words, "--json", ok=False)
    stage.check_alive()
    try:
        told: State = json.loads(done.stdout)
    except ValueError as error:
        raise StoryError(f"deploying {version} failed: {done.stderr.strip()}") from error
    return told


def event(events: Conversation, kind: str, release: int | None) -> State:
    """The next event of that kind (to that release, if one is given)."""
    until = time.monotonic() + 30.0
    for message in events.messages(until):
        told: State = json.loads(message.payload) if message is not None else {}
        to = (told.get("receipt") or told).get("to") or {}
        if told.get("type") == kind and release in (None, to.get("release")):
            return told
    raise StoryError(f"no event {kind} came from {DEVICE}")


def scored(stage: Stage) -> int:
    """Readings scored so far."""
    return int(stage.model().get("counts", {}).get("scored", 0))


def active(told: State, release: int) -> None:
    """That release serves.  Raises StoryError."""
    serving = (told.get("active") or {}).get("release")
    if serving != release:
        raise StoryError(f"release {release} should serve, and {serving} does: {told.get('why')}")


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--once", action="store_true", help="end after the story")
    parser.add_argument("--verbose", action="store_true", help="show the commands")
    asked = parser.parse_args()
    stage = Stage(verbose=asked.verbose)
    keep = True
    try:
        perform(stage)
        keep = False
        if not asked.once:
            say.print(f"\n{stage.page} stays up; Ctrl-C ends it")
            while True:
                stage.check_alive()
                time.sleep(1.0)
    except KeyboardInterrupt:
        keep = False
    except StoryError as error:
        say.print(f"[red]✗ {error}")
        say.print(f"what was said lies in {stage.folder}")
        return 1
    finally:
        stage.close(keep=keep)
    return 0


if __name__ == "__main__":
    sys.exit(main())
