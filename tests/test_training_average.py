"""Moving average of the weights: its closed form, where it is used, and that a killed run continues with it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_cases import Fixed, parameters
from training_runs import killed_and_resumed, run_in, with_kind

from alignlab.policy import Policy
from alignlab.runtime import Runtime
from alignlab.training import Loop
from alignlab.training.average import WeightAverage

EXACT = Runtime(accelerator="cpu", precision="64-true")


def held(average: WeightAverage) -> list[float]:
    return [float(buffer) for buffer in average.buffers()]


def test_a_known_sequence_of_weights() -> None:
    """Decay 3/4: 1 -> (3 + 5) / 4 = 2 -> (6 + 10) / 4 = 4; and 0, 4, 0 -> 1 -> 3/4."""
    average = WeightAverage([torch.tensor(1.0), torch.tensor(0.0)], 0.75)
    average.update([torch.tensor(5.0), torch.tensor(4.0)])
    assert held(average) == [2.0, 1.0]
    average.update([torch.tensor(10.0), torch.tensor(0.0)])
    assert held(average) == [4.0, 0.75]


def test_weights_that_stay_are_their_own_average_to_the_bit() -> None:
    weight = torch.randn(100, generator=torch.Generator().manual_seed(0))
    average = WeightAverage([weight], 0.9)
    for _ in range(10):
        average.update([weight])
    assert torch.equal(next(average.buffers()), weight)


def test_it_takes_the_weights_place_and_gives_it_back() -> None:
    weight = torch.tensor([1.0, 0.1])
    average = WeightAverage([torch.zeros(2)], 0.5)
    with average.in_place_of([weight]):
        assert weight.tolist() == [0.0, 0.0]
    assert torch.equal(weight, torch.tensor([1.0, 0.1]))


def test_half_precision_weights_have_a_wide_average() -> None:
    """In bfloat16, 1 + 0.001 is 1: the average would never move."""
    average = WeightAverage([torch.tensor(1.0, dtype=torch.bfloat16)], 0.999)
    average.update([torch.tensor(2.0, dtype=torch.bfloat16)])
    assert held(average) == [pytest.approx(1.001)]


class Noted(Fixed):
    """Remembers the trained weights before the first step and after every one."""

    def batch_at(self, step: int) -> Any:
        if step == 0:
            self.trained = [parameters(self)]
        return super().batch_at(step)

    def after_step(self, step: int) -> None:
        super().after_step(step)
        self.trained.append(parameters(self))


def expected(trained: list[dict[str, Tensor]], decay: float) -> dict[str, Tensor]:
    """Sum of the weights after each step, by the powers of the decay."""
    steps = len(trained) - 1
    shares = [decay**steps, *((1 - decay) * decay ** (steps - t) for t in range(1, steps + 1))]
    assert sum(shares) == pytest.approx(1)
    return {name: sum(s * w[name] for s, w in zip(shares, trained, strict=True)) for name in trained[0]}  # type: ignore[misc]


def test_the_average_is_validated_and_published_and_the_trained_weights_train_on(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 3, "validate_every": 1, "checkpoint_every": 2, "keep": "last"}
    stage, plain = (with_kind(Noted, **settings, ema=decay) for decay in (0.6, None))
    metrics, heard = run_in(tmp_path / "ema", stage, EXACT)
    plain_metrics, _ = run_in(tmp_path / "plain", plain, EXACT)
    for with_it, without in zip(stage.trained, plain.trained, strict=True):  # type: ignore[attr-defined]
        assert all(torch.equal(with_it[k], without[k]) for k in without)
    for steps, folder in ((3, tmp_path / "ema/out"), (2, tmp_path / "ema/out/checkpoints/step-000002")):
        average = expected(stage.trained[: steps + 1], 0.6)  # type: ignore[attr-defined]
        found = dict(Policy.load(folder, torch.float64).named_parameters())
        assert found and all(torch.allclose(p, average[k], rtol=0, atol=1e-12) for k, p in found.items())
    assert metrics["validation_loss"] == heard.values("validation/loss")[-1]
    assert metrics["validation_loss"] != plain_metrics["validation_loss"]


def test_a_killed_run_continues_with_its_average_to_the_bit(tmp_path: Path) -> None:
    def make() -> Fixed:
        return with_kind(Fixed, steps=6, save_every=1, validate_every=2, ema=0.7)

    whole = make()
    run_in(tmp_path / "whole", whole)
    resumed, _ = killed_and_resumed(tmp_path / "killed", make)
    a, b = parameters(whole), parameters(resumed)
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("ema", [0.0, 1.0, -0.5, 1.5])
def test_a_decay_is_between_0_and_1(ema: float) -> None:
    with pytest.raises(ValueError, match="Loop: ema must be between 0 and 1, or null"):
        Loop(steps=1, batch_size=1, ema=ema)
