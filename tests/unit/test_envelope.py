"""The bytes a receipt's signature is over: RFC 8785 inside DSSE, to the letter."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.envelope import KIND, canonical, plain, signed_bytes
from agent.core.errors import RefusedError

NUMBERS = {  # RFC 8785, appendix B
    0.0: "0",
    5e-324: "5e-324",
    -5e-324: "-5e-324",
    1.7976931348623157e308: "1.7976931348623157e+308",
    9007199254740992.0: "9007199254740992",
    295147905179352830000.0: "295147905179352830000",
    9.999999999999997e22: "9.999999999999997e+22",
    1e23: "1e+23",
    1.0000000000000001e23: "1.0000000000000001e+23",
    999999999999999700000.0: "999999999999999700000",
    999999999999999900000.0: "999999999999999900000",
    1e21: "1e+21",
    9.999999999999997e-7: "9.999999999999997e-7",
    0.000001: "0.000001",
    333333333.33333325: "333333333.33333325",
    1424953923781206.2: "1424953923781206.2",
}


@pytest.mark.parametrize(("number", "text"), NUMBERS.items())
def test_numbers_are_written_as_ecmascript_writes_them(number, text):
    assert canonical(number).decode() == text
    assert canonical(-0.0) == b"0"


def test_keys_are_sorted_by_their_utf_16_and_nothing_is_escaped_needlessly():
    keys = ["€", "\r", "\ufb33", "1", "😀", "\x80", "ö"]
    told = canonical(dict.fromkeys(keys)).decode()
    assert told == ('{"\\r":null,"1":null,"\x80":null,"ö":null,"€":null,"😀":null,"\ufb33":null}')


@pytest.mark.parametrize("odd", [math.nan, math.inf, 10**400, "\ud800", {1: 2}, b"x"])
def test_what_has_no_canonical_form_is_refused(odd):
    with pytest.raises(RefusedError):
        canonical({"a": [odd]})


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)


@given(ODD)
def test_what_was_made_plain_is_the_same_after_any_journey_as_json(value):
    made = plain(value)
    once = canonical(made)
    assert canonical(json.loads(once)) == once
    assert canonical(json.loads(json.dumps(made, indent=2))) == once


def test_what_is_signed_says_what_it_is():
    assert signed_bytes({"b": 1, "a": "é"}) == (
        b"DSSEv1 39 application/vnd.edge-agent.receipt+json 16 " + '{"a":"é","b":1}'.encode()
    )
    assert len(KIND) == 39
