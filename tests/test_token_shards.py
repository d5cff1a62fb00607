"""Rows in mapped files come back as they went in."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from alignlab.data.token_shards import ENDS, TOKENS, Packed, ShardWriter, TokenShards, type_for

ROWS = [([5, 6, 7], [False, True, True], 0), ([8], [False], 0), ([9, 1], [True, True], 2), ([], [], 3)]


def written(folder: Path, *portions: list[tuple[list[int], list[bool], int]], kind: str = "<u2") -> TokenShards:
    with ShardWriter(folder, kind) as writer:
        for portion in portions:
            writer.add(Packed.of(portion, kind))
    return TokenShards(folder)


@pytest.mark.parametrize(
    ("vocabulary", "kind"),
    [(1, "<u1"), (256, "<u1"), (257, "<u2"), (65536, "<u2"), (65537, "<u4"), (2**32, "<u4"), (2**32 + 1, "<u8")],
)
def test_a_token_takes_the_smallest_integer_that_holds_the_vocabulary(vocabulary: int, kind: str) -> None:
    assert type_for(vocabulary) == kind
    assert int(np.array([vocabulary - 1], dtype=np.uint64).astype(kind)[0]) == vocabulary - 1


@pytest.mark.parametrize("cut", range(len(ROWS) + 1))
def test_rows_come_back_wherever_the_portions_are_cut(tmp_path: Path, cut: int) -> None:
    shards = written(tmp_path, ROWS[:cut], [], ROWS[cut:])
    for found in (shards, pickle.loads(pickle.dumps(shards))):
        assert [(*found.row(i), found.record(i)) for i in range(len(found))] == ROWS
        assert found.tokens == 6


def test_the_files_are_plain_little_endian_numbers(tmp_path: Path) -> None:
    written(tmp_path, ROWS)
    assert (tmp_path / TOKENS).read_bytes() == bytes([5, 0, 6, 0, 7, 0, 8, 0, 9, 0, 1, 0])
    assert np.fromfile(tmp_path / ENDS, dtype="<u8").tolist() == [3, 4, 6, 6]


def test_no_row_at_all_is_no_error(tmp_path: Path) -> None:
    assert len(written(tmp_path)) == 0


def test_a_copy_in_another_process_is_a_path(tmp_path: Path) -> None:
    many = [([1] * 1000, [True] * 1000, i) for i in range(100)]
    assert len(pickle.dumps(written(tmp_path, many))) < 1000


def test_scored_tokens_before_unscored_ones_are_refused() -> None:
    with pytest.raises(ValueError, match="must be its last ones"):
        Packed.of([([1, 2], [True, False], 0)], "<u1")


def test_a_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    written(tmp_path, ROWS)
    (tmp_path / TOKENS).write_bytes(b"\1\0")
    with pytest.raises(ValueError):
        TokenShards(tmp_path)
