"""The part of a study that runs in a job, in whatever process: it reports validations, and asks whether to continue."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from alignlab.artifact import write_json
from alignlab.cli.search.settings import VALIDATED, Settings, quietly
from alignlab.cli.search.trials import opened

STUDY: Final = "study.json"
"""In the folder of a sweep's records: what its jobs need to know of the study."""


@dataclass(frozen=True)
class Reporter:
    """Reports the validations of a job to its study. It can be sent to another process.

    Args:
        storage: of the study.
        study_name: within the storage.
        direction: of the metric.
        metric: that is optimised: `dpo/validation_loss` is `loss` in the validations of the stage `dpo`.
        pruner: decides.
        pruner_arguments: of the pruner.
        number: of the trial.
    """

    storage: str
    study_name: str
    direction: str
    metric: str
    pruner: str
    pruner_arguments: Mapping[str, Any] | None
    number: int = 0

    @classmethod
    def of(cls, settings: Settings, metric: str, storage: str) -> "Reporter":
        """The reporter that the jobs of a sweep share."""
        pruner, arguments = settings.pruner, settings.pruner_arguments
        return cls(storage, settings.study_name, settings.direction, metric, pruner, arguments)

    def write(self, records: Path) -> None:
        """Leave it where the jobs will look for it."""
        records.mkdir(parents=True, exist_ok=True)
        write_json(records / STUDY, asdict(self))

    @classmethod
    def read(cls, records: Path, number: int) -> "Reporter | None":
        """The reporter of a job; None where its sweep prunes nothing."""
        file = records / STUDY
        if not file.is_file():
            return None
        return cls(**{**json.loads(file.read_text(encoding="utf-8")), "number": number})

    def __call__(self, stage: str, step: int, metrics: Mapping[str, float]) -> bool:
        """Report a validation; whether the pruner ends the job."""
        owner, _, name = self.metric.partition("/")
        value = metrics.get(name.removeprefix(VALIDATED))
        if stage != owner or value is None:
            return False
        try:
            return self._is_pruned(step, value)
        except Exception as error:  # as with a tracker, nothing of a study may stop training
            print(f"the study cannot be reached, {stage} continues: {type(error).__name__}: {error}", file=sys.stderr)
            return False

    def _is_pruned(self, step: int, value: float) -> bool:
        import optuna

        pruner = Settings(pruner=self.pruner, pruner_arguments=self.pruner_arguments).make_pruner()
        study = opened(self.storage, self.study_name, direction=self.direction, pruner=pruner)
        with quietly():
            trial = optuna.Trial(study, study.get_trials(deepcopy=False)[self.number]._trial_id)
            trial.report(value, step)
            return bool(trial.should_prune())
