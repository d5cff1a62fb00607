"""A configuration that is checked and planned, ready to run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from alignlab.config import experiment
from alignlab.config.replaced import Tree
from alignlab.sanitize import redact_override

if TYPE_CHECKING:
    from alignlab.pipeline.plan import Step
    from alignlab.runtime import Runtime
    from alignlab.tracking import Tracking


@dataclass(frozen=True)
class Prepared:
    """A checked and planned configuration, ready to run."""

    experiment: experiment.Experiment
    runtime: "Runtime"
    tracking: "Tracking"
    steps: "list[Step]"


def prepare(cfg: Tree, overrides: Sequence[str], hydra: Tree = None) -> Prepared:
    """Check and plan a composed configuration. Nothing is written but the digests of large files, into the store.

    Args:
        cfg: as composed.
        overrides: as typed.
        hydra: Hydra's section, where `cfg` does not hold it.

    Raises:
        ConfigError: a key or value is wrong.
        PipelineError: the stages do not fit together.
    """
    from alignlab.data.files import digests
    from alignlab.pipeline.plan import plan

    if hydra is None:
        HydraConfig.instance().set_config(cfg)  # for `${hydra:...}`
        OmegaConf.set_readonly(cfg.hydra, None)  # set_config closes it, and Hydra has entries to make yet
    found = experiment.check(cfg, overrides, hydra)
    digests.keep_in(found.store / "digests")
    runtime, tracking = found.objects["runtime"].build(), found.objects["tracking"].build()
    return Prepared(found, runtime, tracking, plan(found.pipeline, runtime, found.removed, found.rerun))


def shown(overrides: Sequence[str]) -> list[str]:
    """Overrides without secrets."""
    return [redact_override(o.removesuffix("=") if o.startswith("~") else o) for o in overrides]
