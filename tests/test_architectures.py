"""Published architectures, tiny: log-probabilities and samples are the model's own, and every stage trains it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from alignlab_dpo import DPO
from alignlab_grpo import LeaveOneOut, Reinforce
from alignlab_reward_model import BradleyTerry, RewardModel
from alignlab_sft import SFT, AnswerNLL
from architectures import STATE_SPACE, TRANSFORMERS, config
from chat_templates import CHATML, bpe
from model_folders import save
from regimes import Remembering, context_in
from torch import Tensor
from transformers import AutoTokenizer

from alignlab.artifact import Artifact
from alignlab.batch import TokenBatch
from alignlab.data import preferences
from alignlab.data.records import Comparison, Example, Prompt
from alignlab.data.source import DataSource, Split
from alignlab.policy import Policy, Sampling, generate
from alignlab.policy.logits import LogitForm
from alignlab.training import AdamW, Constant, Loop, PolicyGradientStage, PreferenceStage, TrainingStage

ASKED = ("the cat", "a cat sat on the mat", "yes or no", "where is the Rhine", "no", "cat cat")
STEPS = 3
QUICK = ("llama", "qwen3", "gemma3", "mixtral", "gpt2", "cohere")
"""Architectures that every run of the tests trains; the others are trained by the slow ones."""


class Chats(DataSource):
    """Six questions, of which two are held out."""

    VERSION: ClassVar[str] = "1"

    def instructions(self, split: Split) -> Sequence[Example]:
        rows = [Example(Prompt.user(asked), "the mat" if i % 2 else "yes") for i, asked in enumerate(ASKED)]
        return rows[:4] if split == "train" else rows[4:]


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that is named, with a ChatML tokenizer, saved as its own class reads it."""
    name: str = request.param
    made = save(tmp_path_factory.mktemp(name), config(name), bpe(CHATML))
    if name == "qwen2":
        AutoTokenizer.from_pretrained(made).save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Preferences on the questions."""
    made = tmp_path_factory.mktemp("pairs")
    found = [
        (Comparison(Prompt.user(asked), "yes", "the mat no"), "train" if i < 4 else "validation")
        for i, asked in enumerate(ASKED)
    ]
    preferences.write(made, [preferences.row(pair, split) for pair, split in found])
    return Artifact.open(made)


every = pytest.mark.parametrize("folder", [*TRANSFORMERS, *STATE_SPACE], indirect=True)


@every
@torch.no_grad()
def test_log_probabilities_are_the_models_own(folder: Path) -> None:
    """Rows of other lengths stand next to each other, some of them longer than an attention window."""
    policy = Policy.load(folder)
    torch.manual_seed(0)
    rows = [torch.randint(3, 400, (n,)).tolist() for n in (2, 40, 5, 23)]
    batch = TokenBatch.of(rows, [[False] + [True] * (len(row) - 1) for row in rows])
    found = policy.token_stats(batch, frozenset({"logp", "lse", "entropy"}))
    logits = [policy.model(input_ids=torch.tensor([row])).logits[0, :-1].float() for row in rows]
    for name, of_row in (("logp", logp), ("lse", lse), ("entropy", entropy)):
        own = torch.cat([of_row(z, torch.tensor(row[1:])) for z, row in zip(logits, rows, strict=True)])
        torch.testing.assert_close(found.values[name][batch.response_mask], own, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("folder", "form"),
    [
        ("gemma2", LogitForm(softcap=3.0)),
        ("granite", LogitForm(scale=1 / 3)),
        ("cohere", LogitForm(scale=0.3)),
        ("falcon_h1", LogitForm(scale=0.5)),
        ("recurrent_gemma", LogitForm(softcap=3.0)),
        ("llama", LogitForm()),
    ],
    indirect=["folder"],
)
def test_rounding_hides_no_factor_on_the_logits(folder: Path, form: LogitForm, dtype: torch.dtype) -> None:
    """These logits are far below the soft cap, so that in half precision it changes nothing that can be seen."""
    assert Policy.load(folder).logits == Policy.load(folder, dtype).logits == form


def logp(logits: Tensor, tokens: Tensor) -> Tensor:
    return logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]


def lse(logits: Tensor, tokens: Tensor) -> Tensor:
    return logits.logsumexp(-1)


def entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)


@every
@torch.no_grad()
def test_greedy_samples_are_those_of_generate(folder: Path) -> None:
    """Batched, of prompts of other lengths, with rows that finish early; `generate` has each alone."""
    policy = Policy.load(folder)
    for parameter in policy.model.parameters():  # random weights of published size leave all tokens about as likely
        parameter.mul_(1.5)
    stop, length = sorted(policy.stop_ids), 10
    for sample in generate(policy, [Prompt.user(asked) for asked in ASKED], Sampling(0.0, max_new_tokens=length), 0):
        row = torch.tensor([sample.prompt_ids])
        theirs = policy.model.generate(
            row, attention_mask=torch.ones_like(row), do_sample=False, max_new_tokens=length, eos_token_id=stop,
            pad_token_id=0,
        )  # fmt: skip
        assert theirs[0, row.shape[1] :].tolist() == list(sample.answer_ids)


@pytest.mark.parametrize(
    "folder",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in (*TRANSFORMERS, *STATE_SPACE)],
    indirect=True,
)
def test_every_kind_of_stage_trains_it(folder: Path, pairs: Artifact, tmp_path: Path) -> None:
    shared: dict[str, Any] = {"optimizer": AdamW(lr=1e-2, schedule=Constant()), "loop": Loop(STEPS, 2, log_every=1)}
    base = Artifact.open(folder)
    sft = trained(SFT(data=Chats(), objective=AnswerNLL(), **shared), tmp_path / "sft", policy=base)
    dpo = PreferenceStage(objective=DPO(), **shared)
    trained(dpo, tmp_path / "dpo", policy=sft, preferences=pairs)
    assert reports(dpo).values("train/loss")[0] == pytest.approx(math.log(2), abs=1e-5), "the reference is the policy"
    reward = RewardModel(objective=BradleyTerry(), **shared)
    scores = trained(reward, tmp_path / "reward", policy=sft, preferences=pairs)
    online = PolicyGradientStage(
        data=Chats(), objective=Reinforce(), advantage=LeaveOneOut(), sampling=Sampling(max_new_tokens=4),
        prompts_per_rollout=1, samples_per_prompt=2, validation_prompts=1, **shared,
    )  # fmt: skip
    trained(online, tmp_path / "online", policy=sft, reward=scores)
    assert abs(reports(online).values("train/kl")[0]) < 1e-4, "the first answers are the reference's own"


def trained(stage: TrainingStage[Any], into: Path, **inputs: Artifact) -> Artifact:
    """What a stage makes of its inputs, after a check that it has learnt something."""
    context = context_in(into)
    metrics = stage.run(inputs, context)
    assert metrics["steps"] == STEPS and all(math.isfinite(value) for value in metrics.values())
    made = Artifact.open(context.folder)
    before, after = Policy.load(inputs["policy"]).model, Policy.load(made).model
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    return made


def reports(stage: TrainingStage[Any]) -> Remembering:
    tracker = stage.context.tracker
    assert isinstance(tracker, Remembering)
    return tracker
