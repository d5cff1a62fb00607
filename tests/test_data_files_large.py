"""Large files: the same records, rows, batches and weights as small ones, from the store instead of from memory."""

import gzip
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignlab.data import parallel, tokenised
from alignlab.data.cache import Cache
from alignlab.data.files import Files, loading, source
from alignlab.data.records import Document
from alignlab.data.rows import Truncation, comparison_parts, document_rows, example_parts
from alignlab.data.stored import StoredRecords
from alignlab.data.tokenised import StoredRows, tokenizer_digest
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.errors import DataError
from alignlab.pipeline.store import Store

LINES = ["", "one", "two words", "déjà vu — 数据 🙂", "  blanks  ", "\ttab", 'quote " and \\ backslash', "", "end."]
TEXT = "\n".join(f"{line} {i}" if line else "" for i in range(60) for line in LINES)
BPE = TrainTokenizer("bpe", 320).train([TEXT])
ASKED = [
    {
        "prompt": f"Say {i}.\n{LINES[i % 9]}",
        "completion": "Yes " * (1 + i % 7) + LINES[3],
        "system": "Be kind." * (i % 2),
    }
    for i in range(90)
]
PAIRS = [
    {"prompt": f"Say {i}.", "chosen": f"{i}!", "rejected": "No" * (i % 5) + ".", "margin": i / 8} for i in range(70)
]
RANKED = [{"prompt": f"Say {i}.", "answers": [f"{i}!", "No.", "Never."][: 2 + i % 2]} for i in range(20)]
LABELLED = [{"prompt": f"Say {i}.", "completion": "Yes.", "label": bool(i % 3)} for i in range(40)]


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Switches to the way of large files, and back."""
    small = loading.LARGE

    def switch(on: bool) -> None:
        monkeypatch.setattr(loading, "LARGE", 0 if on else small)

    monkeypatch.setattr(tokenised, "PORTION", 700)
    return switch


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "Cache", lambda: Cache(Store(tmp_path / "store").keep))


def lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
    return path


def parts(files: Files, records: str) -> list[list[Any]]:
    return [list(getattr(files, records)(split)) for split in ("train", "validation")]


def table(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def parquet(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path, row_group_size=7)
    return path


CORPORA: dict[str, Callable[[Path], Path]] = {
    "text": lambda f: table(f / "c.txt", TEXT),
    "a last line without its end": lambda f: table(f / "c.txt", TEXT.rstrip("\n")),
    "CRLF": lambda f: table(f / "c.txt", TEXT.replace("\n", "\r\n")),
    "a byte order mark": lambda f: table(f / "c.txt", "\ufeff" + TEXT),
    "gzip": lambda f: (f / "c.txt.gz").write_bytes(gzip.compress(TEXT.encode())) and f / "c.txt.gz",  # type: ignore[return-value]
    "JSON lines": lambda f: lines(
        f / "c.jsonl", [{"text": f"{line} {i}", "n": i} for i in range(20) for line in LINES]
    ),
    "JSON": lambda f: table(f / "c.json", json.dumps([{"text": f"{line} {i}"} for i in range(9) for line in LINES])),
    "parquet": lambda f: parquet(f / "c.parquet", [{"text": f"{line} {i}"} for i in range(20) for line in LINES]),
    "TSV": lambda f: table(f / "c.tsv", "text\tn\n" + "".join(f'"{i} ""x"""\t{i}\n' for i in range(50))),
    "CSV": lambda f: table(f / "c.csv", "n;text\n" + "".join(f'{i};"{i}, a\nb"\n' for i in range(50))),
}


@pytest.mark.parametrize("name", CORPORA)
def test_documents_are_those_of_a_small_file(tmp_path: Path, name: str, large: Callable[[bool], None]) -> None:
    file = str(CORPORA[name](tmp_path))
    found = []
    for on in (False, True):
        large(on)
        files = Files(corpus=file, document_characters=200, validation_fraction=0.3)
        documents = parts(files, "documents")
        found.append((documents, [[d.source for d in part] for part in documents], list(files.notes())))
        assert isinstance(files.documents("train"), StoredRecords) == on
    assert found[0] == found[1]
    assert all(found[0][0])


ROLES: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "instructions": ("instructions", ASKED),
    "preferences": ("comparisons", PAIRS),
    "rankings": ("rankings", RANKED),
    "labelled": ("labelled", LABELLED),
    "prompts": ("prompts", [{"prompt": f"Say {i}.", "margin": i} for i in range(50)]),
}


@pytest.mark.parametrize("role", ROLES)
def test_records_are_those_of_a_small_file(tmp_path: Path, role: str, large: Callable[[bool], None]) -> None:
    """Also what does not take part in `==`: notes, scores, facts, sources."""
    records, rows = ROLES[role]
    named: dict[str, Any] = {
        role: [str(lines(tmp_path / "a.jsonl", rows)), str(lines(tmp_path / "b.jsonl", [*rows, "{"]))]
    }
    found = []
    for on in (False, True):
        large(on)
        one = Files(**named, validation_fraction=0.3, on_bad_record="skip", facts=["margin", "completion"])
        found.append((repr(parts(one, records)), list(one.notes())))
    assert found[0] == found[1]
    assert "skipped" in str(found[0][1])


def test_scores_and_columns_that_only_a_late_record_has(
    tmp_path: Path, large: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "HEAD", 4)
    late = [{"question": f"Say {i}.", "answer": f"{i}.", "helpfulness": None} for i in range(9)]
    late += [{"prompt": "p", "completion": f"c{i}", "question": "q", "answer": "a", "helpfulness": i} for i in range(2)]
    file = str(lines(tmp_path / "a.jsonl", late))
    found = []
    for on in (False, True):
        large(on)
        files = Files(instructions=file, scores=["helpfulness"], validation_fraction=0.0, on_bad_record="skip")
        found.append((repr(parts(files, "instructions")), list(files.notes())))
    assert found[0] == found[1]
    assert "2 from" in found[0][1][0] and "as prompt_completion" in found[0][1][0]  # as all columns say


def test_all_bad_records_are_in_one_message_and_nothing_is_kept(tmp_path: Path, large: Callable[[bool], None]) -> None:
    large(True)
    file = lines(
        tmp_path / "a.jsonl", [*ASKED, "{", {"prompt": 3, "completion": "x"}, {"prompt": "x"}, {"prompt": "y"}]
    )
    with pytest.raises(DataError) as caught:
        Files(instructions=str(file)).instructions("train")
    assert str(caught.value).startswith("4 records cannot be used:") and "(2 such, next: " in str(caught.value)
    assert list((tmp_path / "store" / "data").iterdir()) == []


# ---- rows ------------------------------------------------------------------------------------------------------------
def in_processes(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(parallel, "PAYS_FROM", 0)
    monkeypatch.setattr(parallel, "_processes", lambda: count)


def rows_of(files: Files, kind: str, max_length: int) -> tuple[list[Any], Any, str]:
    """Rows of both parts, the rows as they are, and the account of them."""
    truncation = Truncation(max_length)
    if kind == "documents":
        train = document_rows(BPE, files.documents("train"), max_length)
        held_out = document_rows(BPE, files.documents("validation"), max_length)
    elif kind == "instructions":
        train, held_out = example_parts(
            BPE, files.instructions("train"), files.instructions("validation"), truncation, skip=True
        )
    else:
        train, held_out = comparison_parts(  # type: ignore[assignment]
            BPE, files.comparisons("train"), files.comparisons("validation"), truncation, skip=True
        )
    return [list(train), list(held_out)], train, repr(truncation)


@pytest.mark.parametrize(
    ("kind", "max_length", "processes"),
    [
        ("documents", 7, 1),
        ("documents", 7, 3),
        ("instructions", 23, 1),
        ("instructions", 23, 2),
        ("comparisons", 10, 1),
        ("comparisons", 10, 2),
    ],
)
def test_rows_are_those_of_a_small_file_to_the_bit_whatever_the_number_of_processes(
    tmp_path: Path,
    kind: str,
    max_length: int,
    processes: int,
    large: Callable[[bool], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named: dict[str, Any] = {
        "corpus": str(table(tmp_path / "c.txt", TEXT)),
        "instructions": str(lines(tmp_path / "a.jsonl", ASKED)),
        "preferences": str(lines(tmp_path / "b.jsonl", PAIRS)),
    }
    found = []
    for on in (False, True):
        large(on)
        in_processes(monkeypatch, processes if on else 1)
        rows, train, account = rows_of(
            Files(**named, validation_fraction=0.3, document_characters=90), kind, max_length
        )
        assert isinstance(train, StoredRows) == on
        found.append((rows, account))
    assert found[0] == found[1]
    assert all(found[0][0])
    if kind != "documents":
        assert "cut=0" not in found[0][1] and "count" in found[0][1]  # some are cut, and some are left out


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=400), st.integers(2, 9))
def test_any_text_gives_the_rows_of_a_small_file(
    tmp_path_factory: pytest.TempPathFactory, large: Callable[[bool], None], text: str, max_length: int
) -> None:
    file = table(tmp_path_factory.mktemp("any") / "c.txt", text)
    found: list[Any] = []
    for on in (False, True):
        large(on)
        files = Files(corpus=str(file), document_characters=5, validation_fraction=0.0)
        try:
            found.append(rows_of(files, "documents", max_length)[0])
        except DataError as error:
            found.append(str(error))
    assert found[0] == found[1]


def test_rows_are_found_again_by_content_tokenizer_template_and_length_and_by_nothing_else(
    tmp_path: Path, large: Callable[[bool], None]
) -> None:
    large(True)

    def made(tokenizer: Any, file: Path, max_length: int, **more: Any) -> int:
        """How many folders there are more than before."""
        data = tmp_path / "store" / "data"
        before = len(list(data.glob("*")))
        files = Files(instructions=str(file), **{"validation_fraction": 0.3, **more})
        train = files.instructions("train")
        rows = example_parts(tokenizer, train, files.instructions("validation"), Truncation(max_length))[0]
        assert rows[0].name.startswith(str(file))
        return len(list(data.glob("*"))) - before

    first = lines(tmp_path / "a.jsonl", ASKED)
    assert made(BPE, first, 300) == 3  # records, and the rows of two parts
    assert made(BPE, first, 300) == 0
    assert made(BPE, lines(tmp_path / "moved.jsonl", ASKED), 300) == 0
    assert made(BPE, first, 299) == 2
    assert made(pickle.loads(pickle.dumps(BPE)), first, 300) == 0
    other = pickle.loads(pickle.dumps(BPE))
    other.chat_template = other.chat_template.replace("{{ bos_token }}", "{{ bos_token + bos_token }}")
    assert made(other, first, 300) == 2
    assert made(TrainTokenizer("bpe", 319).train([TEXT]), first, 300) == 2
    assert made(BPE, first, 300, split_seed=1) == 3
    assert made(BPE, lines(tmp_path / "a.jsonl", ASKED[1:]), 300) == 3


def test_a_tokenizer_that_was_saved_has_the_digest_of_the_one_in_memory(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    BPE("some text", truncation=True, max_length=3, padding="max_length")  # leaves its settings behind
    BPE.save_pretrained(tmp_path)
    assert tokenizer_digest(AutoTokenizer.from_pretrained(tmp_path)) == tokenizer_digest(BPE)


def test_stored_records_and_rows_are_sequences(tmp_path: Path, large: Callable[[bool], None]) -> None:
    large(True)
    files = Files(corpus=str(table(tmp_path / "c.txt", TEXT)), document_characters=0)
    documents = files.documents("train")
    rows = document_rows(BPE, documents, 16)
    for found in (documents, rows):
        whole = list(found)
        assert whole[-1] == found[-1] == found[len(found) - 1]
        assert whole[3:9:2] == found[3:9:2] and whole[-2:] == found[-2:]
        assert list(pickle.loads(pickle.dumps(found))) == whole
        with pytest.raises(IndexError):
            found[len(found)]
    assert isinstance(documents[0], Document)
    assert list(pickle.loads(pickle.dumps(files)).documents("train")) == list(documents)


# ---- one of many makes it, or none -----------------------------------------------------------------------------------
def _make(file: str, store: str, log: str) -> None:
    loading.LARGE = 0  # type: ignore[misc]
    kept = Store(Path(store)).keep

    def keep(identity: Any, build: Any) -> Path:
        def counted(folder: Path) -> None:
            with open(log, "a") as stream:
                stream.write("made\n")
            build(folder)

        return kept(identity, counted)

    files = Files(corpus=file)
    files.keep_in(Cache(keep))
    assert len(document_rows(BPE, files.documents("train"), 16)) > 100


def test_processes_that_want_the_same_rows_make_them_once(tmp_path: Path) -> None:
    arguments = str(table(tmp_path / "c.txt", TEXT * 5)), str(tmp_path / "store"), str(tmp_path / "log")
    context = multiprocessing.get_context("spawn")
    running = [context.Process(target=_make, args=arguments) for _ in range(3)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert [p.exitcode for p in running] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "made\n" * 2


INTERRUPTED = """
import sys, time
from pathlib import Path
from alignlab.data import parallel, tokenised
from alignlab.data.cache import Cache
from alignlab.data.files import Files, loading
from alignlab.data.rows import document_rows
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.pipeline.store import Store

if __name__ == "__main__":
    loading.LARGE, parallel.PAYS_FROM, tokenised.PORTION = 0, 0, 1000
    parallel._processes = lambda: 2
    files = Files(corpus=sys.argv[1], validation_fraction=0.0)
    files.keep_in(Cache(Store(Path(sys.argv[2])).keep))
    tokenizer = TrainTokenizer("bpe", 300).train(["some text"])
    print("begin", flush=True)
    document_rows(tokenizer, files.documents("train"), 16)
"""


@pytest.mark.parametrize("how", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL])
def test_an_interrupt_leaves_no_half_entry_and_no_process(tmp_path: Path, how: signal.Signals) -> None:
    file, store, script = table(tmp_path / "c.txt", TEXT * 400), tmp_path / "store", tmp_path / "run.py"
    script.write_text(INTERRUPTED)
    command = [sys.executable, str(script), str(file), str(store)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    for _ in waiting(60):
        if len(children(process.pid)) >= 3 and any(store.glob("data/.*/tokens.bin")):  # two, and Python's own tracker
            break
    begun = children(process.pid)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does
    else:
        process.send_signal(how)
    said = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    for _ in waiting(30):
        if not any(Path(f"/proc/{child}").exists() for child in begun):
            break
    assert not any(Path(f"/proc/{child}").exists() for child in begun)
    whole = [folder for folder in (store / "data").iterdir() if not folder.name.startswith(".")]
    assert [(folder / "records.bin").is_file() for folder in whole] == [True]  # the records, but not the rows
    if how == signal.SIGINT:
        assert said.count("Traceback") == 1 and "KeyboardInterrupt" in said  # of the main process alone
        assert [f for f in (store / "data").iterdir() if f.name.startswith(".")] == []


def waiting(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.05)


def children(process: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []
