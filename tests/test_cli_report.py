"""`alignlab report`: which folders are compared, where the page goes, and what is refused."""

import subprocess
import sys
from pathlib import Path

import pytest
from sweep_runs import beta, make

from alignlab.cli.app import main


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two settings with two seeds in nested folders, next to what is not a run."""
    for value, seed in (("0.1", 0), ("0.1", 1), ("0.3", 0), ("0.3", 1)):
        beta(tmp_path / "sweep", value, seed, float(value) + seed / 10)
    make(tmp_path / "sweep" / ".jobs" / "0", [], {})
    (tmp_path / "sweep" / "notes").mkdir()
    return tmp_path / "sweep"


def test_a_sweeps_folder_stands_for_its_runs(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(sweep)]) == 0
    out = sweep / "sweep.html"
    assert f"4 runs: {out}" in capsys.readouterr().out
    page = out.read_text(encoding="utf-8")
    assert "4 runs" in page and "0.15 ± 0.05" in page and "0.35 ± 0.05" in page
    assert not [f for f in sweep.iterdir() if f.suffix == ".tmp"]


def test_runs_are_named_one_by_one_and_counted_once(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(sweep.parent)
    given = [str(sweep / "0.1" / "0"), "sweep/0.3/0", "sweep/0.1/../0.1/0"]
    assert main(["report", *given, "--out", "page.html"]) == 0
    assert "2 runs: page.html" in capsys.readouterr().out
    assert "<code>0.1/0</code>" in Path("page.html").read_text(encoding="utf-8"), "named below what all have in common"
    assert main(["report", *given]) == 0 and Path("sweep.html").is_file()


def test_a_run_whose_process_is_gone_is_listed(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(sweep / "0.5", ["dpo.beta=0.5"], {}, status="failed")
    (sweep / "0.5" / "metrics.json").unlink()
    assert main(["report", str(sweep)]) == 0
    page = (sweep / "sweep.html").read_text(encoding="utf-8")
    assert "1 not completed" in page and "<td>failed</td>" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no run was named: alignlab report RUN RUN ..., or the folder of a sweep"),
        (["nowhere"], "no such folder: nowhere"),
        (["sweep/notes"], "sweep/notes is not a run's folder and holds none"),
        (["sweep", "sweep/notes"], "sweep/notes is not a run's folder"),
        (["sweep", "--out", "sweep"], "--out: sweep is a folder; name a file"),
        (["sweep", "--out", "no/page.html"], "make it first"),
        (["sweep", "--what"], "`alignlab report --help` lists the flags"),
    ],
)
def test_mistakes(
    arguments: list[str], message: str, sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(sweep.parent)
    assert main(["report", *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not list(sweep.parent.rglob("*.html"))


@pytest.mark.parametrize("content", ["{", "7"])
def test_a_damaged_status_is_one_error(sweep: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (sweep / "0.1" / "0" / "status.json").write_text(content)
    assert main(["report", str(sweep)]) == 1
    assert "status.json cannot be read" in capsys.readouterr().err


def test_it_loads_no_torch(sweep: Path) -> None:
    program = (
        "import sys\nfrom alignlab.cli.app import main\n"
        f"assert main(['report', {str(sweep)!r}]) == 0\nassert not {{'torch', 'transformers'}} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
