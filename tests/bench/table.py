"""The table of figures in docs/limits.md: what a bench measures takes the place of what it had."""

import re
from collections.abc import Mapping
from typing import NamedTuple

BEGIN, END = "<!-- figures -->\n", "<!-- /figures -->\n"
HEAD = "| figure | measured | goal | when, at which load |\n|---|---|---|---|\n"
_ROW = re.compile(r"^\| (.*?) \| .* \|$", re.MULTILINE)


class Figure(NamedTuple):
    """One row, in words."""

    measured: str
    goal: str
    when: str


def merged(text: str, figures: Mapping[str, Figure]) -> str:
    """`text` with `figures` in its table, by name; the rows of others stay as they are.

    Raises ValueError where there is no table.
    """
    before, began, rest = text.partition(BEGIN)
    table, ended, after = rest.partition(END)
    if not began or not ended:
        msg = f"no table between {BEGIN.strip()} and {END.strip()}"
        raise ValueError(msg)
    rows = {found[1]: found[0] for found in _ROW.finditer(table.removeprefix(HEAD))}
    for name, figure in figures.items():
        rows[name] = f"| {name} | {figure.measured} | {figure.goal} | {figure.when} |"
    body = "".join(f"{row}\n" for row in rows.values())
    return f"{before}{BEGIN}{HEAD}{body}{END}{after}"
