"""When to connect again."""

import random
from collections import Counter

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


def came_back(first_s, agents, down_s, seed):
    """When each agent was back, in seconds since the broker was: full seconds, counted."""
    dice = random.Random(seed)
    back = []
    for _ in range(agents):
        one = Redial("a", delay_s_max=120.0, dice=dice.random, delay_s_first=first_s)
        now = one.lost(0.0, lived_s=3600.0, taken_over=False)[0]
        while now < down_s:
            now += one.failed()
        back.append(now - down_s)
    return max(back), max(Counter(int(t) for t in back).values())


def test_a_fleet_that_was_told_to_spread_comes_back_over_half_a_minute_and_not_at_once():
    """[delivery-6.5] 100 agents, a broker away for 2 s: `mqtt.reconnect_s_first` = 60."""
    runs = [came_back(60.0, 100, 2.0, seed) for seed in range(20)]
    as_is = [came_back(1.0, 100, 2.0, seed) for seed in range(20)]
    print(f"spread {min(s for s, _ in runs):.0f} s, peak {max(n for _, n in runs)} a second; ")
    print(f"unset: {min(s for s, _ in as_is):.0f} s, {max(n for _, n in as_is)} a second")
    assert min(spread for spread, _ in runs) >= 30
    assert max(peak for _, peak in runs) <= 10
