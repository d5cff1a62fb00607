"""`stage=drift`: the KL and the rewards that it measures, against what they must be."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from alignlab_raters import Rater
from alignlab_reward_model import EnsembleMean
from test_testing_builtin_stages import Tiny

from alignlab.artifact import Artifact
from alignlab.batch import TokenBatch
from alignlab.data.records import Prompt
from alignlab.errors import PipelineError
from alignlab.evaluation import Drift
from alignlab.evaluation.drift import log_ratios
from alignlab.policy import Policy, Sampling, generate
from alignlab.runtime import Runtime
from alignlab.stage import StageContext
from alignlab.testing import tiny_policy_artifact

CPU = Runtime(accelerator="cpu")
WORDS = Rater("looks", {"words": 1.0})


def measure(folder: Path, reference_seed: int = 1, reward: bool = False, **arguments: Any) -> dict[str, float]:
    """What the stage finds out about a tiny policy of seed 0."""
    inputs: dict[str, Artifact] = {
        "policy": tiny_policy_artifact(folder / "policy"),
        "reference": tiny_policy_artifact(folder / "reference", seed=reference_seed),
    }
    if reward:
        inputs["reward"] = tiny_policy_artifact(folder / "reward", seed=2, scalar_head=True)
    (folder / "out").mkdir()
    stage = Drift(data=Tiny(), **{"sampling": Sampling(max_new_tokens=6), "samples_per_prompt": 5, **arguments})
    return dict(stage.run(inputs, StageContext("drift", folder / "out", folder, CPU)))


def exact_kl(policy: Policy, reference: Policy, prompt: Prompt) -> float:
    """KL between the two distributions of an answer's first token, over the whole vocabulary."""
    (sample,) = generate(policy, [prompt], Sampling(max_new_tokens=1), 0)
    size = policy.model.get_input_embeddings().num_embeddings
    rows = [[*sample.prompt_ids, token] for token in range(size)]
    batch = TokenBatch.of(rows, [[False] * len(sample.prompt_ids) + [True]] * size)
    p, q = (m.token_stats(batch, frozenset({"logp"})).logp[batch.response_mask].detach() for m in (policy, reference))
    assert torch.isclose(p.exp().sum(), torch.tensor(1.0), atol=1e-5)
    return float((p.exp() * (p - q)).sum())


def test_the_kl_is_that_of_the_distributions(tmp_path: Path) -> None:
    """Answers of one token: the mean log-ratio is within four standard errors of the sum over the vocabulary."""
    found = measure(tmp_path, sampling=Sampling(max_new_tokens=1), samples_per_prompt=400)
    policy, reference = (Policy.load(Artifact.open(tmp_path / name)) for name in ("policy", "reference"))
    want = sum(exact_kl(policy, reference, e) for e in Tiny().prompts("validation")) / len(Tiny().prompts("validation"))
    rows = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    ratios = torch.tensor([row["kl"] for row in rows])
    assert want > 0.01 and len(rows) == 400 * len(Tiny().prompts("validation"))
    assert abs(found["kl"] - want) < 4 * float(ratios.std()) / math.sqrt(len(ratios))


def test_a_policy_has_not_moved_from_itself(tmp_path: Path) -> None:
    assert measure(tmp_path, reference_seed=0)["kl"] == 0.0


def test_a_log_ratio_is_the_sum_over_the_answers_tokens(tmp_path: Path) -> None:
    policy, reference = (Policy.load(tiny_policy_artifact(tmp_path / str(s), seed=s)).eval() for s in (0, 1))
    samples = generate(policy, list(Tiny().prompts("validation")), Sampling(max_new_tokens=6), 3)
    together = log_ratios(policy, reference, samples, CPU)
    for sample, found in zip(samples, together, strict=True):
        row, mask = [*sample.prompt_ids, *sample.answer_ids], [False] * len(sample.prompt_ids)
        batch = TokenBatch.of([row], [[*mask, *[True] * len(sample.answer_ids)]])
        p, q = (m.token_stats(batch, frozenset({"logp"})).logp[batch.response_mask].sum() for m in (policy, reference))
        assert float(found) == pytest.approx((p - q).item(), abs=1e-4)


def test_rewards_are_means_over_the_same_answers(tmp_path: Path) -> None:
    found = measure(tmp_path, reward=True, rewards={"wordy": WORDS})
    rows = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    assert found["wordy"] == pytest.approx(sum(row["wordy"] for row in rows) / len(rows), abs=1e-6)
    assert found["proxy_reward"] == pytest.approx(sum(row["proxy_reward"] for row in rows) / len(rows), abs=1e-6)
    assert found["answer_length"] == pytest.approx(sum(len(r["answer"].split()) for r in rows) / len(rows))
    assert found["kl_low"] <= found["kl"] <= found["kl_high"]
    columns = json.loads((tmp_path / "out" / "columns.json").read_text())
    assert {"kl", "proxy_reward", "wordy"} <= {c["metric"] for c in columns}


def test_rewards_score_with_reward_models_among_the_inputs_and_have_parts(tmp_path: Path) -> None:
    further = {name: tiny_policy_artifact(tmp_path / name, seed=s, scalar_head=True) for s, name in enumerate("ab", 3)}
    stage = Drift(data=Tiny(), sampling=Sampling(max_new_tokens=6), rewards={"both": EnsembleMean(["a", "b"])})
    inputs = {name: tiny_policy_artifact(tmp_path / name) for name in ("policy", "reference")}
    stage.check_inputs(frozenset({*inputs, *further}))
    found = stage.run({**inputs, **further}, StageContext("drift", tmp_path, tmp_path, CPU))
    assert found["both"] == pytest.approx((found["both_a"] + found["both_b"]) / 2, abs=1e-6)
    assert found["both_a"] != found["both_b"] and found["both_disagreement"] > 0
    rows = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert all(row["both"] == pytest.approx((row["both_a"] + row["both_b"]) / 2, abs=1e-6) for row in rows)
    for names, says in (({"a"}, r"set inputs\.b to a"), ({"a", "b", "c"}, r"nothing reads inputs\.c")):
        with pytest.raises(ValueError, match=says):
            stage.check_inputs(frozenset({*inputs, *names}))


def test_a_reference_of_another_vocabulary_is_refused_before_anything_is_sampled(tmp_path: Path) -> None:
    """It would score other texts, and the KL would be a number all the same."""
    inputs = {name: tiny_policy_artifact(tmp_path / name) for name in ("policy", "reference")}
    file = tmp_path / "reference" / "tokenizer.json"
    content = json.loads(file.read_text())
    words = content["model"]["vocab"]
    words["tea"], words["rain"] = words["rain"], words["tea"]
    file.write_text(json.dumps(content))
    stage = Drift(data=Tiny(), sampling=Sampling(max_new_tokens=6))
    with pytest.raises(PipelineError, match=r"^drift\.inputs\.reference: its vocabulary differs from the policy's"):
        stage.run(inputs, StageContext("drift", tmp_path, tmp_path, CPU))


def test_without_a_reward_model_there_is_no_proxy(tmp_path: Path) -> None:
    assert "proxy_reward" not in measure(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            {"sampling": Sampling(temperature=0.7)},
            "sampling must be temperature 1, top_p 1 and top_k 0, got 0.7",
        ),
        ({"sampling": Sampling(top_k=5)}, "top_k 0"),
        ({"samples_per_prompt": 0}, "samples_per_prompt must be >= 1, got 0"),
        ({"rewards": {"kl": WORDS}}, "rewards.kl has the name of another metric, kl"),
        ({"rewards": {"two_a": WORDS, "two": EnsembleMean(["a", "b"])}}, "rewards.two has the name of another metric"),
        ({"rewards": {"prompt": WORDS}}, "a field of every sample"),
    ],
)
def test_what_it_cannot_measure_is_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Drift(data=Tiny(), **{"sampling": Sampling(), **arguments})
