"""`alignlab verify [objective=NAME | stage=NAME] [KEY=VALUE ...] [--all] [--mutants] [--json FILE]`: where methods end.

Trains each method to its end in a world of 60 answers, exactly weighted and in float64, through the training step, and
compares that with the optimum that the method declares. Exit code 1 where one misses it.
"""

import json
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.cli.arguments import Parser, check_flags
from alignlab.cli.launch import config_folders
from alignlab.config import options
from alignlab.config.compose import Session, session
from alignlab.config.grammar import parse
from alignlab.config.spec import Spec
from alignlab.errors import ConfigError, suggestion

if TYPE_CHECKING:
    from alignlab.batch import Batch
    from alignlab.testing.oracle import Method, Verdict

GROUPS = ("stage", "objective", "advantage")


@dataclass(frozen=True)
class Asked:
    """One method by its configuration.

    Args:
        name: as it was asked for.
        objective: its loss.
        advantage: its credit, where it has one.
        trains_on: the batch that its stage gives to it; None where no stage was named.
    """

    name: str
    objective: Spec
    advantage: Spec | None = None
    trains_on: "type[Batch] | None" = None

    @property
    def objective_key(self) -> str:
        """Equal for equal objectives."""
        return json.dumps(self.objective.plain(), sort_keys=True)

    @property
    def key(self) -> str:
        """Equal for equal methods; a loss on any batch is another one on rollouts, which the policy samples."""
        from alignlab.batch import RolloutBatch

        credit = None if self.advantage is None else self.advantage.plain()
        return self.objective_key + json.dumps([credit, self.trains_on is RolloutBatch], sort_keys=True)

    def build(self) -> "Method":
        """Its objects, as the oracle takes them."""
        from alignlab.testing.oracle import Method

        credit = None if self.advantage is None else self.advantage.build()
        return Method(self.objective.build(), credit, self.trains_on)


def run(arguments: list[str]) -> int:
    """Print the table, and JSON where it is asked for; exit code."""
    parser = Parser("alignlab verify", description="Train methods to their end, and compare with the optimum declared.")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="objective=dpo objective.beta=0.5, stage=ppo")
    parser.add_argument("--all", action="store_true", help="every objective and stage of every installed plugin")
    parser.add_argument("--mutants", action="store_true", help="also the usual mistakes, which must be caught")
    parser.add_argument("--config-dir", "-cd", help="a folder of your own options")
    parser.add_argument("--json", metavar="FILE", help="write the verdicts as JSON")
    check_flags(arguments)
    asked = parser.parse_intermixed_args(arguments)
    with session(asked.overrides, config_folders(asked.config_dir)) as hydra:
        methods = list(installed(hydra) if asked.all else _named(hydra, asked.overrides))
    print(f"{'method':<25} {'':<6} {'distance from its optimum':<24}")
    verdicts = [_verified(method, asked.mutants) for method in methods]
    if asked.json:
        found = json.dumps([verdict.to_json() for verdict in verdicts], indent=2)
        Path(asked.json).write_text(found + "\n", encoding="utf-8")
    missed = [verdict.method for verdict in verdicts if verdict.failed]
    if missed:
        print(f"{len(missed)} of {len(verdicts)} failed: {', '.join(missed)}")
    return 1 if missed else 0


# ---- which methods ---------------------------------------------------------------------------------------------------
def _named(hydra: Session, overrides: Sequence[str]) -> Iterator[Asked]:
    """The method of the command line."""
    parsed = {o.input_line: o.get_key_element().lstrip("+~") for o in parse(overrides)}
    keys = {key.partition(".")[0].partition("@")[0] for key in parsed.values()}
    if unknown := sorted(keys - set(GROUPS)):
        hint = suggestion(unknown[0], GROUPS)
        raise ConfigError(f"{unknown[0]}: there is nothing to set but {', '.join(GROUPS)}{hint}")
    chosen = {key: text.partition("=")[2] for text, key in parsed.items() if key in GROUPS}
    if not chosen.keys() & {"objective", "stage"}:
        raise ConfigError("nothing to verify: name objective=... or stage=..., or pass --all")
    added = [f"+{key}@probe.{key}={name}" for key, name in chosen.items()]
    changed = [f"{'+' * text.startswith('+')}probe.{text.lstrip('+')}" for text, key in parsed.items() if "." in key]
    config = hydra.compose([*added, *changed])
    objective = _node(config, "probe.objective") or _node(config, "probe.stage.objective")
    if objective is None:
        raise ConfigError(f"stage={chosen['stage']}: has no objective, so that there is nothing to verify")
    advantage = _node(config, "probe.advantage") or _node(config, "probe.stage.advantage")
    name = " ".join(f"{key}={name}" for key, name in chosen.items())
    yield _method(name, objective, advantage, _trains_on(config, "probe.stage"))


def installed(hydra: Session) -> Iterator[Asked]:
    """Every objective, and every stage that brings an objective and an advantage; what is the same once."""
    groups = options.catalog(options.options())
    wanted = [(group, name) for group in ("objective", "stage") for name in groups.get(group, ())]
    config = hydra.compose([f"+{group}@probe.option{i}={name}" for i, (group, name) in enumerate(wanted)])
    found: list[Asked] = []
    for i, (group, name) in enumerate(wanted):
        at = f"probe.option{i}"
        objective = _node(config, at if group == "objective" else f"{at}.objective")
        if objective is not None:
            trains_on = _trains_on(config, at) if group == "stage" else None
            found.append(_method(f"{group}={name}", objective, _node(config, f"{at}.advantage"), trains_on))
    credited = {method.objective_key for method in found if method.advantage is not None}
    seen: set[str] = set()
    for method in found:
        is_half = method.advantage is None and method.objective_key in credited
        if not is_half and method.key not in seen:
            seen.add(method.key)
            yield method


def _node(config: Any, path: str) -> dict[str, Any] | None:
    """A resolved part of a configuration; None where there is none."""
    from omegaconf import OmegaConf

    found = OmegaConf.select(config, path)
    node: Any = None if found is None else OmegaConf.to_container(found, resolve=True)
    return node if isinstance(node, dict) else None


def _trains_on(config: Any, stage: str) -> "type[Batch] | None":
    """The batch of a stage of a configuration; None where there is no such stage."""
    from omegaconf import OmegaConf

    from alignlab.config.locate import locate
    from alignlab.objective import batch_type
    from alignlab.training import TrainingStage

    target = OmegaConf.select(config, f"{stage}._target_")
    return None if target is None else batch_type(locate(target, stage), TrainingStage)


def _method(
    name: str,
    objective: Mapping[str, Any],
    advantage: Mapping[str, Any] | None,
    trains_on: "type[Batch] | None",
) -> Asked:
    from alignlab.config.check import parse as checked

    credit = None if advantage is None else checked(advantage, f"{name}: advantage")
    return Asked(name, checked(objective, f"{name}: objective"), credit, trains_on)


# ---- what comes out --------------------------------------------------------------------------------------------------
def _verified(asked: Asked, with_mutants: bool) -> "Verdict":
    """Train one method to its end, print the line, and the mistakes below it."""
    from alignlab.testing.oracle import Verdict, mutations, verdict

    started = time.perf_counter()
    try:
        method = asked.build()
        found = verdict(method, asked.name)
        _print(found)
        if with_mutants and found.is_known:
            found = replace(found, mutants=mutations(method))
            for mutant in found.mutants:
                away = "" if mutant.distance is None else f"{mutant.distance:8.1e}"
                print(f"    {mutant.mistake:<28} {mutant.outcome:<13}{away}", flush=True)
    except ConfigError:
        raise
    except Exception as error:  # a plugin's own: the others are verified all the same
        found = Verdict(asked.name, "failed", f"{type(error).__name__}: {error}", seconds=time.perf_counter() - started)
        _print(found)
    return found


def _print(verdict: "Verdict") -> None:
    """A line, and more where it is long; 80 columns."""
    if not verdict.is_known:
        text = f"{verdict.method:<25} {verdict.declared}: {verdict.reason}"
    else:
        mark = "ok" if verdict.reached else "MISSED"
        line = (
            f"{verdict.method:<25} {mark:<6} {verdict.distance:7.1e} of {verdict.start:<4.2g} {verdict.seconds:4.1f} s"
        )
        text = f"{line}  {verdict.declared}"
    print(textwrap.fill(text, 80, subsequent_indent=" " * 26), flush=True)
