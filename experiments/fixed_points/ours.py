"""Where every installed method ends, at one price and in one world.

    python experiments/fixed_points/ours.py [NAME ...]

Prints a Markdown table, and writes it to results.csv next to this file; NAMEs (`objective=dpo`, `stage=grpo`) restrict
it to some methods, and nothing is written.
"""

import sys
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from table import BETA, PI_STAR, WORLD, Row, followed, markdown, regret, worst, write
from torch import Tensor

import alignlab
from alignlab.advantage import credited
from alignlab.batch import Batch
from alignlab.cli.verify import installed
from alignlab.config.compose import session
from alignlab.optimum import NoneKnown
from alignlab.testing.oracle import Method
from alignlab.testing.oracle.method import PROMPTS
from alignlab.testing.oracle.policy import TablePolicy
from alignlab.testing.oracle.rollouts import OnPolicy
from alignlab.testing.oracle.solve import gradient, one_thread
from alignlab.testing.oracle.verdict import described

ANSWERS, BUFFERS = 128, 200
"""Answers of each sampled batch, and how many batches."""
PRICES = ("beta", "tau")


def at_equal_price(part: Any) -> tuple[Any, bool]:
    """An objective or advantage at the common price, with the rewards as they are; and whether it has a price."""
    if not is_dataclass(part):
        return part, False
    prices = {f.name: BETA for f in fields(part) if f.name in PRICES and getattr(part, f.name)}
    alike = {f.name: 0.0 for f in fields(part) if f.name == "missing_eos_penalty"}
    return replace(part, **prices, **alike), bool(prices)  # type: ignore[type-var]


def end(method: Method) -> TablePolicy | None:
    """Where training ends; None where nothing keeps it from going on for ever."""
    if not isinstance(method.declared, NoneKnown):
        return method.solve()
    if method.is_online:
        return None

    def downhill(logits: Tensor) -> Tensor:  # its gradient may be that of no function: a constant may depend on it
        policy = TablePolicy(WORLD, logits)
        gradient(method.objective, method.batch, policy, TablePolicy(WORLD, WORLD.teacher))
        return policy.logits.grad if policy.logits.grad is not None else torch.zeros_like(logits)

    logits = followed(downhill, WORLD.reference)
    return None if logits is None else TablePolicy(WORLD, logits)


# ---- sampled gradients -----------------------------------------------------------------------------------------------
def sampled(method: Method) -> tuple[float, float]:
    """Bias and noise of the gradient of `ANSWERS` sampled answers, at a policy between reference and teacher.

    A bias that cannot be told from chance is 0.
    """
    policy = TablePolicy(WORLD, (WORLD.reference + WORLD.teacher) / 2)
    online = OnPolicy(WORLD, method.objective, method.advantage)
    whole = online.rollouts(policy) if method.is_online else method.batch
    exact, generator = _gradient(method, whole, policy), torch.Generator().manual_seed(0)
    together = 2 if method.is_online and online.grouped else 1  # units that are drawn together
    draws = ANSWERS // (together * max(1, round(whole.num_sequences / whole.num_units)))
    errors = []
    for _ in range(BUFFERS):
        drawn = torch.multinomial(whole.weight[::together], draws, replacement=True, generator=generator)
        counts = torch.bincount(drawn, minlength=len(whole.weight) // together).to(torch.float64)
        batch = replace(whole, weight=counts.repeat_interleave(together))
        if method.advantage is not None:
            batch = credited(method.advantage, batch)  # type: ignore[arg-type]  # rollouts
        errors.append(_gradient(method, batch, policy) - exact)
    found, length = torch.stack(errors), float(exact.norm())
    noise = float(found.square().sum(-1).mean())
    chance = noise / BUFFERS
    bias = float(found.mean(0).square().sum()) - chance
    return (bias if bias > chance else 0.0) ** 0.5 / length, noise**0.5 / length


def _gradient(method: Method, batch: Batch, policy: TablePolicy) -> Tensor:
    gradient(method.objective, batch, policy, TablePolicy(WORLD, WORLD.teacher))
    assert policy.logits.grad is not None
    return policy.logits.grad[:PROMPTS].flatten().clone()


# ---- the table -------------------------------------------------------------------------------------------------------
def row(name: str, method: Method) -> Row:
    """Train it to its end, and measure that."""
    objective, has_price = at_equal_price(method.objective)
    advantage, is_priced = at_equal_price(method.advantage)
    method = replace(method, objective=objective, advantage=advantage, within=WORLD)
    declared, library = method.declared, f"alignlab {alignlab.__version__}"
    if isinstance(declared, NoneKnown) and method.is_online and method.advantage is None:
        return Row(library, name, note=declared.reason)
    policy = end(method)
    own = "" if isinstance(declared, NoneKnown) else described(declared)
    reason = declared.reason if isinstance(declared, NoneKnown) else ""
    learns_policy = "score" not in method.objective.needs
    bias, noise = sampled(method) if learns_policy else (None, None)
    if policy is None:
        return Row(library, name, own, bias=bias, noise=noise, note=reason)
    logp = policy.log_probability()
    distance = method.distance(policy) if own else None
    comparable = (has_price or is_priced) and learns_policy
    away, lost = (worst(logp, PI_STAR), regret(logp)) if comparable else (None, None)
    return Row(library, name, own, distance, away, lost, bias, noise, reason)


def main(names: list[str]) -> None:
    """Print the table."""
    with session() as hydra:
        asked = [method for method in installed(hydra) if not names or method.name in names]
    rows = []
    with one_thread():
        for method in asked:
            print(method.name, file=sys.stderr, flush=True)
            rows.append(row(method.name, method.build()))
    print(markdown(rows))
    if not names:
        write(rows, Path(__file__).with_name("results.csv"))


if __name__ == "__main__":
    main(sys.argv[1:])
