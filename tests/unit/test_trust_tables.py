"""The tables of docs/spec/trust.md are whole: every threat, every conformance case, its test."""

import ast
import fnmatch
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PAGE = (TESTS.parent / "docs" / "spec" / "trust.md").read_text(encoding="utf-8")

# All that tuf-conformance has at eec841c, by file.
THEIRS = {
    "basic": "basic_refresh_requests basic_refresh_trusted_data implicit_refresh"
    " invalid_initial_root unsigned_initial_root unsigned_metadata"
    " url_and_metadata_version_mismatch timestamp_content_changes basic_metadata_hash_support"
    " targets_hash_mismatch"
    " snapshot_hash_mismatch metadata_bytes_match custom_fields deprecated_keyid_hash_algorithms"
    " snapshot_404 targets_404 timestamp_404 incorrect_metadata_type faketime",
    "expiration": "root_expired timestamp_expired snapshot_expired targets_expired"
    " expired_local_root expired_local_timestamp",
    "file_download": "client_downloads_expected_file client_downloads_expected_file_in_sub_dir"
    " repository_substitutes_target_file multiple_changes_to_target download_with_hash_algorithms"
    " download_with_unknown_hash_algorithm artifact_cache",
    "keys": "snapshot_does_not_meet_threshold snapshot_has_too_few_keys duplicate_keys"
    " duplicate_sig_keyids keytype_and_scheme invalid_sig_in_valid_metadata",
    "quoting_issues": "unusual_role_name",
    "rollback": "new_timestamp_version_rollback snapshot_rollback targets_role_removal"
    " targets_fast_forward_recovery new_snapshot_fast_forward_recovery"
    " new_timestamp_fast_forward_recovery targets_rollback",
    "static_repositories": "static_repository",
    "delegation_graphs": "graph_traversal targetfile_search"
    " cached_role_is_verified_against_current_delegator delegation_not_in_snapshot",
    "key_rotations": "root_rotation non_root_rotations",
}


def names(*folders: str) -> set[str]:
    """The test functions, and the classes of state machines, in these folders of tests/."""
    found: set[str] = set()
    for path in (p for folder in folders for p in (TESTS / folder).glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.Assign):
                found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


TREE = names("unit", "contract", "integration", "faults", "e2e")
CONFORMANCE = names("unit")


def rows(section: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def missing(cell: str) -> list[str]:
    """The tests named in a cell, by name or pattern, that are nowhere."""
    told = re.findall(r"`(\w[\w*]*)`", cell)
    return [name for name in told if not fnmatch.filter(TREE, name)]


def test_each_of_the_53_conformance_cases_is_there_once():
    told = []
    for theirs, _ in rows("tuf-conformance"):
        file, _, cases = theirs.partition(": ")
        told += [(file, case.strip()) for case in cases.split(",")]
    assert len(told) == 53
    assert sorted(told) == sorted((f, case) for f, all_ in THEIRS.items() for case in all_.split())


@pytest.mark.parametrize("row", rows("tuf-conformance"), ids=lambda row: row[0])
def test_each_conformance_case_has_a_test_of_ours_or_a_reason(row):
    theirs, ours = row
    case = theirs.partition(": ")[2]
    if ours.startswith("not applicable"):
        assert len(ours) > len("not applicable: ") + 10
    elif ours.startswith("same name"):
        assert f"test_{case}" in CONFORMANCE
    else:
        assert "`test_" in ours
    assert missing(ours) == []


@pytest.mark.parametrize("number", range(1, 16))
def test_each_threat_has_a_row_and_its_tests_are_there(number):
    (row,) = [row for row in rows("Threats") if row[0].split()[0] == f"T{number}"]
    assert "`test_" in row[2]
    assert missing(row[2]) == []
    if number <= 12:
        assert f"`test_t{number}_*`" in row[2]
