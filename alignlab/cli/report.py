"""`alignlab report RUN RUN ... [--out FILE]`: one page that compares several runs.

RUN is the folder of a run, or of a sweep, which stands for all runs below it. The page needs no other file; it is made
from `manifest.json`, `metrics.json`, `status.json` and `config.yaml` of the runs, and says more about the metrics where
their stages are still there.
"""

import datetime
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignlab.cli.arguments import Parser
from alignlab.cli.folders import runs_of
from alignlab.cli.output import check_out, write_out
from alignlab.errors import ConfigError
from alignlab.pipeline.run_folder import STATUS, UNREADABLE, read_status
from alignlab.pipeline.run_record import is_run

if TYPE_CHECKING:
    from alignlab.report.trial import Trial

DEFAULT = "sweep.html"


def run(arguments: list[str]) -> int:
    """Write the page; exit code."""
    parser = Parser("alignlab report", description="Compare several runs, or the runs of a sweep, on one page.")
    parser.add_argument("runs", metavar="RUN", nargs="*", help="folder of a run, or of a sweep")
    parser.add_argument(
        "--out", metavar="FILE", help=f"the page; by default {DEFAULT} in the sweep's folder, else in this one"
    )
    asked = parser.parse_args(arguments)
    given = [Path(text) for text in asked.runs]
    if not given:
        raise ConfigError("no run was named: alignlab report RUN RUN ..., or the folder of a sweep")
    out = Path(asked.out) if asked.out else _default(given)
    check_out(out)
    _write(runs_of(given), out)
    return 0


def _default(given: Sequence[Path]) -> Path:
    is_sweep = len(given) == 1 and given[0].is_dir() and not is_run(given[0])
    return given[0] / DEFAULT if is_sweep else Path(DEFAULT)


def _write(folders: Sequence[Path], out: Path) -> None:
    from alignlab.report.sweep import render

    write_out(out, render(_read(folders), datetime.datetime.now(datetime.UTC)))
    print(f"{len(folders)} {'run' if len(folders) == 1 else 'runs'}: {out}")


def _read(folders: Sequence[Path]) -> list["Trial"]:
    from alignlab.report.trial import Trial

    common = Path(os.path.commonpath([folder.parent for folder in folders]))
    return [Trial.read(folder, str(folder.relative_to(common)), _status(folder)) for folder in folders]


def _status(folder: Path) -> str:
    status = read_status(folder)
    if status == UNREADABLE:
        raise ConfigError(f"{folder / STATUS} cannot be read: it is damaged; leave the run out")
    return status
