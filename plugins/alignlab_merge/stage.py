"""Merging of policies: weighted sums of the weights of models that began as one."""

import abc
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.artifact import Artifact, Kind
from alignlab.errors import PipelineError
from alignlab.policy import Policy
from alignlab.stage import Stage, StageContext

POLICY: frozenset[Kind] = frozenset({"policy"})


class Merge(Stage):
    """Add weighted differences to one policy's weights: `start + sum_k w_k (model_k - start)`, without training.

    The sum is in float32 (float64 in a float64 run). Differences come first, so that models that are equal give
    themselves, to the bit. One model is in memory besides the sum and its start.

    Args:
        weights: of the models, by the name of their input; null weighs them alike.
        inputs: the policies, under names of your choice; all of one architecture and one vocabulary.
        seed: not used; nothing is random.
    """

    FURTHER: ClassVar[frozenset[Kind]] = POLICY
    PRODUCES: ClassVar[Kind] = "policy"
    TRAINS: ClassVar[bool] = True  # the precision of what it makes is the run's
    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"inputs", "seed"})

    def __init__(
        self,
        *,
        weights: Mapping[str, float] | None = None,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(inputs, seed)
        if bad := {k: w for k, w in (weights or {}).items() if not math.isfinite(w)}:
            raise ValueError(f"{type(self).__name__}: weights must be finite, got {bad}")
        self.weights = None if weights is None else dict(weights)

    @abc.abstractmethod
    def start(self, names: Sequence[str]) -> str:
        """Name of the input that the sum starts from."""

    @abc.abstractmethod
    def weighted(self, names: Sequence[str]) -> Mapping[str, float]:
        """Weight of each model that is added, by the name of its input.

        Raises:
            ValueError: the weights do not fit the inputs.
        """

    def check_inputs(self, names: frozenset[str]) -> None:
        """Refuse weights that do not fit the inputs."""
        self.weighted(sorted(names))

    def check_names(self, names: Sequence[str]) -> None:
        """Refuse weights of other models than there are, and to merge none."""
        mine = type(self).__name__
        if not names:
            raise ValueError(f"{mine}: there is nothing to merge; set inputs.NAME to a policy for each model")
        if self.weights is not None and set(self.weights) != set(names):
            raise ValueError(
                f"{mine}: weights are of {', '.join(sorted(self.weights)) or 'none'}, but the models are "
                f"{', '.join(sorted(names))}; give one weight for each, or null"
            )

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        """Merge, publish; returns how many models there were, and how far the weights are from the start."""
        weights, first = self.weighted(sorted(inputs)), self.start(sorted(inputs))
        others = [name for name in sorted(weights) if name != first]
        dtype = torch.promote_types(context.runtime.dtype, torch.float32)
        policy = Policy.load(inputs[first], dtype).merge_adapter()
        start = {name: p.detach().clone() for name, p in policy.named_parameters()}
        context.tracker.progress(1, len(others) + 1, {})
        for number, other in enumerate(others, start=2):
            model = Policy.load(inputs[other], dtype).merge_adapter()
            _check_alike(f"{context.name}.inputs.{other}", model, f"inputs.{first}", policy)
            with torch.no_grad():
                for name, p in model.named_parameters():
                    policy.get_parameter(name).add_(difference(p, start[name], weights[other]))
            context.tracker.progress(number, len(others) + 1, {})
        moved = _moved(policy, start)
        policy.cast(context.runtime.dtype)
        policy.save(context.folder)
        return {"models": float(len(others) + 1), "moved": moved}


class Average(Merge):
    """Average the weights of some policies: `sum_k w_k model_k`, with weights of sum 1 (a model soup).

    Models that were fine-tuned from one policy often lie in one basin of the loss; their average is then as good as
    the best of them or better, at the cost of one.

    Source: Wortsman et al. 2022, arXiv:2203.05482.
    """

    VERSION: ClassVar[str] = "1"

    def start(self, names: Sequence[str]) -> str:
        """The first in the order of names."""
        return names[0]

    def weighted(self, names: Sequence[str]) -> Mapping[str, float]:
        """One weight per input; they add up to 1."""
        self.check_names(names)
        weights = self.weights or dict.fromkeys(names, 1 / len(names))
        if abs((total := sum(weights.values())) - 1) > 1e-6:
            raise ValueError(f"Average: weights must add up to 1, got {total:g}; for other sums take TaskArithmetic")
        return weights


class TaskArithmetic(Merge):
    """Add weighted task vectors to a base: `policy + sum_k w_k (model_k - policy)`.

    A task vector is what fine-tuning changed. A weight of 1 for one model gives that model, one between 0 and 1
    interpolates, a negative one takes away what the model learnt.

    Args:
        weights: of the task vectors, by the name of their input; null weighs them alike, with sum 1.
        inputs: `policy`, the base, from which the others were fine-tuned; the others, under names of your choice.

    Source: Ilharco et al. 2023, arXiv:2212.04089.
    """

    VERSION: ClassVar[str] = "1"
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {"policy": POLICY}

    def start(self, names: Sequence[str]) -> str:
        """The base."""
        return "policy"

    def weighted(self, names: Sequence[str]) -> Mapping[str, float]:
        """One weight per input but the base."""
        models = [name for name in names if name != "policy"]
        self.check_names(models)
        return self.weights or dict.fromkeys(models, 1 / len(models))


def difference(model: Float[Tensor, "..."], start: Float[Tensor, "..."], weight: float) -> Float[Tensor, "..."]:
    """A task vector with its weight."""
    return (model - start) * weight


def _check_alike(where: str, model: Policy, which: str, policy: Policy) -> None:
    """Refuse a model of another architecture or vocabulary.

    Raises:
        PipelineError: names what differs.
    """
    if model.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise PipelineError(f"{where}: its vocabulary differs from that of {which}; merge models of one tokenizer")
    mine, its = (
        {n: (tuple(p.shape), type(m.model).__name__) for n, p in m.named_parameters()} for m in (policy, model)
    )
    if unlike := sorted(n for n in mine.keys() | its.keys() if mine.get(n) != its.get(n)):
        first = f"{unlike[0]} is {its.get(unlike[0], 'missing')}, not {mine.get(unlike[0], 'missing')}"
        raise PipelineError(
            f"{where}: {len(unlike)} of its parameters differ in shape from those of {which} ({first}); merge models "
            f"of one architecture"
        )


def _moved(policy: Policy, start: Mapping[str, Tensor]) -> float:
    """Length of what was added, over that of the start; both over all weights."""
    added = sum(float((p.detach() - start[n]).double().square().sum()) for n, p in policy.named_parameters())
    before = sum(float(p.double().square().sum()) for p in start.values())
    return math.sqrt(added / before) if before else 0.0
