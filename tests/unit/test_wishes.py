"""What is desired, against what runs: level-triggered, and a bad document changes nothing."""

import pytest

from agent.core.errors import UnavailableError, UnfitError
from agent.core.rollout import Phase, Rollout
from agent.runtime.wishes import FIRST_S_MAX, RETRY_S_MAX
from tests.world.hours import quiet
from tests.world.plant import Plant, live


@pytest.fixture
def plant(tmp_path):
    return Plant(tmp_path)


@pytest.fixture
def two_streams(tmp_path):
    return Plant(tmp_path, "one", "two")


def active(plant, name="m"):
    ref = plant.rollout(name).active
    return None if ref is None else ref.release


def test_what_is_desired_runs_and_the_next_version_takes_over(plant):
    async def main(plant):
        plant.publish(1)
        plant.publish(2)
        await plant.desire(m=1)
        assert active(plant) == 1
        await plant.desire(m=2)
        assert active(plant) == 2
        assert plant.engine.open() == [2]
        assert (plant.wishes.code, plant.wishes.why, plant.wishes.revision) == (200, "", 2)
        (first, second) = plant.receipts
        assert (first["from"], second["from"]["release"], second["to"]["release"]) == (None, 1, 2)

    live(main, plant)


def test_the_same_document_again_is_no_news(plant):
    async def main(plant):
        plant.publish(1)
        document = {"revision": 1, "models": {"m": {"release": 1}}}
        await plant.say(document)
        asked, saves = plant.fetcher.asked, plant.journal.saves
        await plant.say(document)
        await plant.wishes.take(None, b"")  # taken down
        assert (plant.fetcher.asked, plant.journal.saves) == (asked, saves)
        assert active(plant) == 1

    live(main, plant)


def test_a_model_no_longer_desired_is_retired(plant):
    """[control-1.6]"""

    async def main(plant):
        plant.publish(1)
        await plant.desire(m=1)
        await plant.desire()
        assert (active(plant), plant.engine.open()) == (None, [])
        assert plant.rollout().known_good is None

    live(main, plant)


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b'{"revision": 2, "mod', "JSON"),
        (b'{"revision": 2}', "models"),
        (b'{"revision": 2, "models": {"m": {"release": "two"}}}', "release"),
        (b'{"schema": 9, "revision": 2, "models": {}}', "schema"),
        (b'{"revision": 0, "models": {}}', "older"),
    ],
)
def test_a_document_that_cannot_be_taken_changes_nothing_and_is_answered(plant, raw, word):
    async def main(plant):
        plant.publish(1)
        await plant.desire(m=1)
        await plant.wishes.take(None, raw)
        assert plant.wishes.code in {400, 409}
        assert word in plant.wishes.why
        assert plant.refused == [("", plant.wishes.why)]
        assert (active(plant), plant.wishes.revision) == (1, 1)
        await plant.desire(m=1)
        assert (plant.wishes.code, plant.wishes.why) == (200, "")

    live(main, plant)


def test_a_document_of_the_same_revision_may_be_amended(plant):
    async def main(plant):
        plant.publish(1)
        plant.publish(2)
        await plant.say({"revision": 5, "models": {"m": {"release": 1}}})
        await plant.say({"revision": 5, "models": {"m": {"release": 2}}})
        assert active(plant) == 2

    live(main, plant)


def test_a_groups_document_is_overlaid_by_the_devices_own(plant):
    async def main(plant):
        plant.publish(1)
        plant.publish(2)
        plant.publish(1, "n")
        await plant.say({"revision": 9, "models": {"m": {"release": 1}, "n": {"release": 1}}}, "g")
        assert (active(plant), active(plant, "n")) == (1, 1)
        await plant.desire(m=2)
        assert (active(plant), active(plant, "n")) == (2, 1)

    live(main, plant)


def test_what_was_desired_is_remembered_without_a_network(plant):
    """[control-1.5]"""

    async def first(plant):
        plant.publish(1)
        await plant.desire(m=1)

    async def second(plant):
        assert active(plant) == 1
        assert plant.wishes.revision == 1
        assert plant.fetcher.asked == 1
        plant.feed(5.0)
        assert plant.models.rows["m"].scoring.account.scored == 1

    live(first, plant, second)


@pytest.mark.parametrize("step", range(1, 13))
def test_whichever_write_of_the_journal_fails_what_is_desired_comes_to_run(plant, step):
    """[durability-7.1]"""

    async def main(plant):
        plant.publish(1)
        plant.journal.fails[plant.journal.saves + step] = UnavailableError("disk I/O error")
        await plant.desire(m=1)
        await quiet(RETRY_S_MAX)
        assert (active(plant), plant.rollout().phase) == (1, Phase.STEADY)
        assert plant.wishes.refusals == {}
        assert plant.journal.documents["stream:m"] == b"s"
        assert b'"release": 1' in plant.journal.documents["desired"]
        plant.feed(5.0)
        assert plant.models.rows["m"].scoring.account.scored == 1

    live(main, plant)


def test_a_remembered_document_that_is_not_understood_any_more_stops_nothing(plant):
    async def first(plant):
        plant.publish(1)
        await plant.desire(m=1)
        plant.journal.documents["desired"] = b'{"schema": 7}'

    async def second(plant):
        assert active(plant) == 1
        plant.publish(2)
        await plant.desire(m=2)
        assert active(plant) == 2

    live(first, plant, second)


def test_weather_is_waited_out_and_told(plant):
    async def main(plant):
        plant.publish(1)
        plant.fetcher.fails = [UnavailableError("no route to the repository")] * 5
        await plant.desire(m=1, seconds=0.001)
        assert "no route" in plant.wishes.refusals["m"]
        await plant.say({"revision": 1, "models": {"m": {"release": 1}}}, seconds=5 * RETRY_S_MAX)
        assert active(plant) == 1
        assert (plant.wishes.refusals, plant.refused) == ({}, [])

    live(main, plant)


def test_something_new_does_not_wait_for_the_weather_of_the_old(plant):
    async def main(plant):
        plant.publish(1)
        plant.fetcher.fails = [UnavailableError("no route")]
        await plant.desire(m=1, seconds=0.001)
        await plant.desire(m=1, seconds=0.001)
        assert "m" in plant.models.rows

    live(main, plant)


def test_a_fetch_that_breaks_off_goes_on_where_it_was(plant):
    async def main(plant):
        package = plant.publish(1)
        plant.fetcher.fails = []
        await plant.desire(m=1, seconds=0)
        plant.fetcher.fails = [UnavailableError("cut")]
        await plant.desire(m=1)
        assert active(plant) == 1
        (partial,) = plant.store.partials.values()
        assert bytes(partial.body) == plant.fetcher.blobs[package.files[0].sha256]
        assert partial.closed

    live(main, plant)


def test_a_release_that_is_not_there_is_refused_once_and_taken_when_it_comes(plant):
    async def main(plant):
        plant.publish(1)
        await plant.desire(m=7)
        assert plant.wishes.code == 404
        assert plant.refused == [("m", plant.wishes.why)]
        plant.wishes.renew()
        await plant.say({"revision": 1, "models": {"m": {"release": 7}}}, "g")
        assert len(plant.refused) == 2  # the documents changed: told again
        plant.publish(7)
        plant.wishes.renew()
        await plant.say({}, "g")
        assert active(plant) == 7
        assert plant.wishes.refusals == {}

    live(main, plant)


def test_once_a_refused_wish_can_be_taken_its_code_is_gone(plant):
    async def main(plant):
        await plant.desire(m=7)
        assert plant.wishes.code != 200
        plant.publish(7)
        await plant.command("ping")
        plant.wishes.renew()
        await plant.command("ping", "c2")
        assert active(plant) == 7
        assert (plant.wishes.code, plant.wishes.why) == (200, "")

    live(main, plant)


def test_one_wish_that_is_refused_does_not_hold_up_another(plant):
    async def main(plant):
        plant.publish(1, "n")
        await plant.desire(m=1, n=1)
        assert active(plant, "n") == 1
        assert list(plant.wishes.refusals) == ["m"]

    live(main, plant)


def test_where_there_are_two_streams_the_wish_must_say_which(two_streams):
    async def main(plant):
        plant.publish(1)
        await plant.desire(m=1)
        assert plant.wishes.code == 400
        assert "one, two" in plant.wishes.why
        await plant.desire(m={"release": 1, "stream": "two"})
        assert plant.models.rows["m"].stream == "two"
        await plant.desire(m=1)  # it is on one already
        assert (plant.wishes.code, active(plant)) == (200, 1)

    live(main, two_streams)


def test_a_stream_that_is_not_there_is_refused(plant):
    async def main(plant):
        plant.publish(1)
        await plant.desire(m={"release": 1, "stream": "nowhere"})
        assert plant.wishes.code == 404
        assert "'nowhere'" in plant.wishes.why

    live(main, plant)


def test_a_model_does_not_move_to_another_stream_while_it_runs(two_streams):
    async def main(plant):
        plant.publish(1)
        await plant.desire(m={"release": 1, "stream": "one"})
        await plant.desire(m={"release": 1, "stream": "two"})
        assert plant.wishes.code == 409
        assert plant.models.rows["m"].stream == "one"

    live(main, two_streams)


def test_bars_of_the_wish_are_laid_over_those_of_the_package(plant):
    async def main(plant):
        plant.publish(1)
        bars = {"probation": {"windows": 3}}
        await plant.desire(m={"release": 1, "rollout": bars}, seconds=600)
        assert plant.rollout().phase is Phase.PROBATION
        plant.feed(1, 2, 3)
        await plant.command("ping")
        assert plant.rollout().phase is Phase.STEADY

    live(main, plant)


def test_factory_models_run_until_something_is_desired(plant):
    package = plant.package(0)
    plant.store.folders[package.ref] = plant.store.waiting[package.ref]
    plant.factory["m"] = ("s", package)

    async def main(plant):
        assert active(plant) == 0
        assert plant.fetcher.asked == 0
        plant.publish(1)
        await plant.desire(m=1)
        assert active(plant) == 1

    async def second(plant):
        assert active(plant) == 1

    live(main, plant, second)


def on_its_way(plant):
    """A factory model that cannot be had yet, and a start that is just over."""
    plant.factory["m"] = ("s", plant.package(0))
    plant.fetcher.fails = [UnavailableError("away")] * 100
    plant.settle_s = 1.0


def test_readings_are_left_with_their_source_while_a_factory_model_comes(plant):
    """[control-1.7]"""
    on_its_way(plant)

    async def main(plant):
        intake, account = plant.lane.intakes["s"], plant.models.rows["m"].scoring.account
        plant.feed(1.0)
        assert (active(plant), intake.closed, account.readings) == (None, True, 0)
        assert not plant.reporter.report.ready
        plant.fetcher.fails.clear()
        await quiet(FIRST_S_MAX - 2)
        assert active(plant) == 0
        plant.feed(2.0)
        assert (intake.closed, account.readings, account.rejected) == (False, 2, {})

    live(main, plant)


def test_they_are_not_left_there_for_ever(plant):
    on_its_way(plant)

    async def main(plant):
        plant.feed(1.0)
        await quiet(FIRST_S_MAX)
        plant.feed(2.0)
        assert active(plant) is None
        assert plant.models.rows["m"].scoring.account.rejected == {"no_model": 2}

    live(main, plant)


def test_nor_where_the_factory_model_turns_out_to_be_none(plant):
    package = plant.package(0)
    plant.factory["m"] = ("s", package)
    plant.store.folders[package.ref] = plant.store.waiting[package.ref]
    plant.engine.fails = [UnfitError("does not parse")]
    plant.settle_s = FIRST_S_MAX / 2

    async def main(plant):
        plant.feed(1.0)
        assert plant.models.rows["m"].scoring.account.rejected == {"no_model": 1}

    live(main, plant)


def test_they_are_left_there_in_the_next_start_too(plant):
    """[control-1.7]"""
    on_its_way(plant)

    async def cut_off(plant):
        assert plant.rollout().phase is Phase.FETCHING

    async def main(plant):
        intake, account = plant.lane.intakes["s"], plant.models.rows["m"].scoring.account
        plant.feed(1.0)
        assert (active(plant), intake.closed, account.readings) == (None, True, 0)
        plant.fetcher.fails.clear()
        await quiet(FIRST_S_MAX - 2)
        assert active(plant) == 0
        plant.feed(2.0)
        assert (intake.closed, account.readings, account.rejected) == (False, 2, {})

    live(cut_off, plant, main)


def test_but_not_in_the_next_start_where_it_has_turned_out_to_be_none(plant):
    """[control-1.7]"""
    package = plant.package(0)
    plant.factory["m"] = ("s", package)
    plant.store.folders[package.ref] = plant.store.waiting[package.ref]
    plant.engine.fails = [UnfitError("does not parse")]

    async def failed(plant):
        assert plant.rollout().quarantined
        plant.settle_s = 1.0

    async def main(plant):
        plant.feed(1.0)
        assert plant.models.rows["m"].scoring.account.rejected == {"no_model": 1}

    live(failed, plant, main)


def test_a_factory_model_that_cannot_be_taken_is_told_and_stops_nothing(two_streams):
    plant = two_streams
    package = plant.package(0)
    plant.store.folders[package.ref] = plant.store.waiting[package.ref]
    plant.factory["m"] = ("one", package)

    async def first(plant):
        assert active(plant) == 0
        plant.factory["m"] = ("two", package)

    async def second(plant):
        assert active(plant) == 0
        assert plant.wishes.code == 409

    live(first, plant, second)


def test_a_bad_version_is_quarantined_and_not_fetched_again_until_it_is_forgiven(plant):
    async def main(plant):
        plant.publish(1)
        bad = plant.publish(2)
        await plant.desire(m=1)
        plant.store.fails = []
        plant.engine.fails = [UnfitError("does not parse")]
        await plant.desire(m=2)
        assert plant.rollout().quarantined == (bad.ref.digest,)
        assert active(plant) == 1
        await plant.desire(m=2)
        assert "quarantined" in plant.rollout().reason
        assert [release for release, _ in plant.engine.loads].count(2) == 1
        await plant.command("retry", model="m")
        assert active(plant) == 2
        assert plant.rollout().quarantined == ()

    live(main, plant)


def test_features_that_contradict_the_stream_are_a_misfit_and_stop_nothing(plant):
    async def main(plant):
        plant.publish(1)
        await plant.desire(m=1)
        plant.publish(1, "n")
        package = plant.publish(2, "n")
        toml = plant.folder / "n-2" / "model.toml"
        toml.write_text(toml.read_text().replace('["v"]', '["v.x", "w"]'))
        assert package.ref.release == 2
        await plant.desire(m=1, n=2)
        assert plant.rollout("n").active is None
        assert plant.state("n")["state"] == "Unschedulable"
        assert active(plant) == 1
        assert plant.engine.open() == [1]

    live(main, plant)


def test_after_its_first_start_nothing_is_desired(plant):
    async def main(plant):
        assert plant.models.rows == {}
        assert plant.wishes.revision == 0
        assert plant.journal.load("m") == Rollout()

    live(main, plant)


def test_what_is_still_on_the_disk_comes_back_only_above_the_signed_floor(plant):
    async def main(plant):
        plant.publish(1)
        plant.publish(2)
        await plant.desire(m=1)
        await plant.desire(m=2)
        plant.floors["m"] = 2
        await plant.desire(m=1)
        assert active(plant) == 2
        assert plant.wishes.code == 403
        assert "security floor" in plant.wishes.why

    live(main, plant)
