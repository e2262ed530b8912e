"""A manifest held against what its stream was seen to carry: refusals, warnings, and neither."""

import json

import pytest

from agent.core import contract, manifest
from agent.core.decoding import Decoder
from agent.core.streams import StreamSpec
from agent.core.survey import Survey

START = 1_732_180_000.0


def wants(features="", rest=""):
    raw = f"""
name = "m"
[features]
{features}
[output]
score = {{ tensor = "y" }}
{rest}
"""
    return manifest.parse(raw.encode())


def stream(*readings, rate=10.0, count=100, **spec):
    """What was seen of `count` readings of one sensor, `readings` in turn."""
    whole = {"name": "pump", "format": "json", "key": "k", "time": "t", "fields": {}, **spec}
    decoder = Decoder(StreamSpec(**whole), ())
    survey = Survey(StreamSpec(**whole))
    for i in range(count if readings else 0):
        record = {"k": "a", "t": START + i / rate, **readings[i % len(readings)]}
        payloads = [json.dumps(record).encode()]
        now = i * 1.0
        survey.saw(payloads, decoder.decode(payloads, None, now, START + now))
    return survey.seen()


def check(features, seen, rest=""):
    findings = contract.check(wants(features, rest), seen)
    return findings.refusals, findings.warnings


GOOD = {"temp": 60.0, "vib": {"rms": 0.4}}
PLAIN = 'names = ["temp", "vib"]\n'


def test_a_stream_that_carries_what_is_wanted_is_taken_without_a_word():
    seen = stream(GOOD, fields={"vib": "vib.rms"}, units={"temp": "degC"})
    told = 'units = ["°C", "mm/s"]\nranges = [[-20, 120], [0, 50]]\nrates = [10, 10]'
    assert check(PLAIN + told, seen) == ([], [])


def test_a_feature_that_is_on_no_reading_is_refused_with_what_there_is():
    """[rollout-8.2]"""
    refusals, _ = check('names = ["tempp"]', stream(GOOD, fields={"vib": "vib.rms"}))
    assert refusals == [
        "feature tempp is on no reading of the stream pump; it has: temp, vib",
    ]


def test_a_feature_at_another_rate_is_refused_with_both():
    """[rollout-8.2]"""
    refusals, _ = check('names = ["vib"]\nrates = [1000]', stream({"vib": 1.0}, rate=100.0))
    assert refusals == ["feature vib wants 1 kHz, seen 100 Hz"]


@pytest.mark.parametrize(
    ("rate", "refused", "warned"), [(10.0, 0, 0), (15.0, 0, 1), (25.0, 1, 0), (0.05, 1, 0)]
)
def test_a_rate_a_little_off_is_said_and_one_far_off_refused(rate, refused, warned):
    found = check('names = ["v"]\nrates = [10]', stream({"v": 1.0}, rate=rate))
    assert [len(part) for part in found] == [refused, warned]


def test_a_field_on_every_other_reading_comes_half_as_often():
    refusals, warnings = check('names = ["v"]\nrates = [5]', stream({"v": 1.0}, {"w": 1.0}))
    assert (refusals, warnings) == ([], [])


def test_values_mostly_outside_of_the_range_are_refused_with_the_share():
    """[rollout-8.2]"""
    hot = [{"temp": 60.0}, {"temp": 61.0}, {"temp": 62.0}, {"temp": 140.0}, {"temp": 141.0}]
    refusals, _ = check('names = ["temp"]\nranges = [[-20, 120]]', stream(*hot))
    assert refusals == [
        (
            "feature temp: 40 % of what was seen lies outside its range -20…120; most lies within"
            " 60…141"
        )
    ]


def test_a_few_values_outside_of_the_range_are_only_said():
    readings = [{"temp": 60.0}] * 19 + [{"temp": 500.0}]
    refusals, warnings = check('names = ["temp"]\nranges = [[-20, 120]]', stream(*readings))
    assert refusals == []
    assert warnings[0].startswith("feature temp: 5 % of what was seen lies outside")


def test_text_where_a_number_should_be_is_refused():
    refusals, _ = check('names = ["temp"]', stream({"temp": "61,2"}))
    assert refusals == [
        (
            "feature temp is no number on 100 % of the readings of the stream pump, such as"
            " the text '61,2'"
        ),
    ]


@pytest.mark.parametrize(
    ("has", "wanted", "refused"),
    [
        ("°F", "°C", True),
        ("mm/s", "m/s", True),
        ("Mm", "mm", True),
        ("degC", "°C", False),
        ("mm / s", "mm/s", False),
        ("", "°C", False),
    ],
)
def test_another_unit_is_refused_whether_or_not_anything_was_seen(has, wanted, refused):
    """[rollout-8.2]"""
    seen = stream(units={"temp": has} if has else {})
    refusals, _ = check(f'names = ["temp"]\nunits = ["{wanted}"]', seen)
    expected = f"feature temp is wanted in {wanted}, and the stream pump has it in {has}"
    assert refusals == ([expected] if refused else [])


def test_a_stream_that_was_never_seen_refuses_nothing():
    """[rollout-8.3]"""
    assert check('names = ["temp"]\nranges = [[0, 1]]\nrates = [1]', stream()) == (
        [],
        ["stream pump: nothing seen yet, so the model is taken at its word"],
    )


def test_too_few_readings_refuse_nothing_and_say_so():
    """[rollout-8.3]"""
    refusals, warnings = check('names = ["other"]', stream(GOOD, count=29))
    assert refusals == []
    assert warnings[0].endswith("(of 29 readings looked into: too few to refuse it for)")
    assert check('names = ["other"]', stream(GOOD, count=30))[0]


def test_a_feature_the_model_can_do_without_is_only_said():
    refusals, warnings = check('names = ["temp", "humidity"]\nmissing = 0.0', stream(GOOD))
    assert refusals == []
    assert warnings == [
        (
            "feature humidity is on no reading of the stream pump; it has: temp, vib.rms. The model"
            " gets 0.0 in its place (features.missing)"
        ),
    ]


def test_sensors_that_send_only_what_changed_are_no_offence():
    readings = [{"temp": 1.0}, {"vib": 1.0}]
    assert check(PLAIN, stream(*readings)) == ([], [])
    _, warnings = check(PLAIN + 'missing = "reject"', stream(*readings))
    assert warnings[0].startswith("feature temp is missing from 50 % of the readings")


@pytest.mark.parametrize(("rate", "told"), [(1.0, "the oldest is repeated"), (10.0, ""),
                                            (100.0, "only the newest are used")])  # fmt: skip
def test_a_window_of_time_that_the_rate_does_not_fill_is_said(rate, told):
    rest = '[window]\nkind = "tumbling"\nsize = "10s"\nrows = 100'
    refusals, warnings = check('names = ["v"]', stream({"v": 1.0}, rate=rate), rest)
    assert refusals == []
    assert [told in warning for warning in warnings] == [True] * bool(told)


def test_a_stream_with_more_fields_than_are_looked_at_refuses_none_for_its_absence():
    wide = {f"f{i}": 1.0 for i in range(600)}
    refusals, warnings = check('names = ["f599"]', stream(wide))
    assert refusals == []
    assert warnings[0].endswith("and 502 more, and more than could be looked at")


@pytest.mark.parametrize(
    ("rate", "words"),
    [(1000.0, "1 kHz"), (44_100.0, "44.1 kHz"), (0.5, "0.5 Hz"), (1 / 60, "1 in 60 s")],
)
def test_rates_are_told_as_people_say_them(rate, words):
    assert contract.hertz(rate) == words
