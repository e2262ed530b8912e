"""A bench replaces its own rows in the table of figures, and no other."""

import pytest

from tests.bench.table import BEGIN, END, HEAD, Figure, merged

TABLE = (
    f"words\n\n{BEGIN}{HEAD}| a ÷ b | 2 | 1 | then |\n| c | 3 |  | then |\n{END}more | words |\n"
)


def test_a_figure_takes_the_place_of_what_it_had():
    text = merged(TABLE, {"a ÷ b": Figure("1.5", "1", "now")})
    assert text == TABLE.replace("| 2 | 1 | then |", "| 1.5 | 1 | now |")


def test_a_new_one_comes_last_and_can_be_replaced_in_turn():
    once = merged(TABLE, {"d": Figure("9", "", "now")})
    assert once == TABLE.replace(END, "| d | 9 |  | now |\n" + END)
    assert merged(once, {"d": Figure("9", "", "now")}) == once


def test_without_a_table_nothing_is_written():
    with pytest.raises(ValueError, match="no table"):
        merged("words", {"a": Figure("1", "", "now")})
