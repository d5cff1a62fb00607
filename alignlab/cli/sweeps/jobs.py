"""The jobs of a sweep before it begins: what each computes, its number and folder, and which are complete already.

`sweep.resume=true` leaves out the jobs that have completed in an earlier sweep of the same folder. A job is known by
what it computes (the fingerprints of its stages), so it may stand elsewhere in a longer list of values, and a job whose
code or data has changed since is not the same. Numbers, which name folders, are never given to another job.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from omegaconf import OmegaConf, open_dict, read_write

from alignlab.artifact import fingerprint
from alignlab.cli.job import Task
from alignlab.cli.prepared import shown
from alignlab.cli.sweeps.sweep import ABOUT, JOBS, Sweep
from alignlab.cli.sweeps.unchanged import sources
from alignlab.config.replaced import Tree
from alignlab.errors import ConfigError

if TYPE_CHECKING:
    from alignlab.cli.prepared import Prepared

NOT_COMPARED: Final = ("sweep.", "hydra.", "hydra/")
"""Overrides that do not say what is computed."""


@dataclass(frozen=True)
class Planned:
    """A job that has been checked.

    Args:
        number: within the sweep.
        overrides: of this job alone.
        folder: that it will write into.
        computes: a digest of what it computes.
        reads: digests of the code and data that it reads; see `unchanged`.
        kept: the record of the earlier job that has computed it, if there is one.
    """

    number: int
    overrides: Sequence[str]
    folder: Path
    computes: str
    reads: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, Any] | None = None

    def expect(self, sweep: Sweep) -> None:
        """Record it in its sweep."""
        if self.kept is None:
            sweep.expect(self.number, self.folder, shown(self.overrides), computes=self.computes, reads=self.reads)
        else:
            before = {"computes": self.computes, "sweep": str(self.kept["sweep"])}
            sweep.expect(self.number, Path(self.kept["folder"]), shown(self.overrides), **before)


@dataclass
class Earlier:
    """Records of the sweeps that used a folder before.

    Args:
        complete: the jobs that have completed, by what they compute.
        numbers: number of each job, by what it computes.
    """

    complete: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> "Earlier":
        """Read the records in a sweep's folder, the oldest first."""
        found = cls()
        for sweep in Sweep(folder).others():
            for job in sweep.jobs():
                if computes := job.get("computes"):
                    found.numbers[computes] = job["job"]
                    if job["status"] == "completed":
                        found.complete[computes] = {"sweep": sweep.id, **job}
        return found

    def number(self, computes: str, natural: int, taken: Iterable[int]) -> int:
        """Number of a job: the one that it had, else its place in the list, else one that nobody had."""
        if computes in self.numbers and self.numbers[computes] not in taken:
            return self.numbers[computes]
        used = {*self.numbers.values(), *taken}
        return natural if natural not in used else max(used) + 1


def planned(task: Task, jobs: Iterable[tuple[Tree, Sequence[str]]], earlier: Earlier) -> list[Planned]:
    """Check and number every job.

    Args:
        task: that will run them.
        jobs: the configuration and overrides of each.
        earlier: what the sweep's folder holds; nothing where it is not resumed.

    Raises:
        ConfigError: a job's configuration is wrong, or two jobs have the same folder.
    """
    found: list[Planned] = []
    for natural, (cfg, overrides) in enumerate(jobs):
        prepared = task.prepared[tuple(cfg.hydra.overrides.task)]
        computes = _computes(prepared)
        number = earlier.number(computes, natural, {job.number for job in found})
        with read_write(cfg.hydra), open_dict(cfg.hydra):
            cfg.hydra.job.id, cfg.hydra.job.num = str(number), number
        folder = Path(str(cfg.hydra.sweep.dir)).absolute() / str(cfg.hydra.sweep.subdir)
        kept = earlier.complete.get(computes)
        found.append(Planned(number, overrides, folder, computes, sources(prepared.steps), kept))
    _check_folders([job for job in found if job.kept is None])
    return found


def _computes(prepared: "Prepared") -> str:
    """Digest of what a job computes; empty where it asks for some of it again."""
    if any(step.again for step in prepared.steps):
        return ""
    return fingerprint({step.name: step.fingerprint for step in prepared.steps})


def _check_folders(jobs: Sequence[Planned]) -> None:
    taken: dict[Path, int] = {}
    for job in jobs:
        if job.folder in taken:
            raise ConfigError(
                f"hydra.sweep.subdir: jobs {taken[job.folder]} and {job.number} would have the same folder, "
                f"{job.folder.name}; let it hold what the jobs differ in, such as ${{hydra.job.num}}"
            )
        taken[job.folder] = job.number


# ---- the sweep to resume ---------------------------------------------------------------------------------------------
def compared(overrides: Iterable[str]) -> list[str]:
    """The overrides that say what a sweep computes, without secrets, in any order."""
    return sorted(shown([o for o in overrides if not o.lstrip("+~").startswith(NOT_COMPARED)]))


def latest(cfg: Tree, overrides: Sequence[str]) -> Path | None:
    """Folder of the most recent sweep with the same overrides, where sweeps have their folders by default."""
    raw: Any = OmegaConf.to_container(cfg.hydra.sweep, resolve=False)
    fixed = str(raw["dir"]).partition("${")[0]
    root = Path(fixed if fixed.endswith("/") else fixed.rpartition("/")[0] or ".")
    same = [f.parent for f in root.glob(f"*/*/{JOBS}/*/{ABOUT}") if _about(f).get("overrides") == compared(overrides)]
    return max(same, key=_began).parents[1].absolute() if same else None


def _about(file: Path) -> Mapping[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def _began(records: Path) -> float:
    return float(_about(records / ABOUT).get("began", 0.0))
