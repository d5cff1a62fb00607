"""Weights & Biases: one run per stage, grouped by run or sweep, with links to what made the inputs."""

import dataclasses
import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from uuid import uuid4

from alignlab.sanitize import redact_text
from alignlab.tracking.process import say
from alignlab.tracking.recorder import Given, NoRecord, Origin, Recorder, StageInfo, StageRecord
from alignlab.tracking.wandb_agent import Agent, found
from alignlab.tracking.wandb_mode import Mode

if TYPE_CHECKING:
    from alignlab.tracking.wandb_run import RunAt, WandbRun

TAG = 64
"""Characters of a tag that W&B takes."""
_OF_THE_MACHINE = re.compile(r"[+~]*(?:hydra[./@=]|store_dir=)")
"""Overrides that say where an experiment ran, not what it is."""
_SAID: set[str] = set()
"""Lines that this process has printed: the jobs of a sweep do not repeat them."""


@dataclass
class Wandb(Recorder):
    """One W&B run per stage. `wandb` is imported when the first one is opened.

    Args:
        mode: "auto" is online where a key and a network are found and offline otherwise; "online" asks for a key;
            "offline" writes below `folder` and never calls out; "off" does not import wandb.
        project: W&B project. In a W&B sweep, that of the sweep.
        entity: W&B user or team; null is the account's default.
        upload: send the files of every artifact (weights, records), and not only what it was made of.
        folder: runs are kept in `<folder>/wandb`.
    """

    mode: Mode = "auto"
    project: str = "alignlab"
    entity: str | None = None
    upload: bool = False
    folder: Path | str = ".alignlab"
    _decided: Mode | None = field(default=None, init=False, repr=False)
    _reason: str = field(default="", init=False, repr=False)
    _run: Origin | None = field(default=None, init=False, repr=False)
    _agent: Agent | None = field(default=None, init=False, repr=False)
    _agents_run: "WandbRun | None" = field(default=None, init=False, repr=False)
    _is_unsent: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"Wandb: mode must be one of {', '.join(get_args(Mode))}, got {self.mode!r}")
        self.folder = Path(self.folder).expanduser().absolute()  # a job may change its working folder later

    # ---- events ---------------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Decide where runs go. Takes at most a few seconds.

        Raises:
            ConfigError: `mode` is "online" and there is no key.
        """
        if self._decided is None:
            from alignlab.tracking.wandb_mode import decide

            self._decided, self._reason = decide(self.mode, Path(self.folder))
            self._tell()

    def run_begins(self, run: Origin) -> None:
        """See `Recorder`. In a W&B sweep, the run that its agent looks at is opened."""
        self._run, self._agent, self._is_unsent = run, found() if run.job is None else None, False
        self._tell()
        if self._agent is not None:
            self.prepare()
            self._agents_run = self._open(self._about_agent(run, self._agent), self._agent)

    def stage_begins(self, stage: StageInfo) -> StageRecord:
        """See `Recorder`."""
        run = self._open(self._about(stage))
        if run is None:
            return NoRecord()
        from alignlab.tracking.wandb_stage import WandbStage

        return WandbStage(run, stage, self.upload, self._agents_run)

    def cached(self, stage: StageInfo, metrics: Mapping[str, float]) -> None:
        """A finished run for an evaluation that the store has: a plot over a sweep has all its points."""
        if stage.kind != "evaluation":
            return
        run = self._open(self._about(stage, from_store=True))
        if run is not None:
            if run.is_online:
                from alignlab.tracking import wandb_lineage

                wandb_lineage.use_made(run.run, stage)
            run.summary(metrics)
            run.close(None)

    def results(self, metrics: Mapping[str, float]) -> None:
        """See `Recorder`. They are what the agent of a W&B sweep looks for."""
        if self._agents_run is not None and metrics:
            self._agents_run.log(None, metrics)

    def run_ends(self, error: BaseException | None) -> None:
        """See `Recorder`."""
        run, self._agents_run = self._agents_run, None
        if run is not None:
            run.close(error)

    def to_send(self) -> str:
        """See `Recorder`: one command for all runs of the group."""
        if not self._is_unsent:
            return ""
        return f"wandb sync {shlex.quote(str(Path(self.folder) / 'wandb'))}/offline-run-*-{self._mark}-*"

    # ---- opening --------------------------------------------------------------------------------------------------
    @property
    def _group(self) -> str:
        run = self._run or Origin()
        return f"{run.experiment}/{self._agent.sweep}" if self._agent else run.group or run.experiment

    @property
    def _mark(self) -> str:
        """A part of the id of every run of the group, by which the files of offline runs are found."""
        return hashlib.sha256(self._group.encode()).hexdigest()[:8]

    def _tell(self) -> None:
        """Say where runs go, once, and of a sweep in its first job alone."""
        if self._run is not None and self._run.job in (None, 0) and self._reason and self._reason not in _SAID:
            _SAID.add(self._reason)
            say(self._reason)

    def _open(self, about: "RunAt", agent: Agent | None = None) -> "WandbRun | None":
        """A run; offline where online is refused, none where W&B is off or even that fails."""
        from alignlab.tracking.wandb_run import WandbRun

        self.prepare()
        for mode in {"online": ("online", "offline"), "offline": ("offline",)}.get(str(self._decided), ()):
            try:
                run = WandbRun(about, mode, agent)
            except Exception as error:  # a wrong key, a service that hangs: nothing of it may stop training
                online = "it continues offline (is the key right?)"
                then = online if mode == "online" else "this stage is not tracked there"
                say(redact_text(f"W&B could not start ({mode}), {then}: {type(error).__name__}: {error}"))
                self._decided = "offline"  # this and all later runs
            else:
                self._is_unsent |= not run.is_online
                return run
        return None

    def _about(self, stage: StageInfo, from_store: bool = False) -> "RunAt":
        run, config = self._run or Origin(), dict(stage.config)
        if inputs := {name: _link(given) for name, given in stage.inputs.items()}:
            config["made_of"] = inputs
        if from_store:
            config |= {"from_store": True, "made_by": dict(stage.made_by)}
        maker = stage.made_by.get("url") or stage.made_by.get("run")
        name = stage.name if run.job is None else f"{run.job}/{stage.name}"
        note = f"From the store; made by {maker or 'a run that W&B was not told of'}." if from_store else ""
        return self._described(name, stage.name, (stage.fingerprint or stage.name)[:16], config, note)

    def _about_agent(self, run: Origin, agent: Agent) -> "RunAt":
        return dataclasses.replace(self._described(run.experiment or "run", "run", "", {}, ""), id=agent.run)

    def _described(self, name: str, job_type: str, key: str, config: Mapping[str, Any], notes: str) -> "RunAt":
        from alignlab.tracking.wandb_run import RunAt

        run, agent = self._run or Origin(), self._agent
        # An evaluation must know the beta of the model that it measured: so the whole experiment is every run's config.
        whole = {**run.config, **config, "experiment": run.experiment, "overrides": list(run.overrides)}
        if agent is not None:
            whole["wandb_sweep"] = agent.sweep
        return RunAt(
            # A retry gets an id of its own, because offline runs cannot be continued.
            id=f"{key}-{self._mark}-{uuid4().hex[:8]}",
            project=(agent and agent.project) or self.project,
            entity=(agent and agent.entity) or self.entity,
            group=self._group,
            name=name,
            job_type=job_type,
            tags=_tags(run.overrides),
            config=whole,
            notes=notes,
            folder=Path(self.folder),
            uploads=self.upload,
        )


def _link(given: Given) -> dict[str, str]:
    """An input with the run that made it."""
    made = {k: v for k, v in given.made_by.items() if k in ("run", "url")}
    return {"from": given.source, "fingerprint": given.fingerprint, **made}


def _tags(overrides: Sequence[str]) -> list[str]:
    """The overrides, to filter by. Those that W&B would refuse are left out; the config has all of them."""
    return [o for o in dict.fromkeys(overrides) if len(o) <= TAG and not _OF_THE_MACHINE.match(o)]
