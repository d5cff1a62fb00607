"""Hold a method against the optimum that it declares."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from alignlab.advantage import Advantage
from alignlab.objective import Objective
from alignlab.optimum import NoneKnown, Tilted
from alignlab.testing.oracle.method import PROMPTS, Method
from alignlab.testing.oracle.mutants import Mutation
from alignlab.testing.oracle.policy import TablePolicy
from alignlab.testing.oracle.solve import one_thread


@dataclass(frozen=True)
class Verdict:
    """Outcome of one method.

    Args:
        method: its name.
        declared: the optimum, with its parameters; "none known" where there is none.
        reason: why none is known.
        distance: from the declared optimum to where training ended: KL in nats, or a score's difference in reward
            units; of the worst prompt.
        start: the same distance of the reference policy, from which training started.
        tolerance: largest distance at which it counts as reached.
        regret: reward less beta KL that is lost against the optimum, reward units, where that is what is maximised.
        seconds: of training.
        mutants: outcome of each of the usual mistakes, where they were tried.
    """

    method: str
    declared: str
    reason: str = ""
    distance: float | None = None
    start: float | None = None
    tolerance: float | None = None
    regret: float | None = None
    seconds: float = 0.0
    mutants: Sequence[Mutation] = ()

    @property
    def is_known(self) -> bool:
        """Whether an optimum is declared."""
        return self.distance is not None

    @property
    def reached(self) -> bool:
        """Whether it ended at the declared optimum."""
        return self.distance is not None and self.tolerance is not None and self.distance <= self.tolerance

    @property
    def failed(self) -> bool:
        """Whether it declares an optimum and ended elsewhere, or could not be trained."""
        return self.declared == "failed" or (self.is_known and not self.reached)

    def to_json(self) -> dict[str, Any]:
        """Plain values; an infinite distance is null and `reached` false."""
        found = {**asdict(self), "reached": self.reached if self.is_known else None}
        found["mutants"] = [_finite(asdict(mutant)) for mutant in self.mutants]
        return _finite(found)


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def described(declared: Any) -> str:
    """An optimum with the parameters that are not left at their defaults."""
    shown = [f for f in fields(declared) if f.default is MISSING or getattr(declared, f.name) != f.default]
    return f"{type(declared).__name__}({', '.join(f'{f.name}={getattr(declared, f.name)!r}' for f in shown)})"


def verify(objective: Objective[Any], advantage: Advantage | None = None, name: str = "") -> Verdict:
    """Train a method to its end in the enumerable world, and measure how far that is from where it says it ends.

    Args:
        objective: on any batch of `alignlab.batch`.
        advantage: for objectives on rollouts that read `advantage`.
        name: for the verdict; by default the classes.
    """
    return verdict(Method(objective, advantage), name)


def verdict(method: Method, name: str = "") -> Verdict:
    """The same of a method that is already put together."""
    classes = [type(method.objective).__name__, *([type(method.advantage).__name__] if method.advantage else [])]
    name, declared = name or " + ".join(classes), method.declared
    if isinstance(declared, NoneKnown):
        return Verdict(name, "none known", declared.reason)
    started, tables = time.perf_counter(), method.world.tables
    with one_thread():
        policy = method.solve()
    seconds = time.perf_counter() - started
    regret = None
    if isinstance(declared, Tilted):
        regret = float(declared.regret(policy.log_probability(), tables)[:PROMPTS].mean())
    start = method.distance(TablePolicy(method.world))
    return Verdict(name, described(declared), "", method.distance(policy), start, declared.tolerance, regret, seconds)
