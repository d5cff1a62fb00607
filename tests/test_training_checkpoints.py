"""Resumable checkpoints: when they are written, that damage is found, and what is continued from then."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from training_cases import Dies, Mortal, parameters, stage_of, train
from training_runs import Heard, furthest, run_in

from alignlab.durable import is_full
from alignlab.errors import StoreError
from alignlab.training import Loop, sealed
from alignlab.training.cadence import FIRST, Cadence

HARMS: dict[str, Callable[[Path], object]] = {
    "has changed": lambda f: f.write_bytes(flipped(f.read_bytes())),
    "is cut short": lambda f: f.write_bytes(f.read_bytes()[:-100]),
    "is empty": lambda f: f.write_bytes(b""),
    "is missing": lambda f: f.unlink(),
}


def flipped(content: bytes) -> bytes:
    """The content with one bit in its middle changed."""
    found = bytearray(content)
    found[len(found) // 2] ^= 1
    return bytes(found)


def mortal(dies_at: int = 5, **loop: Any) -> Mortal:
    """Six steps of DPO, saved after each; its best weights are those of step 2 or later."""
    stage = stage_of("dpo", 60, **{"steps": 6, "validate_every": 2, "save_every": 1, **loop})
    stage.__class__ = Mortal
    assert isinstance(stage, Mortal)
    stage.dies_at = dies_at
    return stage


def killed_in(folder: Path, **loop: Any) -> Path:
    """The work folder of a run that died before step 5."""
    with pytest.raises(Dies):
        train(mortal(**loop), folder)
    return folder / "work"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """What the run learns that is left alone."""
    stage = mortal(dies_at=-1)
    train(stage, tmp_path_factory.mktemp("whole"))
    return parameters(stage)


def resumed(folder: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """What the run that continues has learnt, and its lines on where it continues."""
    stage = mortal(dies_at=-1)
    _, heard = run_in(folder, stage)
    return parameters(stage), [text for text in heard.said if "continues" in text or "starts again" in text]


# ---- files that tell whether they are whole --------------------------------------------------------------------------
@pytest.mark.parametrize("what", HARMS)
def test_damage_is_found(what: str, tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    sealed.write({"w": torch.arange(100.0)}, file, {"step": 3})
    assert sealed.damage(file) == "" and sealed.notes_of(file) == {"step": 3}
    assert torch.equal(torch.load(file, weights_only=True)["w"], torch.arange(100.0))
    HARMS[what](file)
    assert sealed.damage(file).startswith(what)


def test_on_a_full_disk_nothing_is_left_and_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        sealed.write({"w": torch.zeros(3)}, tmp_path / "x.pt", {})
    assert is_full(caught.value) and list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_torch_does_not_hide_that_the_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # the device stays
    with pytest.raises(OSError, match="No space left"):
        sealed.write({"w": torch.zeros(100_000)}, Path("/dev/full"), {})


def test_errors_of_libraries_are_known_to_be_of_a_full_disk() -> None:
    assert is_full(RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"))
    assert is_full(Exception("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert not is_full(OSError(errno.EACCES, "Permission denied")) and not is_full(ValueError("no space"))


# ---- the last two ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("what", HARMS)
def test_where_the_last_checkpoint_is_damaged_the_one_before_is_used(
    what: str, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    work = killed_in(tmp_path)
    assert (sealed.notes_of(work / "last.ckpt")["step"], sealed.notes_of(work / "previous.ckpt")["step"]) == (5, 4)
    HARMS[what](work / "last.ckpt")
    learnt, said = resumed(tmp_path)
    assert furthest(learnt, whole) == 0.0
    assert len(said) == 1 and what in said[0] and said[0].endswith("previous.ckpt, step 4")


def test_where_both_are_damaged_the_stage_starts_again(whole: dict[str, torch.Tensor], tmp_path: Path) -> None:
    work = killed_in(tmp_path)
    HARMS["has changed"](work / "last.ckpt")
    HARMS["is empty"](work / "previous.ckpt")
    learnt, said = resumed(tmp_path)
    assert furthest(learnt, whole) == 0.0
    assert len(said) == 1 and "has changed" in said[0] and "is empty" in said[0] and "starts again" in said[0]


def test_a_checkpoint_without_a_seal_is_of_an_older_version_and_the_stage_starts_again(
    whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    work = killed_in(tmp_path)
    (work / "previous.ckpt").unlink()
    torch.save(torch.load(work / "last.ckpt", weights_only=True), work / "last.ckpt")
    learnt, said = resumed(tmp_path)
    assert furthest(learnt, whole) == 0.0
    why = f"{work / 'last.ckpt'} has no digest: an older alignlab wrote it"
    assert said == [f"{why}; so the stage starts again, and what is not used is kept as *.damaged"]


@pytest.mark.parametrize("what", HARMS)
def test_damaged_best_weights_are_never_published(what: str, whole: dict[str, torch.Tensor], tmp_path: Path) -> None:
    work = killed_in(tmp_path)
    best = sealed.notes_of(work / "last.ckpt")["best_step"]
    HARMS[what](work / f"best-{best:06d}.pt")
    learnt, said = resumed(tmp_path)
    assert furthest(learnt, whole) == 0.0
    assert len(said) == 1 and f"best-{best:06d}.pt" in said[0] and what in said[0]


def test_best_weights_that_are_damaged_when_they_are_to_be_published_are_made_again(
    whole: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alignlab.training.keeper import Keeper

    def harmed(self: Keeper, *_: Any) -> None:
        for file in (tmp_path / "work").glob("best-*.pt"):
            file.write_bytes(flipped(file.read_bytes()))

    class Worse(Mortal):
        def validate_now(self) -> dict[str, float]:
            return {"loss": float(self.steps_made)}

    def make() -> Mortal:
        stage = mortal(dies_at=-1)
        stage.__class__ = Worse
        return stage

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "on_train_end", harmed)
        with pytest.raises(StoreError, match=r"the best weights, has changed .*nothing is published"):
            train(make(), tmp_path)
    again, alone = make(), make()
    train(again, tmp_path)
    train(alone, tmp_path / "alone")
    assert furthest(parameters(again), parameters(alone)) == 0.0


def test_what_a_killed_process_had_begun_to_write_is_removed(tmp_path: Path) -> None:
    work = killed_in(tmp_path)
    for name in ("last.ckpt.new", "previous.ckpt.new", "best-000009.pt.new"):
        (work / name).write_bytes(bytes(1000))
    resumed(tmp_path)
    assert not list(work.glob("*.new"))


def test_a_checkpoint_is_the_same_file_system_s_own_wherever_the_temp_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is staged in `$TMPDIR`, which may be another file system, full, or not there."""
    import tempfile

    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    work = killed_in(tmp_path)
    assert sealed.damage(work / "last.ckpt") == ""


# ---- when ------------------------------------------------------------------------------------------------------------
class Clock:
    """Seconds that a test sets."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_share_of_the_time_is_saved_for_and_no_more() -> None:
    """Steps of 1 s, saves of 3 s, 2 %: the first after 10 s, where it is taken to last 0.2 s; then every 150 s."""
    clock, saves = Clock(), list[float]()
    cadence = Cadence("2%", clock)
    for step in range(1, 600):
        clock.now += 1.0
        if cadence.is_due(step):
            saves.append(clock.now)
            clock.now += 3.0
            cadence.saved(3.0)
    assert FIRST == 0.2 and saves[:3] == [10.0, 163.0, 316.0]


def test_by_time_and_by_steps() -> None:
    clock = Clock()
    cadence = Cadence("10min", clock)
    clock.now = 599.0
    assert not cadence.is_due(5)
    clock.now = 600.0
    assert cadence.is_due(6)
    cadence.saved(5.0)
    assert not cadence.is_due(7)
    assert [k for k in range(1, 8) if Cadence(3).is_due(k)] == [3, 6]


@pytest.mark.parametrize("value", [1, 48, "2%", "0.5%", "90s", "10min", "2h"])
def test_what_save_every_takes(value: int | str) -> None:
    assert Loop(steps=1, batch_size=1, save_every=value).save_every == value


@pytest.mark.parametrize("value", [0, -1, True, "0%", "100%", "often", "10", "0s", ""])
def test_what_save_every_refuses(value: Any) -> None:
    with pytest.raises(ValueError, match=r"Loop: save_every must be a number of steps .*got "):
        Loop(steps=1, batch_size=1, save_every=value)


@pytest.mark.parametrize("save_every", ["50%", "1s"])
def test_when_it_is_saved_changes_no_bits(save_every: str, whole: dict[str, torch.Tensor], tmp_path: Path) -> None:
    stage = mortal(dies_at=-1, save_every=save_every)
    train(stage, tmp_path)
    assert furthest(parameters(stage), whole) == 0.0


def test_nothing_is_said_where_a_stage_begins(tmp_path: Path) -> None:
    heard: Heard
    _, heard = run_in(tmp_path, mortal(dies_at=-1))
    assert not [text for text in heard.said if "again" in text or "continues" in text]
