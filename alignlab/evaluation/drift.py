"""Drift: how far a policy has moved from another one, and what the move has earned.

Axes: T tokens, answers.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from alignlab.artifact import Artifact, Kind
from alignlab.data.source import DataSource, Need, Split
from alignlab.errors import DataError
from alignlab.evaluation.base import answer_row, check_field, defined
from alignlab.evaluation.stage import first_of_each_kind
from alignlab.metrics import Column, Estimate, with_intervals, write_columns, write_outcomes
from alignlab.policy import LearnedReward, Policy, Sample, Sampling, check_scorers, generate, learned, load_frozen
from alignlab.reward import RewardSource, score_in_parts
from alignlab.runtime import Runtime
from alignlab.samples import write_samples
from alignlab.stage import Stage, StageContext
from alignlab.training.measure import measure
from alignlab.training.rollouts import rollout_batch

MAX_TOKENS = 16384
"""Of one forward pass."""
PROXY = "proxy_reward"


class Drift(Stage):
    """Measure KL(policy || reference) on the policy's own answers, and their mean reward by several judges.

    The KL is the mean over answers of log policy(answer) - log reference(answer), in nats. It is unbiased where answers
    are sampled from the policy as it is, so `sampling` may not reshape it.

    Args:
        data: gives the prompts.
        sampling: temperature 1, no top-k, no top-p.
        rewards: reward sources by the name of their metric (the raters' true taste, say); the parts of one that is made
            of parts are measured as NAME_PART.
        split: whose prompts; those of "validation" were not trained on.
        samples_per_prompt: answers to each.
        inputs: `policy`; `reference`, what it is compared with; `reward`, a reward model whose mean is `proxy_reward`;
            and under other names the reward models that `rewards` score with.
        seed: of the sampling.
        table_rows: rows of the table that goes to the tracker.

    Source: the frontier of reward against KL is that of Gao, Schulman and Hilton 2022, arXiv:2210.10760.
    """

    VERSION: ClassVar[str] = "1"
    IS_HELPED: ClassVar[bool] = True
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {
        "policy": frozenset({"policy"}),
        "reference": frozenset({"policy"}),
    }
    OPTIONAL: ClassVar[Mapping[str, frozenset[Kind]]] = {"reward": frozenset({"reward_model"})}
    FURTHER: ClassVar[frozenset[Kind]] = frozenset({"reward_model"})
    PRODUCES: ClassVar[Kind] = "evaluation"

    def __init__(
        self,
        *,
        data: DataSource,
        sampling: Sampling,
        rewards: Mapping[str, RewardSource] | None = None,
        split: Split = "validation",
        samples_per_prompt: int = 4,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
        table_rows: int = 8,
    ) -> None:
        super().__init__(inputs, seed)
        for name, value, least in (("samples_per_prompt", samples_per_prompt, 1), ("table_rows", table_rows, 0)):
            if value < least:
                raise ValueError(f"Drift: {name} must be >= {least}, got {value}")
        if (sampling.temperature, sampling.top_p, sampling.top_k) != (1.0, 1.0, 0):
            raise ValueError(
                f"Drift: sampling must be temperature 1, top_p 1 and top_k 0, got {sampling.temperature}, "
                f"{sampling.top_p} and {sampling.top_k}; the KL is of the policy as it is"
            )
        self.rewards = dict(rewards or {})
        taken = {"kl", PROXY, "answer_length", "finished_answers"}
        for name, source in self.rewards.items():
            check_field("Drift", name)
            own = {name, *(f"{name}_{part}" for part in source.parts)}
            if twice := sorted(own & taken):
                raise ValueError(f"Drift: rewards.{name} has the name of another metric, {twice[0]}; rename it")
            taken |= own
        self.data, self.sampling, self.split = data, sampling, split
        self.samples_per_prompt, self.table_rows = samples_per_prompt, table_rows

    def columns(self, proxy: bool) -> list[Column]:
        """The metrics; with the reward model's mean where there is one."""
        what = f"answers to the {self.split} prompts"
        reward = f"mean reward of the {what}, by"
        proxies = [Column(PROXY, f"{reward} the reward model", unit="reward units")]
        named = [
            Column(
                name, f"{reward} {source.describe()}", unit="reward units", better=1, headline=True,
                argument=f"rewards.{name}", reference=source.describe(),
            )
            for name, source in self.rewards.items()
        ]  # fmt: skip
        parts = [
            Column(
                f"{name}_{p}", f"mean of a part of the reward of the {what}, by {source.describe()}", unit="its own",
                reference=source.describe(),
            )
            for name, source in self.rewards.items()
            for p in source.parts
        ]  # fmt: skip
        return [
            Column("kl", f"KL to the reference, on the policy's own {what}", unit="nats per answer", headline=True),
            *(proxies if proxy else []),
            *named,
            *parts,
            Column("answer_length", f"mean length of the {what}", unit="words"),
            Column("finished_answers", f"{what} that end by themselves", better=1, share=True),
        ]

    def check_inputs(self, names: frozenset[str]) -> None:
        """Refuse reward models that are missing, and those that nothing scores with."""
        check_scorers(self, self.rewards.values(), names)

    def data_needs(self) -> list[tuple[DataSource, Need]]:
        """Prompts."""
        return [(self.data, Need("prompts", held_out=self.split == "validation"))]

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        """Answer every prompt, and measure the answers by both policies and all judges."""
        runtime = context.runtime
        policy = Policy.load(inputs["policy"], runtime.dtype).to(runtime.device)
        reference = load_frozen(inputs["reference"], policy, runtime.dtype, f"{context.name}.inputs.reference")
        reference.to(runtime.device)
        asked = [p for p in self.data.prompts(self.split) for _ in range(self.samples_per_prompt)]
        if not asked:
            raise DataError(f"{context.name}: {type(self.data).__name__} has no {self.split} prompts")
        report = lambda done, total: context.tracker.progress(done, total, {})  # noqa: E731
        samples = generate(policy, asked, self.sampling, self.seed, progress=report)
        found = {"kl": log_ratios(policy.eval(), reference, samples, runtime).tolist()}
        for name, judge in self._judges(inputs, runtime).items():
            scores = score_in_parts(judge, [s.prompt for s in samples], [s.text for s in samples])
            found |= {name: scores.total.tolist(), **{f"{name}_{k}": v.tolist() for k, v in scores.parts.items()}}
        rows = [answer_row(s, "drift", **{k: v[i] for k, v in found.items()}) for i, s in enumerate(samples)]
        write_samples(context.folder, rows)
        write_columns(context.folder, self.columns(proxy="reward" in inputs), "drift")
        context.tracker.table("samples", first_of_each_kind(rows, self.table_rows))
        metrics = self._metrics(samples, found)
        write_outcomes(context.folder, metrics)
        return with_intervals(metrics)

    def _judges(self, inputs: Mapping[str, Artifact], runtime: Runtime) -> dict[str, RewardSource]:
        """The reward model, where there is one, and the reward sources with the models that they score with."""
        found: dict[str, RewardSource] = {}
        if "reward" in inputs:
            found[PROXY] = LearnedReward(Policy.load(inputs["reward"]).to(runtime.device))
        for name, reward in self.rewards.items():
            source, scorers = learned(reward, inputs)
            assert source is not None, "there is a reward"
            for scorer in scorers:
                scorer.to(runtime.device)
            found[name] = source
        return found

    @staticmethod
    def _metrics(samples: Sequence[Sample], found: Mapping[str, Sequence[float]]) -> dict[str, float]:
        asked = [s.prompt.text for s in samples]
        measured = {
            **{name: Estimate.mean(zip(asked, values, strict=True)) for name, values in found.items()},
            "answer_length": Estimate.mean((s.prompt.text, float(len(s.text.split()))) for s in samples),
            "finished_answers": Estimate.share((s.prompt.text, s.finished) for s in samples),
        }
        return defined(measured)


def log_ratios(
    policy: Policy, reference: Policy, samples: Sequence[Sample], runtime: Runtime
) -> Float[Tensor, "answers"]:
    """log policy(answer) - log reference(answer) of each sample, in nats, summed over its tokens."""
    batch = rollout_batch(samples, 1, temperature=1.0)
    per_token = measure(policy, batch, runtime, MAX_TOKENS) - measure(reference, batch, runtime, MAX_TOKENS)
    return batch.sum_by_sequence(per_token)
