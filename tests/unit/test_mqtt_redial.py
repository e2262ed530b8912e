"""When to connect again."""

import random

import pytest

from agent.adapters.mqtt.redial import Redial


def redial(dice=lambda: 0.999, most=120.0):
    return Redial("pump-7", delay_s_max=most, dice=dice)


def test_delays_double_up_to_the_limit():
    one = redial(dice=lambda: 1.0)
    assert [one.failed() for _ in range(9)] == [1, 2, 4, 8, 16, 32, 64, 120, 120]


def test_jitter_is_full_so_that_a_fleet_does_not_come_back_as_one():
    one = redial(dice=lambda: 0.0)
    assert [one.failed() for _ in range(5)] == [0] * 5


def test_a_connection_that_lived_resets_the_delay():
    one = redial(dice=lambda: 1.0)
    for _ in range(5):
        one.failed()
    assert one.lost(100.0, lived_s=60.0, taken_over=False) == (1.0, "")


def test_a_connection_that_did_not_live_does_not():
    one = redial(dice=lambda: 1.0)
    for _ in range(5):
        one.failed()
    assert one.lost(100.0, lived_s=0.1, taken_over=False)[0] == 32.0


def test_three_takeovers_in_ten_minutes_end_the_fight_with_a_sentence():
    one = redial()
    assert one.lost(0.0, lived_s=1.0, taken_over=True)[1] == ""
    assert one.lost(100.0, lived_s=50.0, taken_over=True)[1] == ""
    delay_s, sentence = one.lost(200.0, lived_s=50.0, taken_over=True)
    assert 300 <= delay_s <= 600
    assert "another client uses the MQTT client id pump-7" in sentence


def test_takeovers_far_apart_are_no_fight():
    one = redial()
    for i in range(10):
        assert one.lost(i * 400.0, lived_s=300.0, taken_over=True)[1] == ""


def test_where_the_protocol_cannot_say_it_many_quick_ends_in_a_row_are_taken_for_it():
    one = redial()
    told = [one.lost(i * 3.0, lived_s=1.0, taken_over=None) for i in range(6)]
    assert [bool(sentence) for _, sentence in told] == [False] * 5 + [True]
    assert 60 <= told[-1][0] <= 120


def test_a_broker_that_was_away_in_between_is_no_rival():
    one = redial()
    for i in range(20):
        one.failed()
        assert one.lost(i * 3.0, lived_s=1.0, taken_over=None)[1] == ""


@pytest.mark.parametrize("seed", range(20))
def test_in_a_fight_over_an_id_no_ten_minutes_have_more_than_three_reconnects(seed):
    """[delivery-6.4] The other client takes the id back within a second, for three hours."""
    one, now, reconnects = redial(dice=random.Random(seed).random), 0.0, []
    while now < 3 * 3600:
        now += 1.0
        now += one.lost(now, lived_s=1.0, taken_over=True)[0]
        reconnects.append(now)
    assert all(sum(t <= x < t + 600 for x in reconnects) <= 3 for t in reconnects)


AGENTS = 100


def came_back(seed, *, away_s, says_so, spread_s=60.0):
    """When each agent of a fleet was back, in seconds since the broker was, in order.

    The broker was `away_s` away.  Where it does not even hang up, who looks meanwhile is refused.
    """
    dice, back = random.Random(seed), []
    for _ in range(AGENTS):
        one = Redial("a", delay_s_max=120.0, dice=dice.random, spread_s=spread_s)
        now = one.lost(0.0, lived_s=3600.0, taken_over=False, going=says_so)[0]
        while now < away_s:
            now += one.failed(refused=True)
        back.append(now - away_s)
    return sorted(back)


def told(name, runs):
    """The least spread and the highest count in any second, of all runs; printed."""
    spread = min(run[-1] - run[0] for run in runs)
    most = max(sum(t <= u < t + 1.0 for u in run) for run in runs for t in run)
    print(f"{name}: {AGENTS} agents back over {spread:.0f} s at least, at most {most} in a second")
    return spread, most


@pytest.mark.parametrize(
    ("away_s", "says_so"),
    [(0.0, True), (2.0, True), (2.0, False), (60.0, True), (60.0, False)],
)
def test_a_fleet_comes_back_to_its_broker_over_half_a_minute_and_not_at_once(away_s, says_so):
    """[delivery-6.5] F19."""
    runs = [came_back(seed, away_s=away_s, says_so=says_so) for seed in range(50)]
    how = "hung up" if says_so else "was reset"
    spread, most = told(f"broker {how}, away {away_s:g} s", runs)
    assert spread >= 30
    assert most <= (10 if away_s < 10 else 12)


def test_without_a_spread_a_fleet_comes_back_in_one_wave():
    """Why there is one."""
    runs = [came_back(n, away_s=2.0, says_so=True, spread_s=0.0) for n in range(50)]
    _, most = told("no spread", runs)
    assert most > 50


@pytest.mark.parametrize("away_s", [0.5, 3.0, 10.0, 60.0])
def test_one_device_that_was_cut_off_is_back_as_fast_as_ever(away_s):
    """[delivery-6.7] No word of the broker's, nothing refused: it is we who were away."""
    late = []
    for seed in range(200):
        dice = random.Random(seed)
        one = Redial("a", delay_s_max=120.0, dice=dice.random, spread_s=60.0)
        now = one.lost(0.0, lived_s=3600.0, taken_over=False)[0]
        while now < away_s:
            now += one.failed()
        late.append(now - away_s)
    print(f"cut for {away_s:g} s: back {sorted(late)[100]:.1f} s later, {max(late):.0f} at worst")
    assert sorted(late)[100] <= max(1.0, away_s)


def test_a_device_that_has_not_met_its_broker_yet_waits_for_nobody_else():
    """[delivery-6.7] Both have just been switched on."""
    one = Redial("a", delay_s_max=120.0, dice=lambda: 1.0, spread_s=60.0)
    assert [one.failed(refused=True) for _ in range(4)] == [1, 2, 4, 8]


def test_the_spread_is_not_wider_than_the_longest_delay():
    one = Redial("a", delay_s_max=5.0, dice=lambda: 1.0, spread_s=60.0)
    assert one.lost(0.0, lived_s=60.0, taken_over=False, going=True)[0] == 5.0
