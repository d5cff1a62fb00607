"""FilesEvaluation's intervals: over records, declared, and of the numbers that closed forms give."""

import json
import math

import pytest
import torch

from alignlab.data.files import Files
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.evaluation import Estimate, EvaluationResult, FilesEvaluation
from alignlab.metrics import wilson
from alignlab.policy import Llama, Policy, Sampling

PAIRS = [{"prompt": f"Say {i}.", "chosen": f"{i}.", "rejected": f"No, not {i}, and no other one."} for i in range(60)]
TEXTS = [{"text": " ".join(f"word {i}" for i in range(1 + 7 * (n % 9)))} for n in range(60)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("files")
    for name, rows in (("pairs", PAIRS), ("texts", TEXTS)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = str(folder / "pairs.jsonl")
    return Files(str(folder / "texts.jsonl"), pairs, pairs, validation_fraction=0.5)


@pytest.fixture(scope="module")
def uniform(files: Files) -> Policy:
    """Every weight 0, so that each next token is as likely as any other."""
    tokenizer = TrainTokenizer("bpe", 300).train([row["text"] for row in TEXTS])
    policy = Policy(Llama(layers=1, width=16, heads=2, feedforward=16, context=64).build(tokenizer, 0), tokenizer)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
    return policy


@pytest.fixture(scope="module")
def result(files: Files, uniform: Policy) -> EvaluationResult:
    return FilesEvaluation(files, prompts=8)(uniform, Sampling(max_new_tokens=4), seed=0)


def estimate(result: EvaluationResult, name: str) -> Estimate:
    found = result.metrics[name]
    assert isinstance(found, Estimate)
    return found


def test_every_metric_is_declared_and_has_an_interval(files: Files, result: EvaluationResult) -> None:
    assert result.metrics.keys() == {column.metric for column in FilesEvaluation(files).columns}
    assert all(estimate(result, name).interval is not None for name in result.metrics)


def test_a_loss_that_is_the_same_everywhere_has_no_width(result: EvaluationResult, uniform: Policy) -> None:
    loss = math.log(len(uniform.tokenizer))
    assert estimate(result, "document_loss").interval == pytest.approx((loss, loss), rel=1e-6)
    assert estimate(result, "document_perplexity").interval == pytest.approx((len(uniform.tokenizer),) * 2, rel=1e-5)


def test_windows_of_one_document_are_one_record(files: Files, result: EvaluationResult) -> None:
    (tally,) = estimate(result, "document_loss").tallies
    held_out = files.documents("validation")
    assert len(tally.keys) == len(held_out), "some are longer than the context, and cut into windows"
    assert sum(tally.counts) == estimate(result, "document_loss").count


def test_a_share_of_pairs_has_a_wilson_interval(files: Files, result: EvaluationResult) -> None:
    count = len(files.comparisons("validation"))
    found = estimate(result, "preference_accuracy")
    assert found == 1.0 and found.count == count, "the shorter answer is likelier, and the chosen one is shorter"
    assert found.interval == pytest.approx(wilson(1.0, count))


def test_the_policy_keeps_its_mode(files: Files, uniform: Policy) -> None:
    for training in (True, False):
        uniform.train(training)
        FilesEvaluation(files, prompts=2)(uniform, Sampling(max_new_tokens=2), seed=0)
        assert uniform.training is training
