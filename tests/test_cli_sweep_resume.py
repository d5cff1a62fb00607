"""What a sweep leaves: its table, `sweep.csv`, `sweep.html`; and running only what is not complete."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from sweep_runs import make

from alignlab.cli.app import main
from alignlab.cli.sweeps import launch, run
from alignlab.cli.sweeps.end import Ended, finish
from alignlab.cli.sweeps.sweep import JOBS, Sweep
from alignlab.pipeline.run_folder import read_status

pytestmark = pytest.mark.usefixtures("fakes_here")
WHERE = "hydra.sweep.dir=sweep"
BETA = "pipeline.tuned.objective.beta"


def rows() -> list[dict[str, str]]:
    """The rows of sweep.csv."""
    with Path("sweep/sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def sweeps(folder: str = "sweep") -> int:
    """How many sweeps have used a folder."""
    return len(list(Path(folder, JOBS).iterdir()))


def test_a_table_of_all_jobs_fits_into_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["-m", "experiment=troubled", "pipeline.trouble.how=fine,user,bug", "seed=0,1", WHERE]) == 1
    error = capsys.readouterr().err
    table = [line.rstrip() for line in error.splitlines() if line[:1].isdigit()]
    assert [line.split()[:4] for line in table] == [
        [str(job), status, how, seed]
        for job, (how, status, seed) in enumerate(
            (how, status, seed)
            for how, status in (("fine", "completed"), ("user", "failed"), ("bug", "failed"))
            for seed in "01"
        )
    ]
    assert all(len(line) <= 80 for line in table)
    assert f"settings side by side, averaged over seeds: alignlab compare {Path('sweep').absolute()}" in error
    assert "not complete: 4 of 6 jobs; the same command with sweep.resume=true runs them" in error
    messages = [line for line in error.splitlines() if line.startswith("job ") and ": " in line]
    assert [m.partition(" (")[0] for m in messages] == [
        *(f"job {job}: corpus.jsonl:3: text is missing" for job in (2, 3)),
        *(f"job {job}: RuntimeError: a bug" for job in (4, 5)),
    ]


def test_all_numbers_are_in_a_file_and_on_a_page() -> None:
    assert main(["-m", "experiment=fake", "pipeline.tuned.size=3,4", "seed=0,1", "sweep.metric=tuned/loss", WHERE]) == 0
    found = rows()
    assert [(r["job"], r["status"], r["pipeline.tuned.size"], r["seed"], r["tuned/loss"]) for r in found] == [
        ("0", "completed", "3", "0", "3.0"),
        ("1", "completed", "3", "1", "3.0"),
        ("2", "completed", "4", "0", "4.0"),
        ("3", "completed", "4", "1", "4.0"),
    ]
    assert found[0]["folder"] == str(Path("sweep/0").absolute()) and found[0]["base/fact_recall"]
    assert "fact recall" in Path("sweep/sweep.html").read_text()


def test_no_cell_is_a_formula() -> None:
    """A spreadsheet would compute it, and may send what it computes."""
    texts = ['=HYPERLINK("http://x")', "+1+1", "@SUM(A1)", "-2+3", "-0.5", "0.1", "a=b"]
    jobs = [
        {"job": n, "status": "failed", "overrides": [f"name={text}"], "error": f"={n}", "folder": "=x"}
        for n, text in enumerate(texts)
    ]
    found = list(csv.DictReader(Ended(jobs, {}).csv().splitlines()))
    assert [row["name"] for row in found] == [*(f"'{text}" for text in texts[:4]), *texts[4:]]
    assert {row["error"][:2] for row in found} == {"'="} and {row["folder"] for row in found} == {"'=x"}


def test_resuming_runs_only_what_is_not_complete(capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever the sweep was moved to; a job whose results are damaged is not complete."""
    swept = ["-m", "experiment=troubled", "pipeline.trouble.how=fine,user,good,well"]
    assert main([*swept, "hydra.sweep.dir=first"]) == 1
    Path("first").rename("sweep")
    Path("sweep/2/metrics.json").write_text('{"base/lo')
    before = {job: Path(f"sweep/{job}/status.json").read_text() for job in range(4)}
    capsys.readouterr()
    assert main([*swept, "sweep.resume=true", WHERE]) == 1
    captured = capsys.readouterr()
    assert "2 of 4 jobs are complete; 2 to run" in captured.out
    after = {job: Path(f"sweep/{job}/status.json").read_text() for job in range(4)}
    assert [job for job in range(4) if after[job] != before[job]] == [1, 2]
    assert [r["status"] for r in rows()] == ["completed", "failed", "completed", "completed"], "all are in the table"
    assert all(row["folder"] == str(Path("sweep").absolute() / row["job"]) for row in rows())


def test_a_job_that_is_failed_in_the_table_fails_the_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    """Its status is completed, and its numbers cannot be read, or its record is gone with its folder."""
    folder = Path("sweep").absolute()
    sweep = Sweep(folder)
    job = make(folder / "0", [], {"dpo/loss": 1.0, "dpo/loss_low": 2.0, "dpo/loss_high": 3.0})
    (job / "status.json").write_text(json.dumps({"status": "completed", **sweep.marks(0)}))
    sweep.expect(0, job, ["seed=0"])
    assert finish(sweep) == 1 and "failed" in capsys.readouterr().err


def test_a_job_whose_folder_was_removed_is_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cleaned(hydra: Any, cfg: Any, task: Any, jobs: Any) -> None:
        launch.launch(hydra, cfg, task, jobs[:1])
        shutil.rmtree("sweep")
        launch.launch(hydra, cfg, task, jobs[1:])

    monkeypatch.setattr(run, "launch", cleaned)
    assert main(["-m", "experiment=fake", "seed=0,1", WHERE]) == 1
    assert [(row["job"], row["status"]) for row in rows()] == [("0", "not run"), ("1", "completed")]


@pytest.mark.slow
def test_a_sweep_that_is_complete_runs_nothing_and_succeeds(capsys: pytest.CaptureFixture[str]) -> None:
    swept = ["-m", "experiment=fake", f"{BETA}=0.1,0.2", "sweep.resume=true", WHERE]
    assert main(swept) == 0 and main(swept) == 0 and main(swept) == 0
    assert "2 of 2 jobs are complete; 0 to run" in capsys.readouterr().out
    assert [r["status"] for r in rows()] == ["completed", "completed"] and sweeps() == 3


@pytest.mark.slow
def test_jobs_are_known_by_what_they_compute_and_keep_their_numbers() -> None:
    """A longer list of values with new ones in front: nobody's folder is given to another job."""
    assert main(["-m", "experiment=fake", f"{BETA}=0.1,0.2", WHERE]) == 0
    assert main(["-m", "experiment=fake", f"{BETA}=0.05,0.2,0.1", "sweep.resume=true", WHERE]) == 0
    assert {r["job"]: r[BETA] for r in rows()} == {"0": "0.1", "1": "0.2", "2": "0.05"}
    manifest = json.loads(Path("sweep/2/manifest.json").read_text())
    assert f"{BETA}=0.05" in manifest["overrides"] and not Path("sweep/3").exists()


@pytest.mark.slow
def test_a_job_whose_stages_would_be_others_is_not_complete() -> None:
    assert main(["-m", "experiment=fake", f"{BETA}=0.1,0.2", WHERE]) == 0
    swept = ["-m", "experiment=fake", f"{BETA}=0.1,0.2", "pipeline.base.size=5", "sweep.resume=true", WHERE]
    assert main(swept) == 0
    assert [r["job"] for r in rows()] == ["2", "3"]
    assert [read_status(Path(f"sweep/{job}")) for job in range(4)] == ["completed"] * 4


@pytest.mark.slow
def test_without_a_folder_the_last_sweep_with_the_same_overrides_is_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    dated = "hydra.sweep.dir='found/${now:%Y}/${now:%H-%M-%S-%f}'"
    swept = ["-m", "experiment=fake", f"{BETA}=0.1,0.2", dated]
    assert main(swept) == 0
    assert main([*swept[:-2], f"{BETA}=0.3", dated]) == 0
    assert len(list(Path("found").glob("*/*"))) == 2
    capsys.readouterr()
    assert main([*swept, "sweep.resume=true"]) == 0
    assert "2 of 2 jobs are complete" in capsys.readouterr().out
    assert len(list(Path("found").glob("*/*"))) == 2
    assert main([*swept[:-2], f"{BETA}=0.4", "sweep.resume=true", dated]) == 0
    assert "there is no earlier sweep with these overrides; a new one begins" in capsys.readouterr().out
    assert len(list(Path("found").glob("*/*"))) == 3


@pytest.mark.parametrize("value", ["yes_please", "3"])
def test_resume_is_true_or_false(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", "experiment=fake", "seed=0,1", f"sweep.resume={value}", WHERE]) == 1
    assert "sweep.resume: expected true or false" in capsys.readouterr().err
