"""What a machine has, out of folders made to look like Linux's own; and where there is no Linux."""

from pathlib import Path

import pytest

from agent.adapters.machine import LocalMachine

GB, MB = 2**30, 2**20
SPECIMEN = "MemTotal: 8388608 kB\nMemFree: 1048576 kB\nMemAvailable: 4194304 kB\nHugePages: 0\n"


class Linux:
    """`/sys/fs/cgroup` and `/proc` in a folder."""

    def __init__(self, folder: Path, member: str = "", meminfo: str = SPECIMEN) -> None:
        self.groups, self.proc = folder / "cgroup", folder / "proc"
        (self.proc / "self").mkdir(parents=True)
        self.groups.mkdir()
        (self.proc / "meminfo").write_text(meminfo)
        (self.proc / "self" / "cgroup").write_text(member)

    def group(self, path: str, **files: object) -> None:
        folder = self.groups / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            (folder / name.replace("__", ".")).write_text(f"{value}\n")

    @property
    def memory(self):
        found = LocalMachine(self.groups, self.proc).memory()
        return found.limit_bytes, found.free_bytes, found.source


def test_without_a_control_group_the_machine_is_the_bound(tmp_path):
    assert Linux(tmp_path, "0::/\n").memory == (8 * GB, 4 * GB, "the machine")


def test_a_container_is_told_what_the_container_may_have(tmp_path):
    """[rollout-9.3]"""
    linux = Linux(tmp_path, "0::/\n")  # its own group is the root it sees
    linux.group("", memory__max=512 * MB, memory__current=300 * MB)
    assert linux.memory == (512 * MB, 212 * MB, "a control group")


def test_cached_file_pages_are_not_in_use(tmp_path):
    """[rollout-9.3]"""
    linux = Linux(tmp_path, "0::/\n")
    stat = f"anon 1\ninactive_file {100 * MB}\nactive_file 7"
    linux.group("", memory__max=512 * MB, memory__current=300 * MB, memory__stat=stat)
    assert linux.memory[:2] == (512 * MB, 312 * MB)


def test_the_tightest_group_above_counts(tmp_path):
    """[rollout-9.3]"""
    linux = Linux(tmp_path, "0::/machine.slice/agent.scope\n")
    linux.group("machine.slice", memory__max=1 * GB, memory__current=900 * MB)
    linux.group("machine.slice/agent.scope", memory__max=512 * MB, memory__current=100 * MB)
    assert linux.memory == (512 * MB, 124 * MB, "a control group")


def test_where_the_kernel_begins_to_hold_back_is_the_limit(tmp_path):
    linux = Linux(tmp_path, "0::/a\n")
    linux.group("a", memory__max="max", memory__high=256 * MB, memory__current=56 * MB)
    assert linux.memory[:2] == (256 * MB, 200 * MB)


def test_no_limit_is_none(tmp_path):
    linux = Linux(tmp_path, "0::/a\n")
    linux.group("a", memory__max="max", memory__high="max", memory__current=56 * MB)
    assert linux.memory == (8 * GB, 4 * GB, "the machine")


@pytest.mark.parametrize("path", ["/docker/abc", "/"])
def test_version_1_is_read_as_well_and_a_path_outside_of_the_container_is_its_root(tmp_path, path):
    """[rollout-9.3]"""
    linux = Linux(tmp_path, f"5:cpu,cpuacct:/x\n4:memory:{path}\n0::/x\n")
    limits = {"memory__limit_in_bytes": 400 * MB, "memory__usage_in_bytes": 300 * MB}
    linux.group("memory", **limits, memory__stat=f"total_inactive_file {50 * MB}")
    assert linux.memory == (400 * MB, 150 * MB, "a control group (v1)")


def test_version_1_without_a_limit_says_a_number_that_is_none(tmp_path):
    linux = Linux(tmp_path, "4:memory:/\n")
    linux.group("memory", memory__limit_in_bytes=2**63 - 4096, memory__usage_in_bytes=1)
    assert linux.memory == (8 * GB, 4 * GB, "the machine")


def test_a_group_that_uses_more_than_its_limit_has_nothing_free(tmp_path):
    linux = Linux(tmp_path, "0::/\n")
    linux.group("", memory__max=100 * MB, memory__current=300 * MB)
    assert linux.memory[1] == 0


@pytest.mark.parametrize("text", ["", "MemTotal: x kB", "MemTotal: 1 kB\n", "\0\xff"])
def test_files_that_cannot_be_read_are_not_known_and_no_failure(tmp_path, text):
    linux = Linux(tmp_path, "rubbish\n7:memory\n0::/../../etc\n", text)
    linux.group("", memory__max="-1", memory__current="x")
    limit, free, source = linux.memory
    assert free is None  # what the system says where there is no /proc
    assert limit is None or limit > 0
    assert "say" in source


def test_this_machine_says_something_of_itself():
    here = LocalMachine()
    assert here.architecture() == here.architecture().casefold() != ""
    memory = here.memory()
    assert memory.limit_bytes is None or memory.limit_bytes > 64 * MB
