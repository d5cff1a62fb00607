"""Kill a small lifecycle at random moments until it completes, and compare it with one that was left alone.

`python experiments/faults/run.py FOLDER [FIRST LAST]` does rounds FIRST to LAST - 1 (0 to 17 by default) in a scratch
folder and adds to results.csv; a round that is there already is left out. Without an argument it prints the tables of
README.md. A round's number is its seed: it decides the place of its files, the kind of every kill, and its moment.

The process that runs this imports everything, computes nothing, and forks one process for each attempt, so that an
attempt does not wait for imports; kills of kind "command" start `python -m alignlab` as a user does.
"""

import contextlib
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignlab.artifact import MANIFEST, Artifact
from alignlab.digests import digest_of_file
from alignlab.testing.kills import Moment, arm

HERE = Path(__file__).parent
RESULTS = HERE / "results.csv"
FIELDS = ("round", "place", "attempt", "kind", "moment", "ended", "published", "wrong", "commit")
PLACES = ("plain", "temp elsewhere", "temp full", "clock jumps", "small disk", "plain")
"""Where a round's files and clock are; "temp elsewhere" is another file system than the store's."""
SHM = Path("/dev/shm")
MOMENTS = {"step": 18, "checkpoint": 1200, "publication": 24, "file": 300}
"""Kinds of kill that are counted, and below which moment one is drawn."""
ROOM = 1_200_000
"""Bytes that are free at most on a disk that is about to fill up."""
VOLATILE = ("seconds", "tokens_per_second", "peak_memory_mb")
ONCE = ("files", "created", "host", "pid", "git", "started", "seconds")
STEPS = {"pretrain": 12, "sft": 10, "reward_model": 8, "dpo": 6}
ARGUMENTS = [
    "experiment=smoke",
    *[f"~pipeline.{name}" for name in ("report", "evaluate_pretrain", "evaluate_sft", "evaluate_dpo")],
    "model.width=32",
    "model.feedforward=64",
    "model.dropout=0.1",
    "data.training_documents=120",
    "data.training_instructions=60",
    "pipeline.label.pairs=24",
    "pipeline.label.validation_pairs=8",
    *[f"pipeline.{name}.loop.steps={steps}" for name, steps in STEPS.items()],
    *[f"pipeline.{name}.loop.validate_every=2" for name in STEPS],
    *[f"pipeline.{name}.loop.patience=3" for name in STEPS],
    *[f"pipeline.{name}.loop.keep=best" for name in STEPS],
    *[f"pipeline.{name}.loop.save_every=1" for name in ("pretrain", "sft", "dpo", "ppo")],
    "pipeline.reward_model.loop.save_every=20%",
    *[f"pipeline.{name}.loop.micro_batch_tokens=128" for name in (*STEPS, "ppo")],
    *[f"pipeline.{name}.optimizer.schedule.warmup_steps=3" for name in (*STEPS, "ppo")],
    "pipeline.pretrain.loop.ema=0.9",
    "pipeline.sft.loop.checkpoint_every=4",
    "pipeline.ppo.loop.validate_every=4",
    "pipeline.ppo.loop.batch_size=8",
    "runtime.threads=1",
]


@dataclass
class Round:
    """One lifecycle, killed until it is complete.

    Args:
        number: seed of everything random.
        folder: of its files.
        wanted: content of every file of the lifecycle that was left alone.
        commit: of the code that runs.
    """

    number: int
    folder: Path
    wanted: Mapping[str, str]
    commit: str = ""
    rows: list[dict[str, object]] = field(default_factory=list)
    seen: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Where it runs."""
        return PLACES[self.number % len(PLACES)]

    def run(self) -> list[dict[str, object]]:
        """A row per attempt."""
        draw = random.Random(self.number)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        with contextlib.ExitStack() as stack:
            disk = stack.enter_context(small_disk(self.folder / "disk")) if self.place == "small disk" else self.folder
            temp = stack.enter_context(temp_folder(self.place, self.number))
            for attempt in range(200):
                kind = draw.choice(
                    [*["full"] * 5, *MOMENTS, "anytime"] if disk != self.folder else [*MOMENTS, "anytime"]
                )
                kind = "command" if kind == "anytime" and draw.random() < 0.2 else kind
                number = draw.randrange(MOMENTS.get(kind, 4000))
                ended = self.attempt(disk, temp, kind, number)
                wrong = [*self.lost(disk), *self.unclear(disk, kind, ended)]
                if ended == "completed":
                    wrong += self.differences(disk) + debris(disk, temp)
                found = (ended, len(self.seen), "; ".join(wrong))
                row = (self.number, self.place, attempt, kind, number, *found, self.commit)
                self.rows.append(dict(zip(FIELDS, row, strict=True)))
                print(*row, flush=True)
                if ended == "completed":
                    break
        shutil.rmtree(self.folder, ignore_errors=True)
        return self.rows

    def attempt(self, disk: Path, temp: Path, kind: str, number: int) -> str:
        """How one process ended: killed, full (of a full disk), completed, or failed."""
        with ballast(disk, number if kind == "full" else None), (self.folder / "log").open("w") as log:
            if kind == "command":
                return ended(command(disk, temp, number / 500 + 2.5, log))
            process = os.fork()
            if not process:
                self.child(disk, temp, Moment(kind, number) if kind in MOMENTS else None, log)  # type: ignore[arg-type]
            if kind == "anytime":
                time.sleep(0.3 + number / 1000)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        text = (self.folder / "log").read_text()
        is_full = code == 1 and any(words in text for words in ("the disk is full", "No space left on device"))
        return "full" if kind == "full" and is_full else ended(code)

    def child(self, disk: Path, temp: Path, moment: Moment | None, log: Any) -> None:
        """Run the command in this process, which has just been forked."""
        code = 70
        try:
            for stream in (1, 2):
                os.dup2(log.fileno(), stream)
            os.environ["TMPDIR"] = str(temp)
            if self.place == "clock jumps":
                jumping(self.number)
            arm(moment, disk)
            from alignlab.cli.app import main

            code = main(arguments(disk))
        finally:
            sys.stdout.flush()
            os._exit(code)

    def lost(self, disk: Path) -> list[str]:
        """Artifacts that were published before this attempt and are not what they were."""
        now = published(disk / "store")
        gone = [name for name, digest in self.seen.items() if now.get(name) != digest]
        self.seen = now
        return [f"lost {name}" for name in gone]

    def unclear(self, disk: Path, kind: str, ended: str) -> list[str]:
        """What a user could not make sense of after an attempt that was not killed."""
        if ended == "killed":
            return []
        text = (self.folder / "log").read_text()
        status = disk / "run" / "status.json"
        found = json.loads(status.read_text())["status"] if status.is_file() else "none"
        wrong = ["a traceback"] if "Traceback" in text else []
        wrong += [f"status {found}"] if found != {"full": "failed"}.get(ended, ended) and ended != "full" else []
        wrong += ["status running"] if found == "running" else []
        if wrong:
            (HERE / f"wrong-{self.number}.log").write_text(text)
        return wrong

    def differences(self, disk: Path) -> list[str]:
        """Files that are not what they are in the lifecycle that was left alone."""
        found = content(disk)
        return [
            f"{name} differs" for name in sorted({*found, *self.wanted}) if found.get(name) != self.wanted.get(name)
        ]


def arguments(folder: Path) -> list[str]:
    """The command's, with all files below a folder."""
    return [*ARGUMENTS, f"store_dir={folder / 'store'}", f"hydra.run.dir={folder / 'run'}"]


def command(disk: Path, temp: Path, seconds: float, log: Any) -> int:
    """The command, started as a user does and killed after some time; its exit code."""
    words = [sys.executable, "-m", "alignlab", *arguments(disk)]
    process = subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, "TMPDIR": str(temp)})
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.kill()
    return process.wait()


def ended(code: int) -> str:
    """How a process ended, in a word."""
    return {0: "completed", -signal.SIGKILL: "killed"}.get(code, f"failed with {code}")


# ---- places ----------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A small file system in memory; needs root.

    Raises:
        PermissionError: it may not be mounted here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    made = subprocess.run(words, capture_output=True, text=True, check=False)
    if made.returncode:
        raise PermissionError(f"no small disk can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def small_disk(folder: Path) -> contextlib.AbstractContextManager[Path]:
    """Room for one lifecycle and a little more."""
    return mounted(folder, "24m")


@contextlib.contextmanager
def temp_folder(place: str, number: int) -> Iterator[Path]:
    """`$TMPDIR` of a round: on another file system than the store, full, or beside it."""
    folder = SHM / f"faults-{os.getpid()}-{number}"
    with contextlib.ExitStack() as stack:
        if place == "temp full":
            stack.enter_context(mounted(folder, "64k"))
            with contextlib.suppress(OSError), (folder / "ballast").open("wb", buffering=0) as stream:
                stream.write(bytes(1 << 20))
        else:
            folder.mkdir()
        try:
            yield folder
        finally:
            stack.close()
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def ballast(disk: Path, number: int | None) -> Iterator[None]:
    """Fill a disk so that some hundred kilobytes are left; None leaves it as it is."""
    file = disk / "ballast"
    if number is not None:
        free = shutil.disk_usage(disk).free
        file.write_bytes(bytes(max(0, free - number * ROOM // 4000)))
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def jumping(seed: int) -> None:
    """Let the clock jump, by up to three days in either direction, at every hundredth look."""
    draw, real, looks, ahead = random.Random(seed), time.time, 0, 0.0

    def jumps() -> float:
        nonlocal looks, ahead
        looks += 1
        if looks % 100 == 1:
            ahead = draw.uniform(-3, 3) * 86_400
        return real() + ahead

    time.time = jumps
    time.time_ns = lambda: int(jumps() * 1e9)


# ---- what is there ---------------------------------------------------------------------------------------------------
def published(store: Path) -> dict[str, str]:
    """Every artifact of a store, with the digest of its manifest; each is verified."""
    folders = [f for f in (store / "objects").glob("*") if not f.name.startswith(".")]
    for folder in folders:
        Artifact.open(folder)
    return {folder.name: digest_of_file(folder / MANIFEST) for folder in folders}


def content(folder: Path) -> dict[str, str]:
    """Digest of every file of the artifacts of a run and of its metrics, without what measures the machine."""
    stages = json.loads((folder / "run" / MANIFEST).read_text())["stages"]
    places = {name: Path(entry["artifact"]) for name, entry in stages.items()}
    files = {f"{n}/{f.relative_to(p)}": f for n, p in places.items() for f in p.rglob("*") if f.is_file()}
    files |= {f"run/{name}": folder / "run" / name for name in ("metrics.json", "samples.jsonl")}
    return {name: json.dumps(steady(file)) for name, file in files.items()}


def steady(file: Path) -> object:
    """A file's digest, or its JSON without what measures the machine or happens once."""
    if file.suffix not in (".json", ".jsonl"):
        return digest_of_file(file)
    text = file.read_text(encoding="utf-8")
    return [_plain(json.loads(part)) for part in (text.splitlines() if file.suffix == ".jsonl" else [text])]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in sorted(value.items()) if not k.endswith(VOLATILE) and k not in ONCE}
    return [_plain(v) for v in value] if isinstance(value, list) else value


def debris(disk: Path, temp: Path) -> list[str]:
    """What killed processes have left in the store or in `$TMPDIR`."""
    left = [*(disk / "store" / "work").iterdir(), *(disk / "store" / "objects").glob(".*")]
    left += [f for f in temp.rglob("*") if f.is_file() and f.name != "ballast" and f.stat().st_size > 10_000]
    return [f"left {path.name}" for path in left]


# ---- the whole -------------------------------------------------------------------------------------------------------
def left_alone(folder: Path) -> dict[str, str]:
    """Content of the lifecycle that nothing disturbs; made once in a scratch folder."""
    kept = folder / "whole.json"
    if not kept.is_file():
        shutil.rmtree(folder / "whole", ignore_errors=True)
        (folder / "whole").mkdir(parents=True)
        alone = Round(0, folder / "whole", {})
        ended = alone.attempt(folder / "whole", SHM, "none", 0)
        assert ended == "completed", (folder / "whole" / "log").read_text()
        kept.write_text(json.dumps(content(folder / "whole")))
    return dict(json.loads(kept.read_text()))


def load() -> list[dict[str, str]]:
    """The rows of results.csv."""
    if not RESULTS.is_file():
        return []
    with RESULTS.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def write(rows: list[dict[str, object]]) -> None:
    """Add rows to results.csv."""
    is_new = not RESULTS.is_file()
    with RESULTS.open("a", encoding="utf-8", newline="") as stream:
        out = csv.DictWriter(stream, FIELDS, lineterminator="\n")
        if is_new:
            out.writeheader()
        out.writerows(rows)


KINDS = {
    "step": "at an optimizer step",
    "checkpoint": "while a checkpoint was written",
    "publication": "while an artifact was published",
    "file": "at any other file",
    "anytime": "after a random time",
    "command": "the same, of `python -m alignlab`",
    "full": "the disk filled up (no kill)",
}


def table(rows: list[dict[str, str]]) -> str:
    """Markdown table: how often each kind of fault struck, by the place of the files."""
    places = list(dict.fromkeys(PLACES))
    lines = [f"| fault | {' | '.join(places)} | all |", "|---" * (len(places) + 2) + "|"]
    struck = [r for r in rows if r["ended"] in ("killed", "full")]
    for kind, words in KINDS.items():
        counts = [sum(r["kind"] == kind and r["place"] == place for r in struck) for place in places]
        lines.append(f"| {words} | {' | '.join(map(str, counts))} | {sum(counts)} |")
    done = [[r for r in rows if r["ended"] == "completed" and r["place"] == place] for place in places]
    lines.append(f"| rounds completed | {' | '.join(str(len(d)) for d in done)} | {sum(map(len, done))} |")
    same = [sum(not r["wrong"] for r in d) for d in done]
    lines.append(f"| of these, the same bits | {' | '.join(map(str, same))} | {sum(same)} |")
    return "\n".join(lines)


def commits(rows: list[dict[str, str]]) -> str:
    """Markdown table: what was tried of which commit."""
    lines = ["| commit | kills | full disks | rounds | not the same bits, lost, left or unclear |", "|---" * 5 + "|"]
    for commit in dict.fromkeys(r["commit"] for r in rows):
        own = [r for r in rows if r["commit"] == commit]
        killed, full = (sum(r["ended"] == how for r in own) for how in ("killed", "full"))
        rounds, wrong = len({r["round"] for r in own}), sum(bool(r["wrong"]) for r in own)
        lines.append(f"| {commit} | {killed} | {full} | {rounds} | {wrong} |")
    return "\n".join(lines)


def main() -> None:
    if len(sys.argv) < 2:
        print(table(load()), commits(load()), sep="\n\n")
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import pytorch_lightning  # noqa: F401  # all that is slow to import, before anything forks
    import transformers  # noqa: F401

    import alignlab.cli.launch
    import alignlab.pipeline.runner
    import alignlab.training.fit  # noqa: F401

    folder = Path(sys.argv[1]).absolute()
    first, last = (int(n) for n in (sys.argv[2:4] or ("0", "18")))
    commit = subprocess.check_output(["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"], text=True).strip()
    wanted, done = left_alone(folder), {int(r["round"]) for r in load()}
    for number in (n for n in range(first, last) if n not in done):
        try:
            write(Round(number, folder / f"round-{number}", wanted, commit).run())
        except PermissionError as error:
            print(f"round {number} is left out: {error}")


if __name__ == "__main__":
    main()
