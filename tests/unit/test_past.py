"""What a bad version has said is taken back, on a device in memory: kept, read, scored again."""

import copy
import json
from dataclasses import replace

import numpy as np
import orjson
import pytest

from agent.core.rollout import Condemned, Phase
from agent.ports import Entry, TensorSpec
from tests.world.hours import quiet
from tests.world.memory import MemoryRing
from tests.world.plant import Plant, live

ENDLESS = 10**6
SENSORS = "ab"
STATE = '[state]\nh = "k"'
TUMBLING = '[window]\nkind = "tumbling"\nsize = "2"'


@pytest.fixture
def plant(tmp_path):
    plant = Plant(tmp_path)
    for release in (1, 2, 3):
        plant.publish(release)
    return plant


class Sent:
    """The score messages that went out."""

    def __init__(self, plant):
        self.all = [
            orjson.loads(record.payload)
            for entry in plant.box.entries
            for record in entry.records
            if record.topic.endswith("/m")
        ]

    @property
    def again(self):
        return [body for body in self.all if "supersedes" in body]

    def by(self, release):
        """The numbers of what `release` said, not in the place of another."""
        return [
            body["seq"] + i
            for body in self.all
            if body["release"] == release and "supersedes" not in body
            for i in range(len(body["score"]))
        ]

    @property
    def superseded(self):
        """Number -> what is said in its place; the latest counts."""
        return {
            body["supersedes"]["seq"] + i: score
            for body in self.again
            for i, score in enumerate(body["score"])
        }


def feed(plant, *values, turns=4):
    """Each sensor sends `values`, one after the other."""
    for value in values:
        plant.source.put(*(b'{"k": "%c", "v": %d}' % (ord(k), value) for k in SENSORS))
        turn(plant, turns)


def turn(plant, turns=4):
    for _ in range(turns):
        plant.lane._turn()


async def tried(plant, release=2, values=(), **bars):
    """Release 1 scores three readings of each sensor; then `release` is on trial for `values`."""
    await plant.desire(m=1)
    feed(plant, 1, 2, 3)
    bars = bars or {"probation": {"windows": ENDLESS}}
    await plant.desire(m={"release": release, "rollout": bars}, seconds=3)
    for value in values:
        feed(plant, value)
        await quiet(0.3)


async def rolled_back(plant, release=2, seconds=20):
    """It is condemned, and what follows has come to an end."""
    ref = next(ref for ref in plant.packages if ref.release == release)
    await plant.models.rows["m"].driver.submit(Condemned(ref, "no good"))
    await settled(plant, seconds)


async def settled(plant, seconds=20):
    for _ in range(seconds * 10):
        turn(plant, 1)
        await quiet(0.1)
        if plant.rollout().phase is Phase.STEADY:
            break
    assert plant.rollout().phase is Phase.STEADY
    await quiet(3)


def rescored(plant):
    """Of the last receipt of a rollback."""
    found = [receipt for receipt in plant.receipts if receipt["kind"] == "rollback"]
    return found[-1]["rescored"]


def test_what_a_version_said_on_probation_is_scored_again_and_counted_once(plant):
    """[rollout-6.1] [rollout-6.3]"""

    async def main(plant):
        await tried(plant, values=range(10, 20))
        before = plant.models.rows["m"].scoring.account.counts()
        assert (before.readings, before.scored) == (26, 26)
        await rolled_back(plant)
        sent = Sent(plant)
        said = sent.by(2)
        assert len(said) == 20
        assert sorted(sent.superseded) == said
        assert [sent.superseded[seq] for seq in said[::2]] == list(range(10, 20))
        assert {body["release"] for body in sent.again} == {1}
        assert {body["supersedes"]["release"] for body in sent.again} == {2}
        assert rescored(plant) == {"rows": 20, "refused": 0, "missing": 0}
        assert plant.models.rows["m"].scoring.account.counts() == before
        feed(plant, 4)
        assert Sent(plant).by(1)[-2:] == [46, 47]
        await plant.desire(m={"release": 3, "rollout": {"probation": {"windows": ENDLESS}}})
        assert plant.ring.kept["s", "m"] == [], "there is another to keep"

    live(main, plant)


def test_what_was_said_before_the_trial_stands(plant):
    """[rollout-6.1]"""

    async def main(plant):
        await tried(plant, values=[7])
        await rolled_back(plant)
        assert min(Sent(plant).superseded) == 6

    live(main, plant)


def test_live_readings_go_first_one_batch_of_the_past_at_a_time(plant):
    """[rollout-6.2]"""

    async def main(plant):
        await tried(plant, values=range(10, 20))
        ref = next(ref for ref in plant.packages if ref.release == 2)
        await plant.models.rows["m"].driver.submit(Condemned(ref, "no good"))
        while not Sent(plant).again:
            turn(plant, 1)
            await quiet(0.05)
        for value in range(30, 35):
            feed(plant, value, turns=1)
            await quiet(0.05)
        await settled(plant)
        order = ["again" if "supersedes" in body else body["score"][0] for body in Sent(plant).all]
        tail = order[order.index("again") :]
        places = [tail.index(value) for value in range(30, 35)]
        assert places[0] <= 2
        assert tail[places[-1] :].count("again") >= 3
        assert tail.count("again") == 10

    live(main, plant)


def stateful(plant, bad=2):
    """Sessions that add up: y = k = h + x; release `bad` says 1000 more."""

    def dress(session):
        session.inputs = [
            TensorSpec("x", "float32", (None, 1)),
            TensorSpec("h", "float32", (None, 1)),
        ]
        session.outputs = [
            TensorSpec("y", "float32", (None, 1)),
            TensorSpec("k", "float32", (None, 1)),
        ]

        def run(inputs):
            total = inputs[0] + inputs[1]
            return [total + 1000 if session.ref.release == bad else total, total]

        session._run = run

    plant.engine.dress = dress
    return dress


def test_a_version_with_state_scores_the_past_from_where_the_bad_one_took_over(tmp_path):
    """[rollout-6.2] And goes on from where it would have been."""
    plant = Plant(tmp_path)
    for release in (1, 2):
        plant.publish(release, more=STATE)
    stateful(plant)

    async def main(plant):
        await tried(plant, values=[10, 20, 30])
        await rolled_back(plant)
        sent = Sent(plant)
        assert [sent.superseded[seq] for seq in sent.by(2)[::2]] == [16, 36, 66]
        feed(plant, 100)
        assert Sent(plant).all[-1]["score"] == [166, 166]

    live(main, plant)


def test_after_a_death_too_the_past_is_scored_from_where_the_bad_version_took_over(tmp_path):
    """[rollout-6.2] And never from the live states."""
    plant = Plant(tmp_path)
    for release in (1, 2):
        plant.publish(release, more=STATE)
    stateful(plant)

    async def before(plant):
        await tried(plant, values=[10, 20])

    async def after(plant):
        feed(plant, 30)
        await rolled_back(plant)
        sent = Sent(plant)
        assert [sent.superseded[seq] for seq in sent.by(2)[::2]] == [16, 36, 66]
        feed(plant, 100)
        assert Sent(plant).all[-1]["score"] == [166, 166]

    live(before, plant, after)


def test_what_goes_wrong_after_its_probation_is_taken_back_from_where_it_stood(tmp_path):
    """[rollout-6.2] The version before it is loaded anew, and has no states of its own."""
    plant = Plant(tmp_path)
    for release in (1, 2):
        plant.publish(release, more=STATE)
    stateful(plant)

    async def main(plant):
        await tried(plant, values=range(10, 16), probation={"windows": 6})
        await settled(plant)
        stood = json.loads(plant.journal.documents["trial:m"])["seq"]
        feed(plant, 50, 51)
        await rolled_back(plant)
        sent = Sent(plant)
        later = [seq for seq in sent.by(2) if seq >= stood]
        values = {seq: score for body in sent.all for seq, score in said_in(body)}
        assert [sent.superseded[seq] for seq in later] == [values[seq] - 1000 for seq in later]
        assert len(later) >= 4

    live(main, plant)


def said_in(body):
    """Each number and its score."""
    return enumerate(body["score"], body["seq"])


def test_states_of_another_shape_are_not_taken_up(tmp_path):
    """[rollout-6.2] The past is scored from blank ones, for those that there were say nothing."""
    plant = Plant(tmp_path)
    plant.publish(1, more=STATE)
    plant.publish(2)
    adding_up = stateful(plant)
    plant.engine.dress = lambda session: session.ref.release == 1 and adding_up(session)

    async def main(plant):
        await tried(plant, values=[10, 20])
        told = json.loads(plant.journal.documents["trial:m"])
        plant.journal.documents["trial:m"] = json.dumps(told | {"states": "AAAA"}).encode()
        await rolled_back(plant)
        sent = Sent(plant)
        assert [sent.superseded[seq] for seq in sent.by(2)[::2]] == [10, 30]

    live(main, plant)


def test_states_that_are_too_large_are_not_kept(tmp_path):
    """[rollout-6.2]"""
    plant = Plant(tmp_path)
    for release in (1, 2):
        plant.publish(release, more=STATE)
    stateful(plant)

    async def main(plant):
        await plant.desire(m=1)
        feed(plant, 1, 2)
        plant.models.rows["m"].works.past.states_bytes_max = 10
        await plant.desire(m={"release": 2, "rollout": {"probation": {"windows": ENDLESS}}})
        assert "states" not in json.loads(plant.journal.documents["trial:m"])

    live(main, plant)


def test_each_row_of_a_batch_that_names_a_sensor_twice_is_superseded_by_its_own(tmp_path):
    """[rollout-6.2] Where the known good carries state and the bad version did not."""
    plant = Plant(tmp_path)
    plant.publish(1, more=STATE)
    plant.publish(2)
    adding_up = stateful(plant)
    plant.engine.dress = lambda session: session.ref.release == 1 and adding_up(session)

    async def main(plant):
        await tried(plant)
        told = [("a", 10), ("a", 20), ("b", 50), ("a", 40), ("b", 60)]
        plant.source.put(*(b'{"k": "%s", "v": %d}' % (k.encode(), v) for k, v in told))
        turn(plant)
        await quiet(0.3)
        await rolled_back(plant)
        sent = Sent(plant)
        assert [sent.superseded[seq] for seq in sent.by(2)] == [16, 36, 56, 76, 116]
        assert [body["key"] for body in sent.again] == [["a"], ["a", "b"], ["a", "b"]]

    live(main, plant)


def test_of_unlike_windows_the_known_goods_own_are_scored_again(tmp_path):
    """[rollout-6.5] Every reading is counted once, under whichever windows."""
    plant = Plant(tmp_path)
    plant.publish(1, more=TUMBLING)
    plant.publish(2)

    async def main(plant):
        await tried(plant, shadow={"windows": 4}, probation={"windows": ENDLESS})
        for value in range(10, 20):
            feed(plant, value)
            await quiet(0.3)
        assert plant.rollout().phase is Phase.PROBATION
        began = min(Sent(plant).by(2))
        await rolled_back(plant)
        sent = Sent(plant)
        assert {body["release"] for body in sent.again} == {1}
        assert {body["supersedes"]["release"] for body in sent.again} == {2}
        assert min(sent.superseded) >= began
        assert rescored(plant)["missing"] == 0
        feed(plant, 50, 51, 52, 53)
        counts = plant.models.rows["m"].scoring.account.counts()
        assert counts.balanced
        assert counts.readings == 2 * 17
        assert counts.rejected == {}

    live(main, plant)


def test_rows_that_the_ring_no_longer_had_are_counted_as_missing(plant):
    """[rollout-6.3]"""
    plant.ring = MemoryRing(bytes_max=48)  # three batches of two float64

    async def main(plant):
        await tried(plant, values=range(10, 20))
        await rolled_back(plant)
        assert rescored(plant) == {"rows": 6, "refused": 0, "missing": 14}
        assert [*Sent(plant).superseded.values()][::2] == [17, 18, 19]

    live(main, plant)


def test_what_the_known_good_cannot_score_is_refused_and_the_rest_is_scored(plant):
    """[rollout-6.3]"""

    async def main(plant):
        await tried(plant, values=[10, 11, 12])
        good = plant.engine.session(1)
        run = good._run
        good._run = lambda inputs: run(inputs) if inputs[0][0, 0] != 11 else [inputs[0][:1, :0]]
        await rolled_back(plant)
        assert rescored(plant) == {"rows": 4, "refused": 2, "missing": 0}

    live(main, plant)


def test_windows_of_another_shape_are_refused(plant):
    """They can be there where the device was stopped before the known good had any."""
    plant.publish(4, more=TUMBLING)

    async def main(plant):
        await tried(plant, 4)
        scoring = plant.models.rows["m"].scoring
        scoring.beside.end_shadow()
        scoring.beside._before = None  # as after a stop
        feed(plant, 10, 11)
        await rolled_back(plant, 4)
        assert rescored(plant) == {"rows": 0, "refused": 2, "missing": 0}
        assert Sent(plant).again == []

    live(main, plant)


def test_rows_of_other_versions_in_the_ring_are_left_alone(plant):
    async def main(plant):
        await tried(plant, values=[10])
        kept = plant.ring.kept["s", "m"]
        kept.append(type(kept[0])(kept[0].seq, 2, 1, kept[0].keys, kept[0].times, kept[0].values))
        await rolled_back(plant)
        assert rescored(plant)["rows"] == 2

    live(main, plant)


def test_what_survived_its_probation_stands(plant):
    """[rollout-7.1] Only what it said afterwards is taken back, should it go wrong later."""

    async def main(plant):
        await tried(plant, values=range(10, 16), probation={"windows": 6})
        await settled(plant)
        assert plant.rollout().known_good.release == 2
        stood = json.loads(plant.journal.documents["trial:m"])["seq"]
        assert stood >= 6 + 6
        feed(plant, 50, 51)
        await rolled_back(plant)
        assert plant.rollout().active.release == 1
        assert sorted(Sent(plant).superseded) == [seq for seq in Sent(plant).by(2) if seq >= stood]

    live(main, plant)


def test_who_serves_on_after_the_trial_of_another_is_kept_again(plant):
    """[rollout-7.1] What it says from then on is taken back, should it go wrong later."""

    async def main(plant):
        await tried(plant, values=range(10, 16), probation={"windows": 6})
        await settled(plant)
        await plant.desire(m={"release": 3, "rollout": {"probation": {"windows": ENDLESS}}})
        feed(plant, 30)
        await rolled_back(plant, 3)
        assert plant.rollout().active.release == 2
        stood = json.loads(plant.journal.documents["trial:m"])["seq"]
        feed(plant, 50, 51)
        await rolled_back(plant, 2)
        assert plant.rollout().active.release == 1
        later = [seq for seq in Sent(plant).by(2) if seq >= stood]
        assert len(later) == 4
        assert rescored(plant) == {"rows": 4, "refused": 0, "missing": 0}
        assert set(later) <= set(Sent(plant).superseded)

    live(main, plant)


def test_what_the_canary_answered_after_its_end_is_taken_back_too(plant):
    """[rollout-5.6] Its answer may wait behind one that the active version has yet to give."""

    async def main(plant):
        share = {"share": 0.5, "windows": ENDLESS}
        await tried(plant, canary=share)
        assert plant.rollout().phase is Phase.CANARY
        scoring = plant.models.rows["m"].scoring
        chosen = [k for k in SENSORS if _chosen(scoring, k)]
        assert len(chosen) == 1, "of two sensors one"
        good = plant.engine.session(1)
        good.quick = False
        feed(plant, 10)
        assert good.taken
        ref = next(ref for ref in plant.packages if ref.release == 2)
        await plant.models.rows["m"].driver.submit(Condemned(ref, "no good"))
        await quiet(1)
        assert plant.rollout().phase is Phase.ROLLING_BACK
        good.quick = True
        good.answer(10)
        await settled(plant)
        said = Sent(plant).by(2)
        assert len(said) == 1
        assert [*Sent(plant).superseded] == said

    live(main, plant)


def _chosen(scoring, name):
    number = scoring.keys.index(name)
    return bool(scoring.beside.canary.chosen(np.array([number], np.int32))[0])


def condemned_and_cut_off(values=range(10, 20), messages=3):
    """The first life: release 2 is condemned, and so many messages supersede what it said."""

    async def life(plant):
        await tried(plant, values=values)
        await condemn(plant)
        await some_more(plant, messages)

    return life


def cut_off_again(messages=3):
    """A life that comes to so many more."""

    async def life(plant):
        await some_more(plant, messages)

    return life


async def condemn(plant, release=2):
    ref = next(ref for ref in plant.packages if ref.release == release)
    await plant.models.rows["m"].driver.submit(Condemned(ref, "no good"))


async def some_more(plant, messages):
    wanted = len(Sent(plant).again) + messages
    while len(Sent(plant).again) < wanted:
        turn(plant, 1)
        await quiet(0.05)
    assert plant.rollout().phase is Phase.ROLLING_BACK


def runs(plant, release=1):
    """The values that the sessions of a release are given in a rollback, over all lives."""
    seen, dress = [], plant.engine.dress

    def noting(session):
        dress(session)
        run = session._run

        def noted(inputs):
            if session.ref.release == release and plant.rollout().phase is Phase.ROLLING_BACK:
                seen.extend(inputs[0][:, 0].tolist())
            return run(inputs)

        session._run = noted

    plant.engine.dress = noting
    return seen


def test_a_rollback_that_is_killed_again_and_again_goes_on_where_it_was(plant):
    """[rollout-6.4] Nothing superseded twice, nothing left out, and nothing run twice but what was
    in hand at each death.
    """
    seen = runs(plant)

    async def to_its_end(plant):
        await settled(plant)
        sent = Sent(plant)
        assert [body["supersedes"]["seq"] for body in sent.again] == sent.by(2)[::2]
        assert sorted(sent.superseded) == sent.by(2)
        assert [sent.superseded[seq] for seq in sent.by(2)[::2]] == list(range(10, 20))
        assert 20 <= len(seen) <= 20 + 2 * 3
        assert rescored(plant) == {"rows": 20, "refused": 0, "missing": 0}

    live(condemned_and_cut_off(), plant, cut_off_again(), cut_off_again(2), to_its_end)


def test_states_of_the_past_go_on_where_they_were(tmp_path):
    """[rollout-6.2] [rollout-6.4] What was not noted yet is run once more, and not heard again."""
    plant = Plant(tmp_path)
    for release in (1, 2):
        plant.publish(release, more=STATE)
    stateful(plant)
    seen = runs(plant)
    values = list(range(10, 30))

    async def to_its_end(plant):
        await settled(plant)
        sent = Sent(plant)
        wanted = [6 + sum(values[: n + 1]) for n in range(len(values))]
        assert [sent.superseded[seq] for seq in sent.by(2)[::2]] == wanted
        assert [body["supersedes"]["seq"] for body in sent.again] == sent.by(2)[::2]
        assert rescored(plant) == {"rows": 40, "refused": 0, "missing": 0}
        again = len(seen) - 2 * len(values)
        assert 0 < again <= 2 * (3 + 4 + 5 + 2), "no life goes back further than the one before it"

    lives = [cut_off_again(4), cut_off_again(5), cut_off_again(2)]
    live(condemned_and_cut_off(values, 3), plant, *lives, to_its_end)


@pytest.mark.parametrize("spoil", ["lost", "of another trial", "of another version", "ahead"])
def test_without_a_note_that_holds_the_states_begin_where_the_past_does(tmp_path, spoil):
    """[rollout-6.4] Nothing is heard twice for that."""
    plant = Plant(tmp_path)
    for release in (1, 2):
        plant.publish(release, more=STATE)
    stateful(plant)

    async def spoilt(plant):
        await condemned_and_cut_off()(plant)
        note = json.loads(plant.journal.documents.pop("again:m"))
        note |= {
            "lost": {},
            "of another trial": {"seq": note["seq"] + 1},
            "of another version": {"good": "sha256:else"},
            "ahead": {"to": [note["to"][0] + 100, 0]},
        }[spoil]
        note["states"] = "AAAA"  # if it is looked at, they are blank
        if spoil != "lost":
            plant.journal.documents["again:m"] = json.dumps(note).encode()

    async def to_its_end(plant):
        await settled(plant)
        sent = Sent(plant)
        wanted = [6 + sum(range(10, 11 + n)) for n in range(10)]
        assert [sent.superseded[seq] for seq in sent.by(2)[::2]] == wanted
        assert [body["supersedes"]["seq"] for body in sent.again] == sent.by(2)[::2]

    live(spoilt, plant, to_its_end)


def test_large_states_are_noted_less_often_and_none_that_are_too_large(tmp_path):
    """[rollout-6.4]"""
    plant = Plant(tmp_path)
    for release in (1, 2):
        plant.publish(release, more=STATE)
    stateful(plant)

    async def first(plant):
        await tried(plant, values=range(10, 20))
        plant.models.rows["m"].works.past.states_bytes_max = 10
        await condemn(plant)
        await some_more(plant, 3)
        assert "again:m" not in plant.journal.documents

    async def second(plant):
        await some_more(plant, 1)
        once = plant.journal.documents["again:m"]
        await some_more(plant, 3)
        assert plant.journal.documents["again:m"] == once, "a second is not over"
        await quiet(1.0)
        await some_more(plant, 2)
        assert plant.journal.documents["again:m"] != once

    live(first, plant, second)


def test_what_cannot_be_scored_again_is_counted_once_however_often_it_is_cut_off(plant):
    """[rollout-6.3] [rollout-6.4]"""
    dress = plant.engine.dress

    def choosy(session):
        dress(session)
        run = session._run
        if session.ref.release == 1:
            session._run = lambda i: run(i) if i[0][0, 0] != 11 else [i[0][:1, :0]]

    plant.engine.dress = choosy

    async def to_its_end(plant):
        await settled(plant)
        assert rescored(plant) == {"rows": 18, "refused": 2, "missing": 0}
        assert len(Sent(plant).again) == 9

    live(condemned_and_cut_off(), plant, cut_off_again(), to_its_end)


def test_a_batch_that_was_refused_is_done_too(plant):
    """[rollout-6.4] And not refused again."""

    async def first(plant):
        await tried(plant, values=[10, 11, 12, 13])
        kept = plant.ring.kept["s", "m"]
        kept[1::2] = [replace(one, values=np.zeros((2, 7, 7))) for one in kept[1::2]]
        await condemn(plant)
        await some_more(plant, 1)
        account = json.loads(plant.box.accounts()["s", "m"])
        there = {"since": 6, "seq": kept[1].seq, "at": 2, "rows": 2, "refused": 2}
        raw = json.dumps(account | {"rescored": there}).encode()
        plant.box.add(Entry(accounts={("s", "m"): raw}))  # as a death right after it leaves it

    async def to_its_end(plant):
        await settled(plant)
        assert rescored(plant) == {"rows": 4, "refused": 4, "missing": 0}
        turn(plant)
        there = json.loads(plant.box.accounts()["s", "m"])["rescored"]
        assert (there["seq"], there["at"]) == (plant.ring.kept["s", "m"][-1].seq, 2)

    live(first, plant, to_its_end)


def test_a_batch_that_was_cut_off_in_its_midst_goes_on_there(tmp_path):
    """[rollout-6.4] Where the known good carries state and the bad version did not."""
    plant = Plant(tmp_path)
    plant.publish(1, more=STATE)
    plant.publish(2)
    adding_up = stateful(plant)
    plant.engine.dress = lambda session: session.ref.release == 1 and adding_up(session)

    async def first(plant):
        await tried(plant)
        told = [("a", 10), ("a", 20), ("b", 50), ("a", 40), ("b", 60)]
        plant.source.put(*(b'{"k": "%s", "v": %d}' % (k.encode(), v) for k, v in told))
        turn(plant)
        await quiet(0.3)
        await condemn(plant)
        await some_more(plant, 2)

    async def to_its_end(plant):
        await settled(plant)
        sent = Sent(plant)
        assert [sent.superseded[seq] for seq in sent.by(2)] == [16, 36, 56, 76, 116]
        assert [body["key"] for body in sent.again] == [["a"], ["a", "b"], ["a", "b"]]

    live(first, plant, to_its_end)


def test_windows_that_share_a_number_are_each_scored_again_once(tmp_path):
    """[rollout-6.4] [rollout-6.5] Those that the known good made while the bad one said nothing."""
    plant = Plant(tmp_path)
    for release in (1, 2):
        plant.publish(release)

    async def first(plant):
        await tried(plant, values=[10, 11])
        kept = plant.ring.kept["s", "m"]
        kept[:] = [replace(one, seq=kept[0].seq) for one in [*kept, *kept]]
        await condemn(plant)
        await some_more(plant, 1)

    async def to_its_end(plant):
        await settled(plant)
        assert [body["score"] for body in Sent(plant).again] == [[10, 10], [11, 11]] * 2

    live(first, plant, cut_off_again(1), to_its_end)


def test_what_was_taken_back_is_not_taken_back_with_what_the_same_version_says_later(plant):
    """[rollout-6.1] An operator has forgiven it, and it fails once more."""

    async def main(plant):
        await tried(plant, values=[10, 11, 12])
        await rolled_back(plant)
        before = Sent(plant)
        bars = {"probation": {"windows": ENDLESS}}
        await plant.command("retry", model="m")
        await plant.desire(m={"release": 2, "rollout": bars}, seconds=3)
        assert plant.rollout().phase is Phase.PROBATION
        feed(plant, 20)
        assert json.loads(plant.box.accounts()["s", "m"])["rescored"] is None
        await quiet(0.3)
        await rolled_back(plant)
        later = Sent(plant)
        assert [body["supersedes"]["seq"] for body in later.again] == later.by(2)[::2]
        assert len(later.again) == len(before.again) + 1
        assert rescored(plant) == {"rows": 2, "refused": 0, "missing": 0}

    live(main, plant)


def test_what_was_taken_back_is_told_though_the_agent_dies_before_its_receipt_is_complete(plant):
    """[rollout-6.3] [versions-3.2]"""
    plant.ring = MemoryRing(bytes_max=48)  # three batches of two float64

    async def killed(plant):
        await tried(plant, values=range(10, 20))
        ref = next(ref for ref in plant.packages if ref.release == 2)
        await plant.models.rows["m"].driver.submit(Condemned(ref, "no good"))
        while plant.rollout().phase is not Phase.ROLLING_BACK:
            await quiet(0.05)
        while plant.rollout().phase is not Phase.STEADY:
            turn(plant, 1)
            await quiet(0.05)
        assert not [one for one in plant.receipts if one["kind"] == "rollback"]
        plant.archive._tell = lambda *_, **__: None  # the dead tell nothing,
        plant.papers = copy.deepcopy(plant.papers)  # and write nothing

    async def after(plant):
        assert plant.rollout().phase is Phase.STEADY
        assert rescored(plant) == {"rows": 6, "refused": 0, "missing": 14}
        assert plant.receipts[-1]["complete"] is False

    live(killed, plant, after)


def test_what_was_said_and_never_became_durable_is_not_taken_back_from_others(plant):
    """[durability-2.4] [rollout-6.4] Its numbers are the known good's after the death."""

    async def killed(plant):
        await tried(plant, values=[10, 11])
        ref = next(ref for ref in plant.packages if ref.release == 2)
        await plant.models.rows["m"].driver.submit(Condemned(ref, "no good"))
        while plant.rollout().phase is not Phase.ROLLING_BACK:
            await quiet(0.05)
        last = plant.ring.kept["s", "m"][-1]
        plant.ring.append("s", "m", replace(last, seq=last.seq + last.rows))

    async def taken_up(plant):
        feed(plant, 20)
        await settled(plant)
        sent = Sent(plant)
        assert sorted(sent.superseded) == sent.by(2)
        assert len(sent.by(2)) == 4
        assert rescored(plant) == {"rows": 4, "refused": 0, "missing": 0}

    live(killed, plant, taken_up)


def test_a_trial_that_began_behind_what_became_durable_begins_where_the_numbers_go_on(plant):
    """[rollout-6.4] What was numbered before it, and lost in the death, is numbered again."""

    async def before(plant):
        await tried(plant, values=[10])
        told = json.loads(plant.journal.documents["trial:m"])
        ahead = told | {"seq": told["seq"] + 4, "tried": 9}
        plant.journal.documents["trial:m"] = json.dumps(ahead).encode()

    async def after(plant):
        feed(plant, 11)
        await rolled_back(plant)
        assert [*Sent(plant).superseded.values()] == [11, 11]
        assert rescored(plant) == {"rows": 2, "refused": 0, "missing": 0}

    live(before, plant, after)


def test_where_a_trial_began_survives_a_restart(plant):
    """[rollout-6.4]"""

    async def before(plant):
        await tried(plant, values=[10, 11])

    async def after(plant):
        assert plant.rollout().phase is Phase.PROBATION
        feed(plant, 12)
        await rolled_back(plant)
        sent = Sent(plant)
        assert [sent.superseded[seq] for seq in sent.by(2)[::2]] == [10, 11, 12]

    live(before, plant, after)


def test_a_model_that_is_retired_leaves_nothing_to_take_back(plant):
    async def main(plant):
        await tried(plant, values=range(10, 14), probation={"windows": 4})
        await settled(plant)
        feed(plant, 20)
        assert plant.ring.kept["s", "m"]
        await plant.desire()
        assert plant.models.rows["m"].scoring.slot.seat is None
        assert plant.ring.kept["s", "m"] == []
        assert "trial:m" not in plant.journal.documents
        assert plant.models.rows["m"].scoring.beside.keep is None

    live(main, plant)


def test_where_it_began_is_noted_by_digest(plant):
    async def main(plant):
        await tried(plant, values=[10])
        told = json.loads(plant.journal.documents["trial:m"])
        digest = plant.rollout().candidate.digest
        assert told == {"digest": digest, "seq": 6, "tried": 0}
        await rolled_back(plant)
        await plant.desire(m={"release": 3, "rollout": {"probation": {"windows": 9}}}, seconds=3)
        told = json.loads(plant.journal.documents["trial:m"])
        assert told["digest"] == plant.rollout().candidate.digest
        assert told["seq"] == 10

    live(main, plant)


def test_a_condemned_version_is_not_even_loaded_after_a_crash_in_mid_rollback(plant):
    """[rollout-6.4]"""

    async def crash(plant):
        await tried(plant, values=[4])
        driver = plant.models.rows["m"].driver
        bad = driver.now.candidate.digest
        driver.now = replace(driver.now, phase=Phase.ROLLING_BACK, quarantined=(bad,))
        plant.engine.loads.clear()

    async def again(plant):
        await settled(plant)
        assert {release for release, _ in plant.engine.loads} == {1}
        assert plant.rollout().active.release == 1

    live(crash, plant, again)
