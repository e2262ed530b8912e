"""A file that grows, is rotated, truncated, taken away and given back."""

import json
import os
import select

import pytest

from agent.adapters.tail import TailSource
from agent.core.errors import RefusedError
from tests.world.driving import count, drive, payloads


@pytest.fixture
def tails():
    made = []

    def make(*args, mark=None, **more) -> TailSource:
        tail = TailSource("s", *args, **more)
        made.append(tail)
        if mark:
            tail.resume(mark)
        return tail

    yield make
    for tail in made:
        tail.close()


def append(path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


def test_only_whole_lines_are_delivered(tmp_path, tails):
    path = tmp_path / "log"
    path.write_bytes(b"one\ntw")
    tail = tails(path)
    bursts = drive(tail, count(1))
    assert drive(tail, count(1), 0.2) == []
    append(path, b"o\r\n\n  \nthree")
    bursts += drive(tail, count(1))
    assert payloads(bursts) == [b"one", b"two"]


def test_a_growing_file_rings(tmp_path, tails):
    path = tmp_path / "log"
    path.write_bytes(b"1\n")
    tail = tails(path)
    drive(tail, count(1))
    append(path, b"2\n")
    assert select.select([tail.fileno()], [], [], 10)[0], "the bell, not the tick, must tell"
    assert payloads(drive(tail, count(1))) == [b"2"]


def test_a_file_that_appears_later_is_read_from_its_beginning(tmp_path, tails):
    path = tmp_path / "not" / "yet" / "log"
    tail = tails(path)
    drive(tail, lambda _: False, 0.2)
    assert "not there yet" in tail.trouble()
    path.parent.mkdir(parents=True)
    path.write_bytes(b"1\n")
    assert payloads(drive(tail, count(1))) == [b"1"]
    assert tail.trouble() == ""


def test_rotation_finishes_the_old_file_and_goes_on_with_the_new(tmp_path, tails):
    path = tmp_path / "log"
    path.write_bytes(b"1\n")
    tail = tails(path)
    bursts = drive(tail, count(1))
    append(path, b"2\n")
    path.rename(tmp_path / "log.1")
    path.write_bytes(b"4\n")
    append(tmp_path / "log.1", b"3 without an end")  # the writer had it open still
    bursts += drive(tail, count(3))
    assert payloads(bursts) == [b"1", b"2", b"3 without an end", b"4"]


def test_truncation_begins_anew(tmp_path, tails):
    path = tmp_path / "log"
    path.write_bytes(b"old 1\nold 2\nold 3\n")
    tail = tails(path)
    bursts = drive(tail, count(3))
    path.write_bytes(b"new\n")
    bursts += drive(tail, count(1))
    assert payloads(bursts)[3:] == [b"new"]


def test_every_mark_is_a_place_to_go_on_from(tmp_path, tails):
    path = tmp_path / "log"
    lines = [b"line %d" % i for i in range(30)]
    path.write_bytes(b"")
    tail = tails(path)
    bursts = []
    for line in lines:
        append(path, line + b"\n")
        bursts += drive(tail, count(1))
    for at, burst in enumerate(bursts):
        if burst.mark:
            later = payloads(bursts[at + 1 :])
            again = tails(path, mark=burst.mark)
            assert payloads(drive(again, count(len(later)), 5)) == later
            again.close()


def test_a_file_rotated_while_we_were_down_is_finished_first(tmp_path, tails):
    path = tmp_path / "log"
    path.write_bytes(b"1\n2\n")
    tail = tails(path)
    (burst,) = drive(tail, count(2))
    tail.close()
    append(path, b"3\n")
    path.rename(tmp_path / "log.1")
    path.write_bytes(b"4\n")
    again = tails(path, mark=burst.mark)
    assert payloads(drive(again, count(2))) == [b"3", b"4"]


def test_another_file_under_the_same_name_is_read_from_its_beginning(tmp_path, tails):
    path = tmp_path / "log"
    path.write_bytes(b"1\n2\n")
    tail = tails(path)
    (burst,) = drive(tail, count(2))
    tail.close()
    path.unlink()
    (tmp_path / "keeps-the-inode").write_bytes(b"")
    path.write_bytes(b"other 1\nother 2\n")
    again = tails(path, mark=burst.mark)
    assert payloads(drive(again, count(2))) == [b"other 1", b"other 2"]


@pytest.mark.parametrize("restarts", [1, 2])
def test_a_file_written_anew_in_its_place_is_known_by_its_beginning(tmp_path, tails, restarts):
    path = tmp_path / "log"
    path.write_bytes(b"")
    mark = None
    for number in range(restarts):
        append(path, b"line %d\n" % number)
        tail = tails(path, mark=mark)
        (burst,) = drive(tail, count(1))
        mark = burst.mark
        tail.close()
    path.write_bytes(b"another file, and longer than the first one was\n")  # the same inode
    lines = payloads(drive(tails(path, mark=mark), count(1)))
    assert lines == [b"another file, and longer than the first one was"]


def test_a_csv_header_is_given_again_after_a_restart_and_only_then(tmp_path, tails):
    path = tmp_path / "log.csv"
    path.write_bytes(b"ts,temp\r\n1,20\r\n")
    tail = tails(path, "csv")
    (burst,) = drive(tail, count(2))
    assert burst.payloads == [b"ts,temp", b"1,20"]
    tail.close()
    append(path, b"2,21\r\n")
    assert payloads(drive(tails(path, "csv", mark=burst.mark), count(2))) == [b"ts,temp", b"2,21"]
    plain = tails(path, "csv", mark=burst.mark, header=False)
    assert payloads(drive(plain, count(1))) == [b"2,21"]


def test_a_line_without_end_is_cut_and_the_next_is_whole(tmp_path, tails):
    path = tmp_path / "log"
    path.write_bytes(b"x" * 5000)
    tail = tails(path, line_bytes_max=1000)
    bursts = drive(tail, count(1))
    append(path, b"x" * 5000)
    drive(tail, count(1), 0.2)
    append(path, b"\nnext\n")
    bursts += drive(tail, count(1))
    assert payloads(bursts) == [b"x" * 1001, b"next"]
    again = tails(path, mark=bursts[0].mark, line_bytes_max=1000)
    assert payloads(drive(again, count(1))) == [b"next"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_said(tmp_path, tails):
    path = tmp_path / "log"
    path.write_bytes(b"1\n")
    path.chmod(0)
    tail = tails(path)
    drive(tail, lambda _: "Permission denied" in tail.trouble())
    assert "Permission denied" in tail.trouble()
    path.chmod(0o600)
    assert payloads(drive(tail, count(1))) == [b"1"]


def test_a_folder_under_its_name_is_said(tmp_path, tails):
    tail = tails(tmp_path)
    drive(tail, lambda _: "cannot read" in tail.trouble())
    assert "cannot read" in tail.trouble()


@pytest.mark.parametrize("mark", [b"", b"[]", b"{}", b"\xff", b'{"inode": "x"}'])
def test_what_is_no_mark_is_ignored(tmp_path, tails, mark):
    path = tmp_path / "log"
    path.write_bytes(b"1\n")
    tail = tails(path)
    tail.resume(mark)
    assert payloads(drive(tail, count(1))) == [b"1"]


def test_a_mark_is_small_and_readable(tmp_path, tails):
    path = tmp_path / "log"
    path.write_bytes(b"1\n" * 10_000)
    tail = tails(path)
    bursts = drive(tail, count(9_000))
    place = json.loads(bursts[-1].mark)
    assert place["offset"] % 2 == 0
    assert len(bursts[-1].mark) < 250


def test_a_format_without_lines_is_refused(tmp_path):
    with pytest.raises(RefusedError, match="ndjson"):
        TailSource("s", tmp_path / "x", "cbor")
