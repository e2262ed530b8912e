"""The report of `check`: every part is looked at, and one that is wrong is enough."""

import io
import json

import pytest
from rich.console import Console

from agent.commands.findings import Finding, document, exit_code, look, show
from agent.core.errors import MisfitError, RefusedError, UnavailableError, UnfitError


@pytest.mark.parametrize("error", [RefusedError, UnavailableError, MisfitError, UnfitError])
def test_a_part_that_fails_does_not_hide_the_others(error):
    def broken() -> str:
        raise error("mqtts://broker.plant:8883 refuses us; look at mqtt.username")

    findings = look([("broker", broken), ("store", lambda: "2 GB free")])
    assert [(f.part, f.ok) for f in findings] == [("broker", False), ("store", True)]
    assert "mqtt.username" in findings[0].sentence
    assert exit_code(findings) == 1


def test_a_bug_is_not_taken_for_a_finding():
    with pytest.raises(ZeroDivisionError):
        look([("store", lambda: str(1 // 0))])


def test_a_script_gets_one_document():
    findings = [
        Finding("store", ok=True, sentence="fine"),
        Finding("trust", ok=False, sentence="no root"),
    ]
    assert json.loads(json.dumps(document(findings))) == {
        "schema": 1,
        "ok": False,
        "parts": {"store": {"ok": True, "why": "fine"}, "trust": {"ok": False, "why": "no root"}},
    }


def test_all_good_is_exit_0_and_a_table_people_can_read():
    findings = [Finding("store", ok=True, sentence="/var/lib [red]is no markup[/]")]
    out = io.StringIO()
    show(findings, Console(file=out, width=100, highlight=False))
    assert out.getvalue().split() == ["store", "ok", "/var/lib", "[red]is", "no", "markup[/]"]
    assert exit_code(findings) == 0
