"""Births of Sparkplug devices outlive the process; a full disk is tried again."""

import asyncio

from structlog.testing import capture_logs

from agent.core.errors import UnavailableError
from agent.runtime.certificates import LOOK_S, PREFIX, Certificates
from tests.world.hours import HandClock, passing, quiet
from tests.world.memory import MemoryJournal, MemoryOutbox
from tests.world.sparkplug import EdgeNode
from tests.world.still import StillLane, intake

AT = 1_732_180_000_000
PUMP = {"temp": ("Float", 20.5)}


class Site:
    """One process of an agent with these Sparkplug streams, and one of JSON; a context manager."""

    def __init__(self, journal, *streams):
        self.outbox = MemoryOutbox()
        self.lane = StillLane(HandClock(), self.outbox)
        for name in streams:
            self.lane.intakes[name] = intake(name, format="sparkplug", key="")
        self.lane.intakes["plain"] = intake("plain")
        self.certificates = Certificates(self.lane, journal)
        self.certificates.recall()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lane.close()
        self.outbox.close()

    def census(self, stream="s"):
        return self.lane.intakes[stream].decoder.census

    def send(self, *messages, stream="s"):
        topics = [topic.encode() for topic, _ in messages]
        decoder = self.lane.intakes[stream].decoder
        return decoder.decode([raw for _, raw in messages], topics, 0.0, AT / 1000)

    def run(self, *steps):
        """A look after each step."""

        async def main():
            task = asyncio.create_task(self.certificates.run())
            for step in steps:
                step()
                await quiet(1.5 * LOOK_S)
            assert not task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        passing(main())


def test_births_are_saved_once_and_recalled_by_the_next_process():
    """[streams-3.7]"""
    journal, node = MemoryJournal(), EdgeNode(p1=PUMP)
    with Site(journal, "s", "t") as site:
        data = lambda: site.send(node.data("p1", AT, temp=1.0))  # noqa: E731
        site.run(lambda: site.send(*node.births(AT)), data, data)
        assert journal.saves == 1
        assert set(journal.documents) == {PREFIX + "s"}
    with Site(journal, "s", "t") as site:
        assert len(site.send(node.data("p1", AT, temp=1.0))) == 1
        assert site.census("t").nodes == {}
    with Site(journal) as site:
        assert not site.certificates.are_kept
        assert journal.documents == {}  # that stream is no more


def test_what_was_born_last_is_saved_at_the_end():
    journal, node = MemoryJournal(), EdgeNode(p1=PUMP)
    with Site(journal, "s") as site:
        site.run(lambda: None)
        site.send(*node.births(AT))
        asyncio.run(site.certificates.close())
    with Site(journal, "s") as site:
        assert len(site.census().nodes) == 1


def test_a_disk_that_says_no_is_asked_again():
    journal, node = MemoryJournal(), EdgeNode(p1=PUMP)
    journal.fails = {1: UnavailableError("full"), 2: UnavailableError("full")}
    with Site(journal, "s") as site, capture_logs() as log:
        site.run(lambda: site.send(*node.births(AT)), lambda: None, lambda: None)
        assert [entry["event"] for entry in log] == ["births not saved"] * 2
        assert set(journal.documents) == {PREFIX + "s"}


def test_births_that_cannot_be_read_are_waited_for_anew():
    journal = MemoryJournal()
    journal.documents[PREFIX + "s"] = b"\xc1"
    with capture_logs() as log, Site(journal, "s") as site:
        assert [entry["event"] for entry in log] == ["births lost"]
        assert site.census().nodes == {}
