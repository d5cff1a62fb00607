"""Best of n: answer each prompt n times, keep the answer with the highest reward."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

import torch

from alignlab.advantage import without_signal
from alignlab.artifact import Artifact, Kind, write_lines
from alignlab.data import answers
from alignlab.data.records import Example, Prompt
from alignlab.data.source import DataSource, Need, Split
from alignlab.errors import DataError
from alignlab.metrics import Column, Estimate, with_intervals, write_columns
from alignlab.policy import Policy, Sampling, check_scored, generate, in_turn, learned
from alignlab.reward import RewardSource, Scores, score_in_parts
from alignlab.seed import fold_in
from alignlab.stage import Stage, StageContext
from alignlab_best_of_n.kl import kl_bound, kl_estimate

SPLITS: tuple[Split, ...] = ("train", "validation")
PROMPTS_PER_PART = 64
"""Prompts that are answered, scored and kept together: what a killed run loses at most."""
TABLE_ROWS = 16
"""Winners in the table that goes to the tracker."""

COLUMNS: Final = (
    Column("reward", "mean reward of the best answers", unit="reward units", better=1, headline=True),
    Column("mean_reward", "mean reward of all sampled answers", unit="reward units"),
    Column("gain", "reward of the best answer minus the mean of all to its prompt", unit="reward units", better=1),
    Column("kl_bound", "KL of the best of n to the policy where no two rewards are equal", unit="nats per answer"),
    Column(
        "kl_estimate", "KL of the best of n to the policy, with the ties among the sampled rewards",
        unit="nats per answer", headline=True,
    ),
    Column("without_signal", "prompts whose answers all have the same reward up to rounding", better=-1, share=True),
    Column("unfinished", "best answers that no stop token ended; they are left out", better=-1, share=True),
    Column("train_answers", "answers kept for training", unit="answers"),
    Column("validation_answers", "answers kept for validation", unit="answers"),
    Column("answer_length", "mean length of the answers that are kept", unit="words"),
)  # fmt: skip


class BestOfN(Stage):
    """Make answers: of several samples to each prompt, the one with the highest reward; the first, where several are.

    Fine-tuning on them (`AnswerStage`) moves the policy towards its own best-of-n distribution, whose KL to the policy
    is at most log n - (n - 1) / n. A best answer that ran into `sampling.max_new_tokens` is left out and counted:
    imitating it would teach to stop where it was cut.

    Prompts are repeated in a shuffled order until there are enough; those of the validation split are the data source's
    validation prompts. What a killed run has sampled is kept.

    Args:
        data: gives the prompts.
        sampling: how the policy answers; the KL is to this distribution.
        reward: scores the answers, also where the input `reward` is given; by default that reward model does.
        samples_per_prompt: n; 1 takes the samples as they are.
        prompts: answered for training.
        validation_prompts: answered for validation.
        inputs: `policy`; `reward`, a reward model; under other names the reward models that `reward` scores with.
        seed: of sampling and of the prompts' order.

    Source: Stiennon et al. 2020, arXiv:2009.01325; imitated in RAFT, Dong et al. 2023, arXiv:2304.06767.
    """

    VERSION: ClassVar[str] = "1"
    IS_HELPED: ClassVar[bool] = True
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {"policy": frozenset({"policy"})}
    OPTIONAL: ClassVar[Mapping[str, frozenset[Kind]]] = {"reward": frozenset({"reward_model"})}
    FURTHER: ClassVar[frozenset[Kind]] = frozenset({"reward_model"})
    PRODUCES: ClassVar[Kind] = "answers"

    def __init__(
        self,
        *,
        data: DataSource,
        sampling: Sampling,
        reward: RewardSource | None = None,
        samples_per_prompt: int = 8,
        prompts: int = 1000,
        validation_prompts: int = 100,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(inputs, seed)
        counts = {
            "samples_per_prompt": samples_per_prompt,
            "prompts": prompts,
            "validation_prompts": validation_prompts,
        }
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"BestOfN: {name} must be >= 1, got {value}")
        if samples_per_prompt > 1 and sampling.temperature == 0:
            raise ValueError("BestOfN: sampling.temperature must be > 0, got 0; greedy answers are all the same")
        self.data = data
        self.sampling = sampling
        self.reward = reward
        self.samples_per_prompt = samples_per_prompt
        self.prompts = prompts
        self.validation_prompts = validation_prompts

    def check_inputs(self, names: frozenset[str]) -> None:
        """Refuse to choose without anything that scores."""
        check_scored(self, self.reward, names)

    def data_needs(self) -> list[tuple[DataSource, Need]]:
        """Prompts, of both parts."""
        return [(self.data, Need("prompts", held_out=True))]

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        """Sample, score, write `answers.jsonl`."""
        self.check_inputs(frozenset(inputs))
        policy = Policy.load(inputs["policy"], context.runtime.dtype).to(context.runtime.device)
        source, scorers = learned(self.reward, inputs)
        assert source is not None, "see check_inputs"
        for scorer in scorers:
            scorer.to(context.runtime.device)
        prompts = self._prompts(policy, context)
        rows = [row for part in self._parts(policy, source, prompts, context) for row in part]
        kept = [row for row in rows if row["finished"]]
        if not kept:
            raise DataError(
                f"{context.name}: none of the {len(rows)} best answers ends by itself, so there is nothing to imitate; "
                f"raise sampling.max_new_tokens"
            )
        answers.write(context.folder, kept)
        context.tracker.say(f"{len(kept)} best answers; {len(rows) - len(kept)} that were cut off are left out")
        shown = ((r, prompts[r["index"]].text) for r in kept[:TABLE_ROWS])
        context.tracker.table("answers", [{"prompt": p, "answer": r["answer"], **r["scores"]} for r, p in shown])
        name = source.describe()
        write_columns(context.folder, [replace(c, reference=name) if "reward" in c.unit else c for c in COLUMNS])
        return with_intervals({**self._metrics(prompts, rows), **_counts(kept)})

    # ---- sampling -------------------------------------------------------------------------------------------------
    def _prompts(self, policy: Policy, context: StageContext) -> list[Prompt]:
        """First the prompts for training, then those for validation."""
        counts = zip(SPLITS, (self.prompts, self.validation_prompts), strict=True)
        return [
            prompt
            for split, count in counts
            for prompt in in_turn(
                policy, self.data, split, count, f"best_of_n:{self.seed}:{split}", context.tracker.say
            )
        ]

    def _parts(
        self, policy: Policy, source: RewardSource, prompts: Sequence[Prompt], context: StageContext
    ) -> list[list[dict[str, Any]]]:
        """A row for each prompt, in parts; those that an earlier run has written are read."""
        written = Artifact(context.work, "answers", "")
        parts = []
        for start in range(0, len(prompts), PROMPTS_PER_PART):
            file = f"part-{start // PROMPTS_PER_PART:06d}.jsonl"
            if not (context.work / file).is_file():
                part = prompts[start : start + PROMPTS_PER_PART]
                write_lines(context.work / file, self._answered(policy, source, part, start, len(prompts), context))
            parts.append(list(written.lines(file)))
        return parts

    def _answered(
        self,
        policy: Policy,
        source: RewardSource,
        part: Sequence[Prompt],
        start: int,
        total: int,
        context: StageContext,
    ) -> list[dict[str, Any]]:
        each = self.samples_per_prompt

        def progress(done: int, _: int) -> None:
            context.tracker.progress(start + done // each, total, {})

        asked = [p for p in part for _ in range(each)]
        # Sample k of the whole stage draws from (seed, k), so that the parts could be of any size.
        draw = fold_in(self.seed, 1)
        samples = generate(policy, asked, self.sampling, draw, progress=progress, first_index=start * each)
        texts = [s.text for s in samples]
        scores = score_in_parts(source, asked, texts)
        finished = [s.finished for s in samples]
        return [self._row(start + i, p, i * each, texts, finished, scores) for i, p in enumerate(part)]

    def _row(
        self, index: int, prompt: Prompt, first: int, texts: Sequence[str], finished: Sequence[bool], scores: Scores
    ) -> dict[str, Any]:
        """The best of the samples from `first` on, with the rewards of all."""
        rewards = scores.total[first : first + self.samples_per_prompt].tolist()
        best = first + rewards.index(max(rewards))
        parts = {f"reward_{name}": float(part[best]) for name, part in scores.parts.items()}
        example = Example(prompt, texts[best], scores={"reward": float(scores.total[best]), **parts})
        split = SPLITS[index >= self.prompts]
        return answers.row(example, split, index=index, rewards=rewards, finished=finished[best])

    # ---- what is measured -----------------------------------------------------------------------------------------
    def _metrics(self, prompts: Sequence[Prompt], rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Rewards and KL over all prompts, also those whose best answer is left out."""
        texts, rewards = [p.text for p in prompts], [row["rewards"] for row in rows]
        means = [sum(r) / len(r) for r in rewards]
        found = {
            "reward": Estimate.mean(zip(texts, map(max, rewards), strict=True)),
            "mean_reward": Estimate.mean(zip(texts, means, strict=True)),
            "gain": Estimate.mean((t, max(r) - m) for t, r, m in zip(texts, rewards, means, strict=True)),
            "kl_estimate": Estimate.mean(zip(texts, map(kl_estimate, rewards), strict=True)),
            "without_signal": Estimate.share(zip(texts, _alike(rewards), strict=True)),
            "unfinished": Estimate.share((t, not row["finished"]) for t, row in zip(texts, rows, strict=True)),
        }
        measured = {name: estimate for name, estimate in found.items() if estimate is not None}
        return {**measured, "kl_bound": kl_bound(self.samples_per_prompt)}


def _alike(rewards: Sequence[Sequence[float]]) -> list[bool]:
    """Whether all answers to a prompt have the same reward, for each prompt."""
    flat = torch.tensor(rewards, dtype=torch.float64)
    group = torch.arange(len(rewards)).repeat_interleave(flat.shape[1])
    found: list[bool] = without_signal(flat.flatten(), group).view(flat.shape)[:, 0].tolist()
    return found


def _counts(kept: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    counts = {f"{split}_answers": float(sum(row["split"] == split for row in kept)) for split in SPLITS}
    return {**counts, "answer_length": sum(len(row["answer"].split()) for row in kept) / len(kept)}
