"""Results in their order from several processes; an error is the first one's, and a killed process says so."""

import os
from collections.abc import Iterator

import pytest

from alignlab.data import parallel
from alignlab.data.parallel import in_order
from alignlab.errors import AlignlabError, DataError


@pytest.fixture(autouse=True)
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_processes", lambda: 2)


def times(work: int, item: int) -> tuple[int, int]:
    return os.getpid(), work * item


def fails_at(work: int, item: int) -> int:
    if item >= work:
        raise DataError(f"item {item}")
    return item


def dies_at(work: int, item: int) -> int:
    if item == work:
        os._exit(9)
    return item


def test_results_come_in_order_from_other_processes_which_take_items_as_they_go() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(40):
            taken.append(number)
            yield number

    found = in_order(times, 3, items(), parallel.PAYS_FROM)
    first = next(found)
    assert len(taken) <= 2 * (parallel._AHEAD + 1)
    rest = list(found)
    assert [value for _, value in (first, *rest)] == [3 * n for n in range(40)]
    assert os.getpid() not in {process for process, _ in (first, *rest)}


def test_small_input_stays_in_this_process() -> None:
    assert list(in_order(times, 3, range(3), parallel.PAYS_FROM - 1)) == [(os.getpid(), 3 * n) for n in range(3)]


def test_an_error_is_that_of_the_first_item_that_has_one() -> None:
    with pytest.raises(DataError, match="item 5"):
        list(in_order(fails_at, 5, range(40), parallel.PAYS_FROM))


def test_a_process_that_was_killed_is_said() -> None:
    with pytest.raises(AlignlabError, match="was killed, for want of memory probably"):
        list(in_order(dies_at, 5, range(40), parallel.PAYS_FROM))
