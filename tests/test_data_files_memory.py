"""Memory of a run does not grow with its data; `python tests/test_data_files_memory.py 2000 FOLDER` takes 2000 MB."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

MEGABYTES = 300
"""Of text; a fifth of it as instructions."""
COMMON = [
    "tracking=off",
    "runtime=cpu",
    "data=files",
    "data.validation_fraction=0.01",
    "model=tiny",
    "model.context=128",
    "tokenizer=bpe",
    "stage.loop.steps=5",
]


def paragraphs(megabytes: float) -> Iterator[str]:
    """Text of so many megabytes, no two paragraphs of it alike."""
    draw = Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(20000)]
    block = [" ".join(draw.choices(words, k=14)) for _ in range(5000)]
    size = number = 0
    while size < megabytes * 2**20:
        text = "\n".join((f"{number:x}", *draw.choices(block, k=6))) + "\n\n"
        size, number = size + len(text), number + 1
        yield text


def corpus(path: Path, megabytes: float) -> str:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(paragraphs(megabytes))
    return f"data.corpus={path}"


def instructions(path: Path, megabytes: float) -> str:
    with path.open("w", encoding="utf-8") as file:
        for text in paragraphs(megabytes):
            file.write(json.dumps({"instruction": text[:100], "output": text[100:200]}) + "\n")
    return f"data.instructions={path}"


def peak(folder: Path, *words: str) -> float:
    """Megabytes of private memory of a run, all its processes together, at the most.

    Private is what the kernel could not take back without swapping (`RssAnon` and `VmSwap`): pages of mapped files are
    not, whichever process reads them.
    """
    command = [sys.executable, "-m", "alignlab", "experiment=train", *COMMON, *words, f"store_dir={folder / 'store'}"]
    most, log = 0, folder / "log"
    with log.open("w") as said:
        process = subprocess.Popen([*command, f"hydra.run.dir={folder / 'run'}"], stdout=said, stderr=said)
        while process.poll() is None:
            most = max(most, sum(map(private, family(process.pid))))
            time.sleep(0.05)
    assert process.returncode == 0, log.read_text()
    return most / 1024


def family(process: int) -> list[int]:
    """A process and all that it started."""
    try:
        own = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [process, *(p for child in own for p in family(int(child)))]


def private(process: int) -> int:
    """Kilobytes of a process that are its own."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "VmSwap")))


def measured(folder: Path, megabytes: float) -> dict[str, float]:
    """Peaks of pretraining and fine-tuning on little data and on much, in megabytes."""
    found = {}
    for size, name in ((1.0, "small"), (megabytes, "large")):
        place = folder / name
        place.mkdir()
        found[f"{name}/pretrain"] = peak(place, "stage=pretrain", corpus(place / "c.txt", size))
        policy = json.loads((place / "run" / "manifest.json").read_text())["stages"]["pretrain"]["artifact"]
        given = instructions(place / "a.jsonl", size / 5 if size > 1 else size)
        tuning = ("stage=sft", "stage.replay=0", f"stage.inputs.policy={policy}")
        found[f"{name}/sft"] = peak(place, *tuning, given)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures by /proc")
def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    found = measured(tmp_path, MEGABYTES)
    assert max(found.values()) < 1000, found
    assert found["large/pretrain"] - found["small/pretrain"] < 400, found
    assert found["large/sft"] - found["small/sft"] < 300, found


if __name__ == "__main__":
    os.chdir(where := Path(sys.argv[2] if len(sys.argv) > 2 else "."))
    print(json.dumps(measured(where.absolute(), float(sys.argv[1])), indent=2))
