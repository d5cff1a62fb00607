"""Small training runs on fixed batches, one for each built-in objective: what the invariance tests drive.

Run as a script it trains every case as one process of several and writes the parameters; see `test_training.py`.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from alignlab_dpo import DPO, IPO
from alignlab_ppo import PPO
from alignlab_pretrain import CausalLM
from alignlab_reward_model import BradleyTerry
from alignlab_sft import AnswerNLL
from together import leave
from torch import Tensor

from alignlab.artifact import Artifact, Kind
from alignlab.batch import Batch, PreferenceBatch, RolloutBatch, TokenBatch
from alignlab.data.records import Document
from alignlab.data.source import DataSource, Split
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.objective import Loss, Objective, sequences
from alignlab.policy import Llama, Policy
from alignlab.runtime import Runtime
from alignlab.stage import StageContext
from alignlab.stats import Mean, TokenStats
from alignlab.training import AdamW, Cosine, Loop, MixedIn, TrainingStage

STEPS = 20
UNITS = 8
WORDS = 30


class Centred(Objective[TokenBatch]):
    """Needs a mean over the whole step: squared distance of each answer's log-probability from the step's mean."""

    VERSION: ClassVar[str] = "1"
    per = {"loss": sequences}

    def step_means(self, stats: TokenStats, batch: TokenBatch) -> Mapping[str, Mean]:
        return {"centre": Mean.of(batch.sum_by_sequence(stats.logp), batch.weight)}

    def __call__(self, stats: TokenStats, batch: TokenBatch) -> Loss:
        return self.loss(batch, loss=(batch.sum_by_sequence(stats.logp) - batch.step["centre"]).square())


OBJECTIVES: dict[str, tuple[Objective[Any], type[Batch]]] = {
    "causal_lm": (CausalLM(z_loss=1e-3), TokenBatch),
    "answer_nll": (AnswerNLL(), TokenBatch),
    "bradley_terry": (BradleyTerry(centering=0.01), PreferenceBatch),
    "dpo": (DPO(beta=0.3), PreferenceBatch),
    "ipo": (IPO(tau=0.5), PreferenceBatch),
    "ppo": (PPO(), RolloutBatch),
    "centred": (Centred(), TokenBatch),
    "ppo_ptx": (PPO(), RolloutBatch),
}


class Words(DataSource):
    """Documents of the small policy's words."""

    VERSION: ClassVar[str] = "1"

    def documents(self, split: Split) -> Sequence[Document]:
        return [Document(" ".join(f"w{(3 * i + j * j) % WORDS}" for j in range(3 + i % 5))) for i in range(12)]


MIXED: dict[str, dict[str, MixedIn]] = {"ppo_ptx": {"ptx": MixedIn(CausalLM(), Words(), weight=0.7, batch_size=6)}}
"""Parts that are mixed into a case."""


def batch_of(kind: type[Batch], seed: int) -> Batch:
    """Eight units of very unequal lengths, with everything in them that an objective may read."""
    generator = torch.Generator().manual_seed(seed)
    count = UNITS * (2 if kind is PreferenceBatch else 1)
    lengths = torch.randint(3, 25, (count,), generator=generator).tolist()
    rows = [torch.randint(0, WORDS, (n,), generator=generator).tolist() for n in lengths]
    prompts = [1 + int(torch.randint(0, n - 2, (1,), generator=generator)) for n in lengths]
    masks = [[p >= k for p in range(n)] for n, k in zip(lengths, prompts, strict=True)]
    batch = kind.of(rows, masks, [f"row {i}" for i in range(count)])
    noise = {
        name: torch.randn(batch.num_tokens, generator=generator)
        for name in ("reference_logp", "old_logp", "old_value", "advantage", "returns")
    }
    noise["old_logp"] = noise["old_logp"] * 0.1 - 3.4
    return batch.with_tokens(**noise)


class Fixed(TrainingStage[Any]):
    """Trains a small policy with a scalar head on made-up batches."""

    VERSION: ClassVar[str] = "1"
    PRODUCES: ClassVar[Kind] = "policy"
    PROVIDES: ClassVar[frozenset[str]] = frozenset({"reference_logp", "old_logp", "old_value", "advantage", "returns"})

    def __init__(self, kind: type[Batch], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.kind = kind
        self.steps_made = 0

    def prepare(self, inputs: Mapping[str, Artifact], context: StageContext) -> None:
        tokenizer = TrainTokenizer("word", 100).train([" ".join(f"w{i}" for i in range(WORDS))])
        model = Llama(layers=1, width=16, heads=2, feedforward=32, context=32).build(tokenizer, seed=0)
        self.policy = Policy(model, tokenizer)
        self.policy.add_score_head(1)
        self.policy.to(context.runtime.dtype)

    def batch_at(self, step: int) -> Batch:
        return batch_of(self.kind, 100 + step)

    def validation_batches(self) -> Sequence[Batch]:
        return [batch_of(self.kind, 50)]

    def after_step(self, step: int) -> None:
        self.steps_made = step + 1

    def state(self) -> dict[str, Any]:
        return {"steps_made": self.steps_made}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.steps_made = state["steps_made"]


class Dies(Exception):
    """Stands for a kill."""


class Mortal(Fixed):
    """Dies before the step that it is told."""

    dies_at: int = 3

    def batch_at(self, step: int) -> Batch:
        if step == self.dies_at:
            raise Dies
        return super().batch_at(step)


def stage_of(name: str, micro_batch_tokens: int, steps: int = STEPS, **loop: Any) -> Fixed:
    """The stage of one case."""
    objective, kind = OBJECTIVES[name]
    loop = {"validate_every": steps, "save_every": 1000, **loop}
    return Fixed(
        kind,
        objective=objective,
        optimizer=AdamW(lr=1e-3, eps=1e-5, schedule=Cosine(warmup_steps=2)),
        loop=Loop(steps, UNITS, micro_batch_tokens, **loop),
        mixed_in=MIXED.get(name),
    )


def train(stage: TrainingStage[Any], folder: Path, runtime: Runtime | None = None) -> dict[str, float]:
    """Run a stage in a folder; returns its metrics."""
    out, work = folder / "out", folder / "work"
    out.mkdir(parents=True, exist_ok=True)
    work.mkdir(exist_ok=True)
    context = StageContext("fixed", out, work, runtime or Runtime(accelerator="cpu"))
    return dict(stage.run({}, context))


def parameters(stage: TrainingStage[Any]) -> dict[str, Tensor]:
    """What was learnt."""
    return {k: v.detach().clone() for k, v in stage.policy.named_parameters()}


if __name__ == "__main__":
    root = Path(sys.argv[1])
    for case in OBJECTIVES:
        trained = stage_of(case, micro_batch_tokens=64)
        rank = int(os.environ["RANK"])
        metrics = train(trained, root / case / str(rank), Runtime("cpu", devices=2, strategy="ddp"))
        if rank == 0:
            torch.save({"parameters": parameters(trained), "metrics": metrics}, root / f"{case}.pt")
    leave()
