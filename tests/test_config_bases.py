"""Compositions that share a base: the same configuration as when Hydra composes each from its files."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from alignlab.config import loader
from alignlab.config.bases import MOST
from alignlab.config.compose import session
from alignlab.errors import ConfigError

BETA = "pipeline.dpo.objective.beta"
COMMANDS = [
    ["seed=3", f"{BETA}=0.2", "experiment=smoke", f"{BETA}=0.4"],
    # A removal after, before and between values.
    ["experiment=smoke", f"{BETA}=0.3", "~pipeline.ppo", "seed=1"],
    ["experiment=smoke", "seed=1", f"~{BETA}", f"+{BETA}=0.7"],
    ["experiment=smoke", "pipeline.dpo.loop={steps: 3}", "+pipeline.dpo.loop.save_every=2", "++seed=4"],
    # Options, with values below them, and below the name that their slot had before.
    ["experiment=smoke", "objective@pipeline.dpo.objective=ipo", f"{BETA}=0.3"],
    ["experiment=smoke", f"{BETA}=0.3", "pipeline.dpo.objective=ipo"],
    ["experiment=smoke", "tracking=off", "data.seed=3", f"{BETA}.x=1"],
    ["experiment=smoke", "hydra.run.dir=here", "seed=2", "hydra.job.name=x"],
    # What cannot be composed, for the same reason.
    ["experiment=smoke", "data.seed=3", "data={values: 8}"],
    ["experiment=smoke", f"{BETA}=0.1,0.2"],
    ["experiment=smoke", "~pipeline.none", "seed=1"],
]


def composed(overrides: list[str]) -> Any:
    """The whole configuration, or the message why there is none."""
    try:
        with session(overrides) as hydra:
            return OmegaConf.to_container(hydra.compose(overrides), resolve=False)
    except ConfigError as error:
        return str(error)


@pytest.mark.parametrize("overrides", COMMANDS, ids=" ".join)
def test_it_is_what_hydra_composes(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = composed(overrides)
    assert isinstance(found, str if overrides in COMMANDS[-3:] else dict)
    monkeypatch.setattr(loader, "split", lambda parsed, _: ([o.input_line for o in parsed], []))
    assert found == composed(overrides)


def test_jobs_do_not_see_each_others_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of a sweep's jobs has its own values, and what it adds; the options are composed once."""
    made: list[str] = []
    compose = loader.ConfigLoaderImpl._compose_config_from_defaults_list

    def counted(self: Any, defaults: Any, repo: Any) -> Any:
        made.append("")
        return compose(self, defaults, repo)

    monkeypatch.setattr(loader.ConfigLoaderImpl, "_compose_config_from_defaults_list", counted)
    with session(["experiment=smoke"]) as hydra:
        jobs = [["experiment=smoke", f"{BETA}={beta}", *more] for beta, more in ((0.1, ["+x=1"]), (0.2, []), (0.3, []))]
        found = [hydra.compose(job) for job in jobs]
    assert len(made) == 1
    assert [cfg.pipeline.dpo.objective.beta for cfg in found] == [0.1, 0.2, 0.3]
    assert ["x" in cfg for cfg in found] == [True, False, False]
    assert [list(cfg.hydra.overrides.task) for cfg in found] == jobs


def test_the_oldest_of_many_is_let_go() -> None:
    with session(["experiment=smoke"]) as hydra:
        for number in range(MOST + 2):
            hydra.compose([f"+{name}=1" for name in ("a", "b")] + [f"hydra.job.name=n{number}"])
        kept = hydra.config_loader._bases.found
    assert len(kept) == MOST and "hydra.job.name=n0" not in {text for key in kept for text in key}
