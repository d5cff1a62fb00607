"""Files of an artifact or a run are written in one step, whoever else writes them at that moment."""

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from alignlab.artifact import write_json, write_lines


def test_a_second_writer_of_the_same_file_in_between_stops_nobody(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"

    def rows() -> Iterator[dict[str, int]]:
        yield {"row": 0}
        write_lines(file, [{"other": 0}])
        yield {"row": 1}

    write_lines(file, rows())
    assert [json.loads(line) for line in file.read_text().splitlines()] == [{"row": 0}, {"row": 1}]
    assert list(tmp_path.iterdir()) == [file]


def test_many_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    failed: list[BaseException] = []
    file = tmp_path / "stop.json"

    def write(who: int) -> None:
        try:
            for _ in range(50):
                write_json(file, {"who": who})
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not failed
    assert json.loads(file.read_text())["who"] in range(4)
    assert list(tmp_path.iterdir()) == [file]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "metrics.json"
    write_json(file, {"old": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_lines(file, [{"ok": 1}, {"bad": float("nan")}])
    assert json.loads(file.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [file]
