"""Batches on their way through sessions: order, lost workers, poison, hangs."""

import pytest

from agent.runtime.scoring import Limits
from agent.runtime.seats import RUNS_TO_KNOW
from tests.world.river import River


@pytest.fixture
def river():
    with River(limits=Limits(rows_max=2, tries_max=3, run_s_max=10.0)) as river:
        river.seat_1 = river.seat(1)
        river.swap(river.seat_1)
        yield river


def lose(river, seat):
    seat.session.die("signal 11")
    river.turn()


def revive(river, seat):
    seat.session.revive()
    seat.revived()
    river.turn()


def test_no_more_jobs_are_out_than_the_session_takes(river):
    river.push(10)
    river.turn()
    assert len(river.seat_1.session.taken) == river.seat_1.session.jobs_max == 2
    river.seat_1.session.answer(2)
    river.turn()
    assert len(river.seat_1.session.taken) == 2
    assert len(river.seat_1.session.seen) == 4


def test_a_stateful_version_has_one_job_out(river):
    seat = river.stateful(2)
    river.swap(seat)
    river.push(4, keys=[0, 1, 0, 1])
    river.turn()
    assert len(seat.session.taken) == 1
    assert seat.jobs_max == 1 < seat.session.jobs_max


def test_a_lost_worker_is_told_once_and_counted(river):
    river.push(4)
    river.turn()
    lose(river, river.seat_1)
    assert river.lost == [(river.seat_1, "signal 11")]
    river.push(2)
    river.turn()
    assert len(river.lost) == 1
    assert (river.seat_1.evidence.deaths, river.seat_1.jobs_out) == (1, 0)


def test_a_worker_found_dead_at_submit_is_lost_too_and_its_batch_is_kept(river):
    river.seat_1.session.dead = "gone"
    river.push(2)
    river.turn()
    assert river.lost == [(river.seat_1, "gone")]
    revive(river, river.seat_1)
    river.finish()
    assert river.scores == [1, 2]


def test_what_a_lost_worker_had_is_sent_again_in_order(river):
    river.push(8)
    river.turn()
    lose(river, river.seat_1)
    assert not river.seat_1.session.taken
    revive(river, river.seat_1)
    seen = [x[0].ravel().tolist() for x in river.seat_1.session.seen]
    assert seen == [[1, 2], [3, 4], [1, 2], [3, 4]]
    river.finish()
    assert river.scores == list(range(1, 9))
    river.check()


def test_an_answer_that_came_before_the_death_is_not_asked_for_again(river):
    river.push(2)
    river.push(2)
    river.turn()
    river.seat_1.session.answer()
    river.seat_1.session.die()
    river.turn()
    river.turn()
    assert river.scores == [1, 2]
    revive(river, river.seat_1)
    assert [
        x[0].ravel().tolist() for x in river.seat_1.session.taken and river.seat_1.session.seen
    ][-1] == [3, 4]
    river.finish()
    river.check()


def test_nothing_is_sent_to_a_worker_that_is_gone(river):
    river.push(2)
    river.turn()
    lose(river, river.seat_1)
    river.push(4)
    river.turn()
    assert len(river.seat_1.session.seen) == 1


def test_a_batch_that_keeps_killing_workers_is_given_up_and_the_others_are_not(river):
    river.push(2)  # poison
    river.push(2)
    river.turn()
    for _ in range(2):
        lose(river, river.seat_1)
        assert river.account.rejected == {}
        revive(river, river.seat_1)
    lose(river, river.seat_1)
    assert river.account.rejected == {"run": 2}
    assert "3 workers did not survive this batch" in river.seat_1.evidence.why
    river.finish()
    assert river.scores == [3, 4]
    river.check()


def test_only_the_oldest_batch_is_to_blame_for_a_death(river):
    river.push(4)
    river.turn()
    for _ in range(2):
        lose(river, river.seat_1)
        revive(river, river.seat_1)
    river.seat_1.session.answer()  # the first was innocent after all
    river.turn()
    for _ in range(2):
        lose(river, river.seat_1)
        revive(river, river.seat_1)
    assert river.account.rejected == {}
    river.finish()
    assert river.scores == [1, 2, 3, 4]


def test_a_batch_handed_to_another_version_starts_with_a_clean_record(river):
    bad = river.seat(2)
    river.swap(bad)
    river.push(2)
    river.turn()
    for _ in range(2):
        lose(river, bad)
        revive(river, bad)
    river.take_back(bad, river.seat_1)
    river.turn()
    lose(river, river.seat_1)
    assert river.account.rejected == {}
    river.finish()
    assert river.by_release == [(1, 1), (1, 2)]


def test_a_run_that_takes_too_long_is_killed_once(river):
    river.push(2)
    river.turn()
    assert river.scoring.jobs.next_hang() == river.clock.monotonic() + 10.0
    river.clock.forward(9.9)
    river.turn()
    assert river.seat_1.session.kills == 0
    river.clock.forward(0.1)
    river.scoring.jobs.hung(river.clock.monotonic())
    river.scoring.jobs.hung(river.clock.monotonic())
    assert river.seat_1.session.kills == 1
    river.turn()
    assert river.lost == [(river.seat_1, "killed, it took too long")]
    river.finish()
    assert river.scores == [1, 2]


def test_nothing_hangs_while_nothing_is_out(river):
    assert river.scoring.jobs.next_hang() is None
    river.push(2)
    river.turn()
    river.seat_1.session.answer()
    river.scoring.jobs.collect(river.seat_1)
    assert river.scoring.jobs.next_hang() is None
    river.clock.forward(60)
    river.turn()
    assert river.seat_1.session.kills == 0


def test_what_waits_for_a_worker_does_not_hang(river):
    river.push(2)
    river.turn()
    lose(river, river.seat_1)
    assert river.scoring.jobs.next_hang() is None


def test_a_version_that_is_swapped_out_and_lost_is_still_waited_for(river):
    river.push(2)
    river.turn()
    new = river.seat(2)
    river.swap(new)
    river.push(2)
    lose(river, river.seat_1)
    assert not new.session.seen
    revive(river, river.seat_1)
    river.finish()
    assert river.by_release == [(1, 1), (1, 2), (2, 3), (2, 4)]
    assert river.released == [river.seat_1]


def test_nothing_is_sent_to_a_new_worker_before_the_seat_knows_of_it(river):
    river.push(2)
    river.turn()
    lose(river, river.seat_1)
    river.seat_1.session.revive()
    river.push(2)
    river.turn()
    assert len(river.seat_1.session.seen) == 1
    river.seat_1.revived()
    river.finish()
    assert river.scores == [1, 2, 3, 4]


def test_a_loss_found_twice_is_one_loss(river):
    river.seat_1.session.dead = "gone"
    river.push(2)
    river.turn()  # found at submit
    river.scoring.jobs.collect(river.seat_1)  # and by the descriptor it left ringing
    assert river.lost == [(river.seat_1, "gone")]
    assert river.seat_1.evidence.deaths == 1


def test_answers_are_told_apart_by_their_number(river):
    river.push(2)
    river.push(2)
    river.turn()
    session = river.seat_1.session
    session.taken.rotate()
    session.answer()
    assert river.turn() == []
    session.answer()
    river.turn()
    assert river.scores == [1, 2, 3, 4]


def test_an_answer_to_nobody_is_ignored(river):
    river.push(2)
    river.turn()
    session = river.seat_1.session
    session.answer()
    session._answers.append(session._answers[0])
    river.turn()
    assert river.scores == [1, 2]
    assert river.seat_1.jobs_out == 0


def test_the_time_the_whole_process_stood_still_is_no_runs_time(river):
    river.push(2)
    river.turn()
    due = river.scoring.jobs.next_hang()
    river.clock.forward(60.0)
    river.scoring.stood_still(60.0)
    river.turn()
    assert river.scoring.jobs.next_hang() == due + 60.0
    assert river.seat_1.session.kills == 0


def test_a_hang_is_evidence_and_so_is_the_death_that_ends_it(river):
    river.push(2)
    river.turn()
    river.clock.forward(10.0)
    river.turn()
    seen = river.seat_1.evidence
    assert (seen.hangs, seen.why) == (1, "it was ended after 10.0 s")
    river.turn()
    assert (seen.deaths, river.seat_1.deaths) == (1, 1)


def test_a_device_that_is_lost_is_no_evidence_against_a_version(river):
    river.push(2)
    river.turn()
    river.seat_1.session.device_lost = True
    lose(river, river.seat_1)
    assert (river.seat_1.evidence.deaths, river.seat_1.deaths) == (0, 1)


def test_a_version_whose_runs_are_known_to_be_short_is_waited_for_less_long(river):
    for _ in range(RUNS_TO_KNOW):
        river.push(1)
        river.finish()
    assert river.seat_1.runs == RUNS_TO_KNOW
    river.push(1)
    river.turn()
    waits = river.scoring.jobs.next_hang() - river.clock.monotonic()
    assert waits == river.seat_1.run_s_max(10.0) < 10.0


@pytest.mark.parametrize(
    ("usual_ms", "hiccup_ms", "waits_s"),
    [(5, 900, 2.0), (5, 1500, 3.0), (200, 0, 4.0), (200, 900, 4.14), (2000, 0, 10.0)],
)
def test_one_slow_run_does_not_say_what_is_too_long(river, usual_ms, hiccup_ms, waits_s):
    """[rollout-7.3]"""
    for _ in range(99):
        river.seat_1.ran(usual_ms)
    river.seat_1.ran(hiccup_ms or usual_ms)
    assert river.seat_1.run_s_max(10.0) == pytest.approx(waits_s, abs=0.01)


def test_a_seat_that_is_about_to_be_given_back_is_sent_nothing_more(river):
    river.seat_1.parked = True
    river.push(2)
    river.turn()
    assert not river.seat_1.session.seen


def test_what_a_worker_that_is_given_back_had_is_no_try_of_it(river):
    river.push(2)
    river.turn()
    river.scoring.jobs.park(river.seat_1)
    assert (river.seat_1.lost, river.seat_1.jobs_out) == (True, 0)
    assert [job.tries for job in river.scoring.jobs._jobs] == [0]
    revive(river, river.seat_1)
    river.finish()
    assert river.scores == [1, 2]


def test_a_failed_run_leaves_the_states_as_they_were(river):
    seat = river.stateful(2)
    river.swap(seat)
    river.push(1)
    river.finish()
    river.push(1)
    river.turn()
    seat.session.answer(error="no")
    river.turn()
    river.push(1)
    river.finish()
    assert river.by_release == [(2, 1), (2, 4)]
