"""Commands: done once, answered once, never from the past."""

import asyncio
import json

import pytest

from agent.core.errors import RefusedError, UnavailableError
from agent.core.rollout import Phase
from agent.ports import Message
from agent.runtime.commands import REMEMBERED_MAX
from agent.runtime.desk import ANSWER_S_MAX
from tests.world.hours import quiet
from tests.world.plant import Plant, live


@pytest.fixture
def plant(tmp_path):
    plant = Plant(tmp_path)
    for release in (1, 2, 3):
        plant.publish(release)
    return plant


def active(plant):
    return plant.rollout().active.release


def test_a_ping_is_answered_with_the_time_on_the_topic_of_its_id(plant):
    async def main(plant):
        answer = await plant.command("ping", "abc")
        assert answer == {
            "schema": 1,
            "id": "abc",
            "code": 200,
            "why": "",
            "time": pytest.approx(plant.clock.wall(), abs=60),
        }
        assert plant.link.published[-1][0] in {"edge/d/answer/abc", plant.topics.reported}
        assert "edge/d/answer/abc" in {topic for topic, _ in plant.link.published}

    live(main, plant)


def test_an_answer_goes_where_it_is_asked_for_with_its_correlation(plant):
    async def main(plant):
        body = {"id": "a", "expires": 4e9}
        await plant.send("ping", body, response_topic="me/here", correlation=b"\x01\x02")
        at = [topic for topic, _ in plant.link.published].index("me/here")
        assert plant.link.correlations[at] == b"\x01\x02"

    live(main, plant)


@pytest.mark.parametrize(
    "where", ["d/desired", "e/desired", "e/command/ping", "group/g/desired", "repo/get/d"]
)
def test_no_answer_goes_where_orders_are_taken(plant, where):
    """[control-3.1]"""

    async def main(plant):
        body = {"id": "a", "expires": 4e9}
        await plant.send("ping", body, response_topic=f"edge/{where}")
        topics = [topic for topic, _ in plant.link.published]
        assert "edge/d/answer/a" in topics
        assert f"edge/{where}" not in topics

    live(main, plant)


def test_a_retained_command_is_ignored(plant):
    async def main(plant):
        assert await plant.send("ping", {"id": "a", "expires": 4e9}, retain=True) == {}

    live(main, plant)


@pytest.mark.parametrize(
    ("name", "body", "code", "word"),
    [
        ("fly", {"id": "a", "expires": 4e9}, 404, "ping"),
        ("ping", {"id": "a"}, 400, "expires"),
        ("ping", {"id": "a", "expires": 1.0}, 410, "expired"),
        ("pause", {"id": "a", "expires": 4e9}, 400, "args.stream"),
        ("pause", {"id": "a", "expires": 4e9, "args": {"stream": "x"}}, 404, "no stream x"),
        ("retry", {"id": "a", "expires": 4e9, "args": {"model": "x"}}, 404, "no model x"),
        ("rollback", {"id": "a", "expires": 4e9, "args": {"model": "m"}}, 409, "no known good"),
    ],
)
def test_what_cannot_be_done_is_answered_with_a_code_and_a_sentence(plant, name, body, code, word):
    async def main(plant):
        await plant.desire(m=1)
        answer = await plant.send(name, body)
        assert (answer["code"], answer["id"]) == (code, "a")
        assert word in answer["why"]

    live(main, plant)


def test_a_command_without_an_id_or_a_response_topic_has_nowhere_to_be_answered(plant):
    async def main(plant):
        assert await plant.send("ping", {"expires": 4e9}) == {}
        answer = await plant.send("ping", {"expires": 4e9}, response_topic="me")
        assert (answer["code"], answer["id"]) == (400, "")

    live(main, plant)


def test_a_command_that_comes_twice_is_done_once_even_across_a_restart(plant):
    """[control-3.1]"""

    async def first(plant):
        assert (await plant.command("ping", "same"))["code"] == 200
        assert await plant.command("ping", "same") == {}

    async def second(plant):
        assert await plant.command("ping", "same") == {}
        assert (await plant.command("ping", "other"))["code"] == 200

    live(first, plant, second)


def test_a_command_that_the_disk_would_not_have_remembered_may_be_sent_again(plant):
    async def main(plant):
        await plant.desire(m=1)
        plant.journal.fails[plant.journal.saves + 1] = UnavailableError("disk I/O error")
        assert (await plant.command("ping", "x"))["code"] == 503
        assert (await plant.command("ping", "x"))["code"] == 200

    live(main, plant)


def test_two_that_come_at_once_do_not_forget_each_other(plant):
    async def main(plant):
        def message(ident):
            return Message("t", json.dumps({"id": ident, "expires": 4e9}).encode())

        await asyncio.gather(*(plant.commands.take("ping", message(i)) for i in "aabb"))
        answers = [topic for topic, _ in plant.link.published if "answer" in topic]
        assert sorted(answers) == ["edge/d/answer/a", "edge/d/answer/b"]

    live(main, plant)


def test_the_memory_of_commands_is_bounded_and_forgets_the_oldest(plant):
    async def main(plant):
        for n in range(REMEMBERED_MAX + 1):
            body = json.dumps({"id": f"c{n}", "expires": 4e9}).encode()
            await plant.commands.take("ping", Message("t", body))
        assert len(json.loads(plant.journal.documents["commands"])) == REMEMBERED_MAX
        assert await plant.command("ping", "c1") == {}
        assert (await plant.command("ping", "c0"))["code"] == 200

    live(main, plant)


def test_rollback_goes_back_to_the_version_before(plant):
    async def main(plant):
        await plant.desire(m=1)
        await plant.desire(m=2)
        answer = await plant.command("rollback", model="m")
        assert (answer["from"], answer["to"]) == (2, 1)
        assert active(plant) == 1
        assert "by command" in plant.rollout().reason
        assert plant.receipts[-1]["kind"] == "rollback"
        answer = await plant.command("rollback", "c2", model="m")
        assert answer["code"] == 409

    live(main, plant)


def test_rollback_does_not_go_below_the_signed_security_floor(plant):
    """[trust-2.5]"""

    async def main(plant):
        await plant.desire(m=1)
        await plant.desire(m=2)
        plant.floors["m"] = 2
        answer = await plant.command("rollback", model="m")
        assert answer["code"] == 403
        assert "below the security floor" in answer["why"]
        assert active(plant) == 2

    live(main, plant)


def test_rollback_during_probation_is_of_the_candidate(plant):
    async def main(plant):
        await plant.desire(m=1)
        bars = {"probation": {"windows": 9}}
        await plant.desire(m={"release": 2, "rollout": bars})
        assert plant.rollout().phase is Phase.PROBATION
        answer = await plant.command("rollback", model="m")
        assert (answer["from"], answer["to"]) == (2, 1)
        assert active(plant) == 1
        assert plant.rollout().quarantined == (
            next(r.digest for r in plant.packages if r.release == 2),
        )

    live(main, plant)


@pytest.mark.parametrize("phase", [Phase.FETCHING, Phase.VERIFYING])
def test_a_candidate_that_has_not_been_loaded_leaves_nothing_to_roll_back(plant, phase):
    async def main(plant):
        await plant.desire(m=1)
        await plant.desire(m=2)
        driver = plant.models.rows["m"].driver
        work, stuck = dict(driver._work), asyncio.Event()

        async def held(ref):
            await stuck.wait()
            await work[phase](ref)

        driver._work = {**work, phase: held}
        await plant.desire(m=3)
        assert plant.rollout().phase is phase
        before = plant.rollout()
        answer = await plant.command("rollback", model="m")
        assert answer["code"] == 409
        assert "desire another release to abandon it" in answer["why"]
        assert plant.rollout() == before
        stuck.set()
        await quiet(30)
        assert active(plant) == 3

    live(main, plant)


@pytest.mark.parametrize("phase", [Phase.PREFLIGHT, Phase.SHADOW, Phase.CANARY])
def test_rollback_of_a_candidate_that_is_loaded_takes_it_out(plant, phase):
    async def main(plant):
        await plant.desire(m=1)
        driver = plant.models.rows["m"].driver

        async def held(_):
            await asyncio.Event().wait()

        driver._work = {**driver._work, phase: held}
        await plant.desire(m=2)
        assert plant.rollout().phase is phase
        answer = await plant.command("rollback", model="m")
        assert (answer["code"], answer["from"], answer["to"]) == (200, 2, 1)
        assert (active(plant), plant.rollout().phase) == (1, Phase.STEADY)
        assert plant.rollout().quarantined

    live(main, plant)


def test_a_model_that_is_being_retired_has_nothing_to_go_back_to(plant):
    async def main(plant):
        await plant.desire(m=1)
        await plant.desire(m=2)
        driver = plant.models.rows["m"].driver

        async def held(_):
            await asyncio.Event().wait()

        driver._work = {**driver._work, Phase.RETIRING: held}
        await plant.desire()
        answer = await plant.command("rollback", model="m")
        assert (answer["code"], answer["why"]) == (409, "m is being retired")

    live(main, plant)


def test_a_paused_stream_is_not_read_until_it_is_resumed(plant):
    async def main(plant):
        await plant.desire(m=1)
        assert (await plant.command("pause", "c1", stream="s"))["paused"] is True
        plant.feed(1.0)
        assert plant.source.reads == 0
        assert (await plant.command("resume", "c2", stream="s"))["paused"] is False
        plant.lane._turn()
        assert plant.source.reads == 1

    live(main, plant)


def test_a_question_is_answered_by_the_live_version_and_not_counted(plant):
    async def main(plant):
        await plant.desire(m=1)
        turning = asyncio.create_task(turn(plant))
        answer = await plant.command("score", model="m", inputs={"v": [1.5, 2.5]})
        assert (answer["score"], answer["label"]) == ([1.5, 2.5], None)
        answer = await plant.command("score", "c2", model="m", inputs={"v": 7})
        assert answer["score"] == [7.0]
        assert plant.models.rows["m"].scoring.account.readings == 0
        turning.cancel()

    live(main, plant)


async def turn(plant):
    while True:
        plant.lane._turn()
        await quiet(0.5)


@pytest.mark.parametrize(
    ("inputs", "word"),
    [
        (None, "object of lists"),
        ([1], "object of lists"),
        ({}, "args.inputs.v"),
        ({"v": "x"}, "no list of numbers"),
        ({"v": []}, "1 to 1024"),
        ({"v": [[1]]}, "1 to 1024"),
        ({"v": [1] * 1025}, "1 to 1024"),
        ({"v": True}, "1 to 1024"),
    ],
)
def test_inputs_that_are_none_are_refused_in_a_sentence(plant, inputs, word):
    async def main(plant):
        await plant.desire(m=1)
        answer = await plant.command("score", model="m", inputs=inputs)
        assert answer["code"] == 400
        assert word in answer["why"]

    live(main, plant)


def test_of_windows_and_of_nothing_there_is_no_score_to_ask_for(plant):
    plant.publish(4, more='[window]\nkind = "tumbling"\nsize = "3"')

    async def main(plant):
        await plant.desire(m=4)
        answer = await plant.command("score", model="m", inputs={"v": 1})
        assert (answer["code"], "windows" in answer["why"]) == (400, True)
        await plant.desire()
        answer = await plant.command("score", "c2", model="m", inputs={"v": 1})
        assert answer["code"] == 409

    live(main, plant)


def test_a_question_that_takes_too_long_is_given_up_and_harms_nobody(plant):
    plant.engine.quick = False

    async def main(plant):
        await plant.desire(m=1)
        before = plant.clock.monotonic()
        answer = await plant.command("score", model="m", inputs={"v": 1})
        assert answer["code"] == 503
        assert plant.clock.monotonic() - before >= ANSWER_S_MAX
        plant.lane._turn()
        plant.engine.session(1).answer()
        plant.lane._turn()
        plant.engine.session(1).quick = True
        plant.feed(5.0)
        assert plant.models.rows["m"].scoring.account.scored == 1

    live(main, plant)


def test_diagnostics_is_the_report(plant):
    async def main(plant):
        await plant.desire(m=1)
        answer = await plant.command("diagnostics")
        assert answer["state"]["models"]["m"]["active"]["release"] == 1

    live(main, plant)


@pytest.mark.parametrize("error", [UnavailableError("lost"), RefusedError("no right")])
def test_an_answer_that_cannot_be_delivered_is_let_go(plant, error):
    async def main(plant):
        plant.link.refuse = lambda topic, _: error if "answer" in topic else None
        assert await plant.command("ping") == {}

    live(main, plant)
