"""The training loop: what is learnt depends on neither the memory budget nor the number of processes."""

import math
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from together import run_together
from torch import Tensor
from training_cases import OBJECTIVES, Dies, Fixed, Mortal, batch_of, parameters, stage_of, train

from alignlab import stopping
from alignlab.batch import Batch, PreferenceBatch, TokenBatch
from alignlab.errors import NonFiniteError, Preempted
from alignlab.runtime import Runtime

CLOSE = 1e-5


def smooth(metrics: dict[str, float]) -> dict[str, float]:
    """Metrics without those that count crossings of a threshold: a rounding error may push one unit across."""
    return {k: v for k, v in metrics.items() if not k.endswith(("fraction", "accuracy"))}


def furthest(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[k] - b[k]).abs().max()) for k in a)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Tensor], dict[str, float]]]:
    """Every objective trained in one process and one micro-batch."""
    found = {}
    for name in OBJECTIVES:
        stage = stage_of(name, micro_batch_tokens=100_000)
        metrics = train(stage, tmp_path_factory.mktemp(name))
        found[name] = (parameters(stage), metrics)
    return found


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_training_moves_the_parameters(name: str, trained: Any, tmp_path: Path) -> None:
    start = stage_of(name, 100_000)
    start.prepare({}, _context(tmp_path))
    assert furthest(parameters(start), trained[name][0]) > 100 * CLOSE


@pytest.mark.parametrize("name", list(OBJECTIVES))
@pytest.mark.parametrize("micro_batch_tokens", [1, 60])
def test_the_memory_budget_does_not_change_what_is_learnt(
    name: str, micro_batch_tokens: int, trained: Any, tmp_path: Path
) -> None:
    stage = stage_of(name, micro_batch_tokens)
    metrics = train(stage, tmp_path)
    assert furthest(parameters(stage), trained[name][0]) < CLOSE
    assert smooth(metrics) == pytest.approx(smooth(trained[name][1]), rel=1e-4, abs=1e-5)


@pytest.fixture(scope="module")
def by_two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("two")
    run_together(Path(__file__).with_name("training_cases.py"), root)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_two_processes_learn_what_one_learns(name: str, by_two_processes: Path, trained: Any) -> None:
    found = torch.load(by_two_processes / f"{name}.pt", weights_only=True)
    assert furthest(found["parameters"], trained[name][0]) < CLOSE
    assert smooth(found["metrics"]) == pytest.approx(smooth(trained[name][1]), rel=1e-4, abs=1e-5)


def _context(folder: Path) -> Any:
    from alignlab.stage import StageContext

    return StageContext("fixed", folder, folder, Runtime(accelerator="cpu"))


# ---- resuming -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dies_at", [1, 4, 5])
def test_a_killed_run_goes_on_to_the_same_bits(dies_at: int, tmp_path: Path) -> None:
    whole = stage_of("dpo", 60, steps=6)
    train(whole, tmp_path / "whole")
    killed = stage_of("dpo", 60, steps=6, save_every=2)
    killed.__class__ = Mortal
    killed.dies_at = dies_at  # type: ignore[attr-defined]
    with pytest.raises(Dies):
        train(killed, tmp_path / "killed")
    resumed = stage_of("dpo", 60, steps=6, save_every=2)
    train(resumed, tmp_path / "killed")
    assert furthest(parameters(resumed), parameters(whole)) == 0.0


# ---- bad numbers ----------------------------------------------------------------------------------------------------
class Poisoned(Fixed):
    """One reference log-probability of step 3 is NaN."""

    def batch_at(self, step: int) -> Batch:
        batch = super().batch_at(step)
        if step != 3:
            return batch
        bad = batch.reference_logp.clone()
        bad[batch.response_mask.nonzero()[0]] = math.nan
        return batch.with_tokens(reference_logp=bad)


def test_a_nan_stops_before_the_step_names_the_batch_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    stage = stage_of("dpo", 100_000, save_every=2)
    stage.__class__ = Poisoned
    with pytest.raises(
        NonFiniteError, match=r"loss is nan.* at step 3.*the weights as of step 3 are kept in .*row 0"
    ) as error:
        train(stage, tmp_path)
    assert "optimizer.lr" in str(error.value)
    assert all(p.isfinite().all() for p in stage.policy.parameters())
    kept = torch.load(tmp_path / "work" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 3, "not only every second step, but the last good one"
    assert all(torch.equal(kept["state_dict"][f"policy.{k}"], v) for k, v in stage.policy.state_dict().items())


# ---- what the loop keeps --------------------------------------------------------------------------------------------
def test_intermediate_best_and_last_models_are_published(tmp_path: Path) -> None:
    from alignlab.policy import Policy

    stage = stage_of("dpo", 100_000, steps=6, checkpoint_every=3)
    metrics = train(stage, tmp_path)
    kept = tmp_path / "out" / "checkpoints"
    assert {"step-000003", "step-000006"} <= {f.name for f in kept.iterdir()}
    assert metrics["steps"] == 6
    published = dict(Policy.load(tmp_path / "out").named_parameters())
    assert furthest({k: v.detach() for k, v in published.items()}, parameters(stage)) == 0.0


@pytest.mark.parametrize("dies_at", [3, 5])
def test_a_run_that_was_killed_publishes_its_intermediate_models_too(dies_at: int, tmp_path: Path) -> None:
    settings = {"steps": 6, "save_every": 2, "checkpoint_every": 1}
    killed = stage_of("dpo", 100_000, **settings)
    killed.__class__ = Mortal
    killed.dies_at = dies_at  # type: ignore[attr-defined]
    with pytest.raises(Dies):
        train(killed, tmp_path)
    shutil.rmtree(tmp_path / "out")  # what the store does with the folder of a stage that failed
    train(stage_of("dpo", 100_000, **settings), tmp_path)
    assert {f.name for f in (tmp_path / "out" / "checkpoints").iterdir()} == {f"step-00000{k}" for k in range(1, 7)}


class Unvalidated(Fixed):
    """Nothing is held out."""

    def validation_batches(self) -> Sequence[Batch]:
        return []


def test_without_anything_held_out_the_last_model_is_published(tmp_path: Path) -> None:
    stage = stage_of("dpo", 100_000, steps=6, validate_every=2, patience=1)
    stage.__class__ = Unvalidated
    metrics = train(stage, tmp_path)
    assert metrics.keys() == {"train_loss", "steps", "best_step"} and metrics["steps"] == 6
    whole = stage_of("dpo", 100_000, steps=6)
    train(whole, tmp_path / "whole")
    assert furthest(parameters(stage), parameters(whole)) == 0.0


class Worsens(Fixed):
    """Validates worse and worse after the second time."""

    def validate_now(self) -> dict[str, float]:
        return {"loss": float(abs(self.steps_made - 4))}


def test_early_stopping_keeps_the_best_and_publishes_the_last_beside_it(tmp_path: Path) -> None:
    stage = stage_of("dpo", 100_000, steps=20, patience=2, validate_every=2)
    stage.__class__ = Worsens
    metrics = train(stage, tmp_path)
    assert (metrics["best_step"], metrics["steps"]) == (4, 8)
    assert [f.name for f in (tmp_path / "out" / "checkpoints").iterdir()] == ["last"]


def test_a_run_killed_after_it_has_stopped_early_trains_no_further(tmp_path: Path) -> None:
    stage = stage_of("dpo", 100_000, steps=20, patience=2, validate_every=2, save_every=1)
    stage.__class__ = Worsens
    metrics = train(stage, tmp_path)
    shutil.rmtree(tmp_path / "out")  # it died before it was published
    again = stage_of("dpo", 100_000, steps=20, patience=2, validate_every=2, save_every=1)
    again.__class__ = Worsens
    assert train(again, tmp_path) == metrics
    assert furthest(parameters(again), parameters(stage)) == 0.0


class Diverges(Fixed):
    """Its validation is not a number."""

    def validate_now(self) -> dict[str, float]:
        return {"loss": math.nan}


def test_a_validation_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    stage = stage_of("dpo", 100_000, steps=4, validate_every=2)
    stage.__class__ = Diverges
    with pytest.raises(NonFiniteError, match=r"validation at step 2 found .*nothing is published"):
        train(stage, tmp_path)
    assert not (tmp_path / "work" / "last.ckpt").exists()


def test_a_damaged_checkpoint_is_set_aside_and_the_stage_starts_again(tmp_path: Path) -> None:
    whole = stage_of("dpo", 60, steps=6)
    train(whole, tmp_path / "whole")
    killed = stage_of("dpo", 60, steps=6, save_every=2)
    killed.__class__ = Mortal
    killed.dies_at = 5  # type: ignore[attr-defined]
    with pytest.raises(Dies):
        train(killed, tmp_path / "killed")
    checkpoint = tmp_path / "killed" / "work" / "last.ckpt"
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)
    resumed = stage_of("dpo", 60, steps=6, save_every=2)
    train(resumed, tmp_path / "killed")
    assert furthest(parameters(resumed), parameters(whole)) == 0.0
    assert (tmp_path / "killed" / "work" / "last.damaged").is_file()


# ---- stopping -------------------------------------------------------------------------------------------------------
class Signalled(Fixed):
    """Somebody wants it to stop while the batch of step 3 is made."""

    signal: int = 0

    def batch_at(self, step: int) -> Batch:
        if step == 3:
            os.kill(os.getpid(), self.signal)
        return super().batch_at(step)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_asked_to_stop_it_ends_the_step_saves_and_goes_on_from_there(number: int, code: int, tmp_path: Path) -> None:
    whole = stage_of("dpo", 60, steps=6)
    train(whole, tmp_path / "whole")
    stage = stage_of("dpo", 60, steps=6)
    stage.__class__ = Signalled
    stage.signal = number  # type: ignore[attr-defined]
    with stopping.heard(), pytest.raises(Preempted) as stopped:
        train(stage, tmp_path / "stopped")
    assert stopped.value.code == code
    kept = torch.load(tmp_path / "stopped" / "work" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 4, "the step at hand was finished"
    resumed = stage_of("dpo", 60, steps=6)
    train(resumed, tmp_path / "stopped")
    assert furthest(parameters(resumed), parameters(whole)) == 0.0
    assert signal.getsignal(number) is not signal.SIG_IGN


class StoppedWhileSaving(Fixed):
    """Gets the signal while its resumable checkpoint of step 3 is written."""

    def state(self) -> dict[str, Any]:
        if self.steps_made == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().state()


def test_asked_to_stop_while_a_checkpoint_is_written_it_is_preempted(tmp_path: Path) -> None:
    stage = stage_of("dpo", 60, steps=6, save_every=1)
    stage.__class__ = StoppedWhileSaving
    with stopping.heard(), pytest.raises(Preempted) as stopped:
        train(stage, tmp_path)
    assert stopped.value.code == 143
    assert torch.load(tmp_path / "work" / "last.ckpt", weights_only=True)["global_step"] == 4


class Handled(Fixed):
    """Notes who handles SIGTERM while it trains."""

    handlers: list[Any]

    def batch_at(self, step: int) -> Batch:
        self.handlers.append(signal.getsignal(signal.SIGTERM))
        return super().batch_at(step)


def test_lightning_handles_no_signals(tmp_path: Path) -> None:
    """Its own handler exchanges tensors between processes at any moment, so that they wait for each other for ever."""
    stage = stage_of("dpo", 60, steps=2)
    stage.__class__, stage.handlers = Handled, []
    with stopping.heard():
        train(stage, tmp_path)
    assert stage.handlers == [stopping._stop] * 2


# ---- cutting --------------------------------------------------------------------------------------------------------
def test_micro_batches_never_tear_a_pair_and_lose_nothing() -> None:
    batch = batch_of(PreferenceBatch, 3)
    parts = batch.micro_batches(40)
    assert len(parts) > 1
    assert all(p.num_sequences % 2 == 0 for p in parts)
    assert torch.equal(torch.cat([p.tokens for p in parts]), batch.tokens)
    assert torch.equal(torch.cat([p.reference_logp for p in parts]), batch.reference_logp)


def test_an_empty_batch_has_no_loss_and_no_gradient(tmp_path: Path) -> None:
    stage = stage_of("answer_nll", 100_000)
    stage.prepare({}, _context(tmp_path))
    empty = batch_of(TokenBatch, 1).select_units([])
    units = stage.objective.units(empty)
    loss = stage.objective(stage.token_stats(empty), empty).mean(units)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert float(units["loss"]) == 0.0
    grads = [p.grad for p in stage.policy.parameters() if p.grad is not None]
    assert all(float(g.abs().max()) == 0.0 for g in grads)
