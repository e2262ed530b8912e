"""When to connect again."""

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
