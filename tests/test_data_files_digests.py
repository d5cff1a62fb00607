"""The digest of a large file is computed once for each state of the file."""

import os
from pathlib import Path

import pytest

from alignlab import digests as remembered
from alignlab.data.files import Files, digests
from alignlab.digests import digest_of_file


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read, in turn; every file is a large one."""
    read: list[str] = []

    def digest(path: Path) -> str:
        read.append(path.name)
        return digest_of_file(path)

    for module in (digests, remembered):
        monkeypatch.setattr(module, "digest_of_file", digest)
    monkeypatch.setattr(digests, "LARGE", 0)
    monkeypatch.setattr(remembered, "_KNOWN", {})
    monkeypatch.setattr(digests, "_folders", [])
    return read


def old(path: Path, text: str, age: float = 10.0) -> Path:
    path.write_text(text)
    then = path.stat().st_mtime - age
    os.utime(path, (then, then))
    return path


def test_it_is_computed_once_and_again_when_the_file_has_changed(tmp_path: Path, computed: list[str]) -> None:
    file = old(tmp_path / "a.txt", "one")
    first = digests.digest_of(file)
    assert digests.digest_of(file) == first == digest_of_file(file)
    assert computed == ["a.txt"]
    file.write_text("two")
    assert digests.digest_of(file) == digest_of_file(file) != first
    assert computed == ["a.txt"] * 2
    other = old(tmp_path / "b.txt", "ten")
    os.utime(other, ns=(0, file.stat().st_mtime_ns))
    other.replace(file)  # of the same size and time
    assert digests.digest_of(file) == digest_of_file(file)
    assert computed == ["a.txt"] * 3


def test_a_later_process_finds_it_unless_the_file_was_written_to_just_now(
    tmp_path: Path, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    digests.keep_in(tmp_path / "digests")
    settled, fresh = old(tmp_path / "a.txt", "one"), old(tmp_path / "b.txt", "two", age=0.0)
    found = [digests.digest_of(file) for file in (settled, fresh)]
    monkeypatch.setattr(remembered, "_KNOWN", {})
    assert [digests.digest_of(file) for file in (settled, fresh)] == found
    assert computed == ["a.txt", "b.txt", "b.txt"]
    for kept in (tmp_path / "digests").iterdir():
        kept.write_text("{")
    monkeypatch.setattr(remembered, "_KNOWN", {})
    assert digests.digest_of(settled) == found[0]


def test_a_small_file_is_read_each_time(tmp_path: Path, computed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "LARGE", 100)
    file = old(tmp_path / "a.txt", "one")
    assert digests.digest_of(file) == digests.digest_of(file)
    assert computed == ["a.txt"] * 2


def test_a_source_asks_for_it_and_looks_again_after_reading(tmp_path: Path, computed: list[str]) -> None:
    file = old(tmp_path / "a.txt", "one\n\ntwo")
    files = Files(corpus=str(file), document_characters=0)
    assert files.content_digest() == Files(corpus=str(file)).content_digest()
    assert len(files.documents("train")) == 1
    assert computed == ["a.txt"]
