"""Receipts: numbered, kept, bounded, signed, and there again after a restart."""

import asyncio
import json

import pytest

from agent.core.envelope import signed_bytes
from agent.core.errors import UnavailableError
from agent.core.rollout import Phase, Rollout
from agent.runtime.archive import BYTES_MAX, RECEIPTS_MAX, Archive
from agent.runtime.receipts import PHASES_MAX, SwapTrace
from tests.world.hours import quiet
from tests.world.memory import MemoryJournal
from tests.world.plant import Plant, live
from tests.world.river import ref


class Seal:
    """The `Signer` port: what it was given, in hexadecimal."""

    keyid, scheme = "k" * 64, "ed25519"

    def sign(self, body):
        return body.hex()


@pytest.fixture
def journal():
    journal = MemoryJournal()
    journal.rollouts["m"] = Rollout()
    return journal


def archive(journal, told=None, signer=None):
    def tell(kind, model, why, **more):
        (told if told is not None else []).append((kind, model, why, more))

    return Archive(journal, device="d", signer=signer, tell=tell, unsigned="no key")


def trace(release=2, *, finished=True, **more):
    trace = SwapTrace("swap", ref(release - 1), ref(release), **more)
    trace.finished = finished
    return trace


def filed(journal, *traces, **more):
    """An archive that has taken `traces`, all of it durable."""

    async def main():
        it = archive(journal, **more)
        await it.reopen()
        for one in traces:
            it.take("m", one)
        await it.close()
        return it

    return asyncio.run(main())


def numbers(it):
    return [envelope["receipt"]["number"] for envelope in it.envelopes().get("m", ())]


def test_receipts_are_numbered_and_there_again_after_a_restart(journal):
    """[versions-3.1]"""
    first = filed(journal, trace(2), trace(3))
    assert numbers(first) == [2, 1]
    second = filed(journal, trace(4))
    assert numbers(second) == [3, 2, 1]
    assert second.envelopes()["m"][1:] == first.envelopes()["m"]
    newest = second.newest("m")
    assert (newest["device"], newest["model"], newest["to"]["release"]) == ("d", "m", 4)
    assert second.newest("other") == {}


def test_a_receipt_is_written_at_the_swap_and_again_under_its_number(journal):
    """[versions-3.2]"""
    told = []
    one = trace(finished=False)
    it = filed(journal, one, told=told)
    assert told == []
    at_the_swap = filed(journal).newest("m")  # as after a power cut
    assert (at_the_swap["complete"], at_the_swap["number"], at_the_swap["edition"]) == (False, 1, 1)

    async def later():
        one.finished = True
        it.take("m", one)
        one.evidence.append({"phase": "probation", "verdict": "PASS"})
        it.take("m", one)
        await it.close()

    asyncio.run(later())
    assert len(told) == 1  # when it was complete, and not again
    assert told[0][:3] == ("swap", "m", "")
    assert told[0][3]["receipt"]["edition"] == 2
    newest = filed(journal).newest("m")
    assert (newest["complete"], newest["number"], newest["edition"]) == (True, 1, 3)
    assert newest["evidence"] == [{"phase": "probation", "verdict": "PASS", "why": ""}]


def test_one_that_a_death_has_left_incomplete_is_told_at_the_next_start_and_not_again(journal):
    """[versions-3.2]"""
    told = []
    filed(journal, trace(2), trace(3, finished=False, why="it was bad"), told=told)
    assert [one[3]["receipt"]["number"] for one in told] == [1]
    filed(journal, told=told)  # after the death
    assert [one[3]["receipt"]["number"] for one in told] == [1, 2]
    assert told[1][:3] == ("swap", "m", "it was bad")
    assert told[1][3]["receipt"]["complete"] is False
    filed(journal, told=told)
    filed(journal, trace(4), told=told)
    assert [one[3]["receipt"]["number"] for one in told] == [1, 2, 3]


def test_receipts_that_an_agent_kept_who_owed_none_are_read(journal):
    """[versions-3.1]"""
    filed(journal, trace(2, finished=False))
    document = json.loads(journal.documents["receipts:m"])
    assert document.pop("owed") == [1]
    journal.documents["receipts:m"] = json.dumps(document).encode()
    told = []
    assert numbers(filed(journal, told=told)) == [1]
    assert told == []


def test_only_the_newest_are_kept(journal):
    """[versions-3.1]"""
    it = filed(journal, *(trace(n) for n in range(2, RECEIPTS_MAX + 10)))
    assert numbers(it) == list(range(RECEIPTS_MAX + 8, 8, -1))
    assert numbers(filed(journal)) == numbers(it)


def test_large_ones_are_fewer_and_what_is_stored_stays_bounded(journal):
    """[versions-3.1]"""
    wordy = [{"phase": f"p{n}", "why": "é" * 5000} for n in range(PHASES_MAX + 5)]
    it = filed(journal, *(trace(n, why="w" * 9999, evidence=wordy) for n in range(2, 12)))
    assert len(journal.documents["receipts:m"]) <= BYTES_MAX
    assert 1 <= len(numbers(it)) < 10
    assert numbers(it)[0] == 10
    assert len(it.newest("m")["evidence"]) == PHASES_MAX


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\xff\x00",
        b'{"receipts": [',
        b'{"receipts": {}}',
        b'{"receipts": [7]}',
        b'{"receipts": [{"receipt": {}, "signature": null}]}',
        b'{"receipts": [{"receipt": {"number": 1}, "signature": 3}]}',
        b'{"receipts": [], "owed": 7}',
        b'{"receipts": [], "x": "%s"}' % (b"y" * 3 * BYTES_MAX),
    ],
)
def test_what_is_damaged_is_dropped_and_said_and_the_next_one_kept(journal, damaged, capsys):
    """[versions-3.3]"""
    journal.documents["receipts:m"] = damaged
    it = filed(journal, trace())
    assert "damaged" in capsys.readouterr().out
    assert numbers(it) == numbers(filed(journal)) == [1]


def test_what_could_not_be_stored_goes_along_with_the_next(journal):
    journal.fails = {1: UnavailableError("the disk is full")}

    async def main():
        it = archive(journal)
        it.take("m", trace(2))
        await it.close()
        assert "receipts:m" not in journal.documents
        it.take("n", trace(2))
        await it.close()

    asyncio.run(main())
    assert "receipts:m" in journal.documents


def test_a_signature_is_over_the_canonical_receipt_and_told_with_it(journal):
    """[versions-3.4]"""
    told = []
    odd = trace(evidence=[{"phase": "shadow", "agreement": float("nan")}])
    it = filed(journal, odd, told=told, signer=Seal())
    (envelope,) = it.envelopes()["m"]
    assert it.signing == "ed25519 kkkkkkkk"
    assert envelope["signature"]["sig"] == signed_bytes(envelope["receipt"]).hex()
    assert told[0][3] == envelope
    (after,) = filed(journal).envelopes()["m"]
    assert signed_bytes(after["receipt"]).hex() == after["signature"]["sig"]
    assert archive(journal).signing == "none: no key"


# ---- in a device ---------------------------------------------------------------------------------


@pytest.fixture
def plant(tmp_path):
    plant = Plant(tmp_path)
    plant.publish(1)
    plant.publish(2)
    return plant


def seen(phase, windows, verdict="WATCH"):
    return {"phase": phase, "windows": windows, "wanted": 100, "errors": 0, "verdict": verdict}


def test_what_is_seen_is_reported_while_its_phase_lasts_and_kept_in_the_receipt(plant):
    """[versions-3.5]"""

    async def main(plant):
        await plant.desire(m=1)
        await plant.desire(m={"release": 2, "rollout": {"probation": {"windows": 100}}})
        clerk = plant.models.rows["m"].works.clerk
        clerk.leave(seen("canary", 100, "PASS"))
        await quiet(5)
        before = plant.state()["evidence"]
        assert before["words"].startswith("probation: 0 of 100 windows, ")
        assert [e["phase"] for e in plant.state()["trail"]] == ["canary"]
        swap = plant.state()["receipt"]  # written at the swap, though it has not all its figures
        assert (swap["number"], swap["complete"]) == (2, False)
        told = len(plant.reports)
        await quiet(5)  # it changes with every look, which is no news
        assert plant.state()["evidence"]["seconds"] == before["seconds"] + 5
        assert len(plant.reports) == told
        await plant.command("rollback", model="m")
        assert plant.state()["evidence"] is None
        receipt = plant.state()["receipt"]
        assert (receipt["kind"], receipt["complete"]) == ("rollback", True)
        assert [e["phase"] for e in receipt["evidence"]] == ["canary", "probation"]
        assert receipt["words"][0].startswith("rollback 2 → 1: no gap")
        assert receipt["words"][1] == "canary: 100 of 100 windows, 0 errors; passed"
        assert receipt["words"][2].startswith("probation: 0 of 100 windows, ")
        assert [r["kind"] for r in plant.receipts] == ["swap", "swap", "rollback"]

    async def after(plant):
        assert plant.state()["receipt"]["kind"] == "rollback"
        kept = plant.reporter.report.receipts_document()["receipts"]["m"]
        assert [e["receipt"]["number"] for e in kept] == [3, 2, 1]

    live(main, plant, after)


def test_what_was_seen_of_a_phase_that_is_over_is_not_reported(plant):
    """[versions-3.5]"""

    async def main(plant):
        await plant.desire(m=1)
        clerk = plant.models.rows["m"].works.clerk
        clerk.see(seen("shadow", 3))
        assert clerk.seen_in(Phase.SHADOW) == seen("shadow", 3)
        assert clerk.seen_in(Phase.CANARY) is None
        clerk.see(seen("watch", 3))
        assert clerk.seen_in(Phase.STEADY) == seen("watch", 3)
        clerk.leave(seen("watch", 4, "FAIL"))
        assert clerk.seen_in(Phase.STEADY) is None

    live(main, plant)


def test_evidence_that_comes_after_the_receipt_is_complete_is_added_to_it(plant):
    """[versions-3.5]"""

    async def main(plant):
        await plant.desire(m=1)
        clerk = plant.models.rows["m"].works.clerk
        clerk.leave(seen("probation", 100, "PASS"))
        await quiet(5)
        receipt = plant.state()["receipt"]
        assert (receipt["number"], receipt["complete"]) == (1, True)
        assert [e["phase"] for e in receipt["evidence"]] == ["probation"]
        assert len(plant.receipts) == 1
        await plant.desire(m=2)
        assert plant.state()["receipt"]["evidence"] == []

    live(main, plant)


def test_diagnostics_carry_the_receipts_of_a_model_or_the_last_few_of_each(plant):
    """[control-3.4]"""

    async def main(plant):
        for release in (1, 2) * 4:
            plant.publish(release)
            await plant.desire(m=release)
        few = await plant.command("diagnostics", "c1")
        assert few["state"]["device"] == "d"
        assert [e["receipt"]["number"] for e in few["receipts"]["m"]] == [8, 7, 6, 5]
        all_of_it = await plant.command("diagnostics", "c2", model="m")
        assert len(all_of_it["receipts"]["m"]) == 8
        assert all_of_it["receipts"]["m"][0]["signature"] is None
        unknown = await plant.command("diagnostics", "c3", model="x")
        assert (unknown["code"], unknown["why"]) == (404, "this device has no model x")
        assert json.dumps(all_of_it, allow_nan=False)

    live(main, plant)
