"""Training on data that is not in memory: the same batches and weights as from memory, also when it is resumed."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from alignlab_pretrain import CausalLM, Pretrain
from alignlab_sft import SFT, AnswerNLL

from alignlab.artifact import Artifact
from alignlab.batch import TokenBatch
from alignlab.data.files import Files, loading
from alignlab.data.rows import few, permutation, sample
from alignlab.data.tokenised import StoredRows
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.policy import Llama
from alignlab.runtime import Runtime
from alignlab.stage import StageContext
from alignlab.training import AdamW, Loop

MODEL = Llama(layers=1, width=16, heads=2, feedforward=16, context=24)
TEXT = "".join(f"Line {i} of it, naïve.\r\nMore {'of ' * (i % 9)}{i}.\n\n" for i in range(60))
ANSWERED = [{"instruction": f"Say {i}.", "output": f"{i}!" * (1 + i % 3)} for i in range(40)]


class Dies(Exception):
    """Stands for a kill."""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "c.txt").write_bytes(TEXT.encode())
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ANSWERED))
    return {"corpus": str(tmp_path / "c.txt"), "instructions": str(tmp_path / "a.jsonl")}


def pretrain(files: Mapping[str, str], **loop: Any) -> Pretrain:
    return Pretrain(
        data=Files(**files, document_characters=40, validation_fraction=0.2),  # type: ignore[arg-type]
        model=MODEL,
        tokenizer=TrainTokenizer("bpe", 290),
        objective=CausalLM(),
        optimizer=AdamW(lr=1e-2),
        loop=Loop(steps=9, batch_size=5, validate_every=4, save_every=3, **loop),
        seed=3,
    )


def sft(files: Mapping[str, str], **arguments: Any) -> SFT:
    return SFT(
        data=Files(**files, document_characters=40, validation_fraction=0.2),  # type: ignore[arg-type]
        objective=AnswerNLL(),
        optimizer=AdamW(lr=1e-2),
        loop=Loop(steps=6, batch_size=5, validate_every=3),
        replay=0.4,
        seed=3,
        **arguments,
    )


def run(stage: Any, folder: Path, inputs: Mapping[str, Artifact] = {}) -> dict[str, float]:
    (folder / "out").mkdir(parents=True, exist_ok=True)
    (folder / "work").mkdir(exist_ok=True)
    context = StageContext("large", folder / "out", folder / "work", Runtime(accelerator="cpu"))
    return dict(stage.run(inputs, context))


def weights(stage: Any) -> dict[str, torch.Tensor]:
    return {k: v.detach().clone() for k, v in stage.policy.named_parameters()}


def assert_same(one: Any, other: Any) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(loading, "LARGE", 0)


@pytest.mark.parametrize("train_on_prompts", [False, True])
def test_weights_and_metrics_are_those_of_data_in_memory_to_the_bit(
    tmp_path: Path, files: dict[str, str], large: Callable[[], None], train_on_prompts: bool
) -> None:
    def trained(name: str) -> list[Any]:
        base = pretrain(files)
        metrics = run(base, tmp_path / name / "base")
        folder = {"policy": Artifact.open(tmp_path / name / "base" / "out")}
        tuned = sft(files, inputs={"policy": "base"}, train_on_prompts=train_on_prompts)
        return [base, metrics, tuned, run(tuned, tmp_path / name / "tuned", folder)]

    small = trained("small")
    large()
    stored = trained("large")
    assert isinstance(stored[0].units, StoredRows) and not isinstance(small[0].units, StoredRows)
    assert small[1] == stored[1] and small[3] == stored[3]
    assert_same(small[0], stored[0])
    assert_same(small[2], stored[2])
    names = [(tmp_path / n / "base" / "out" / "samples.jsonl").read_text() for n in ("small", "large")]
    assert names[0] == names[1]


@pytest.mark.parametrize("dies_at", [1, 3, 5, 8])
def test_a_run_that_is_resumed_ends_with_the_same_weights(
    tmp_path: Path, files: dict[str, str], large: Callable[[], None], dies_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pretrain(files)
    run(whole, tmp_path / "whole")
    large()
    mortal = pretrain(files)
    whole_batch = Pretrain.batch_at

    def batch_at(stage: Pretrain, step: int) -> TokenBatch:
        if stage is mortal and step == dies_at:
            raise Dies
        return whole_batch(stage, step)

    monkeypatch.setattr(Pretrain, "batch_at", batch_at)
    with pytest.raises(Dies):
        run(mortal, tmp_path / "resumed")
    resumed = pretrain(files)
    run(resumed, tmp_path / "resumed")
    assert_same(whole, resumed)


def test_a_sample_is_all_of_small_data_and_a_part_of_large_data_in_its_order() -> None:
    texts = [chr(65 + i % 26) * (1 + i % 5) for i in range(200)]
    assert list(sample(texts, len)) == texts
    for most in (1, 50, 300):
        part = list(sample(range(200), lambda i: len(texts[i]), most))
        assert part == sorted(set(part)) and part == list(sample(range(200), lambda i: len(texts[i]), most))
        assert sum(len(texts[i]) for i in part) <= most or len(part) == 1
        assert sum(len(texts[i]) for i in part) > most - 5 or most == 1
    assert list(sample([], len)) == []


def test_held_out_rows_of_large_data_are_spaced_evenly(
    tmp_path: Path, files: dict[str, str], large: Callable[[], None]
) -> None:
    rows = list(range(10))
    said: list[str] = []
    assert few(rows, said.append, most=3) is rows  # in memory
    large()
    stage = pretrain(files)
    run(stage, tmp_path)
    units = stage.units
    assert few(units, said.append, most=len(units)) is units and not said
    assert list(few(units, said.append, most=3)) == [units[i * len(units) // 3] for i in range(3)]
    assert said == [f"validates on 3 of {len(units)} held-out rows, spaced evenly"]


def test_a_permutation_takes_eight_bytes_per_number_and_is_torchs() -> None:
    from alignlab.seed import fold_in

    found = permutation(1000, 5, 2)
    generator = torch.Generator().manual_seed(fold_in(5, 2))
    assert list(found) == torch.randperm(1000, generator=generator).tolist()
    assert memoryview(found).nbytes == 8000  # type: ignore[arg-type]
