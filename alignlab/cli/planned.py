"""The planned jobs of a command line, for commands that look at them before anything runs."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alignlab.cli.arguments import Parser, check_flags
from alignlab.cli.counting import counted
from alignlab.cli.launch import config_folders
from alignlab.cli.prepared import Prepared, prepare
from alignlab.config.compose import Session, session
from alignlab.config.grammar import parse
from alignlab.config.recorded import recorded_root


@dataclass(frozen=True)
class Planned:
    """One job.

    Args:
        prepared: checked and planned.
        overrides: of this job alone, as typed.
        folder: that a run of it would have (`hydra.run.dir`).
    """

    prepared: Prepared
    overrides: Sequence[str]
    folder: Path


def read_request(parser: Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command that takes overrides, as a run does; more flags may have been added before."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for a run: experiment=lifecycle ...")
    parser.add_argument("-m", "--multirun", action="store_true", help="every job of a sweep")
    parser.add_argument("--config", metavar="FILE", help="start from the config.yaml of a run")
    parser.add_argument("--config-dir", "-cd", help="a folder of your own options")
    parser.add_argument("--json", action="store_true", help="print JSON")
    check_flags(arguments)
    return parser.parse_intermixed_args(list(arguments))


@contextmanager
def planning(asked: argparse.Namespace, config: Path | None) -> Iterator[Iterator[Planned]]:
    """The jobs that a request is about, one after the other, while Hydra is set up for them.

    Args:
        asked: from `read_request`.
        config: the `config.yaml` of a run to start from.
    """
    with (
        recorded_root(config, asked.overrides) as root,
        session(asked.overrides, config_folders(asked.config_dir), root) as hydra,
    ):
        yield _jobs(hydra, asked.overrides, asked.multirun)


def _jobs(hydra: Session, overrides: Sequence[str], multirun: bool) -> Iterator[Planned]:
    parsed = parse(overrides)
    typed, own = [p.input_line for p in parsed], [p.input_line for p in parsed if p.is_hydra_override()]
    for job in counted(hydra.expanded(typed) if multirun else [typed]):
        cfg = hydra.compose([*(own if multirun else []), *job])
        yield Planned(prepare(cfg, job), job, Path(cfg.hydra.run.dir))
