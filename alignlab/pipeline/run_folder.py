"""The folder of one run: its configuration, its results, and how it ended.

`config.yaml` (resolved, secrets redacted), `manifest.json` (stages), `metrics.json` (flat, `"<stage>/<metric>"`),
`samples.jsonl` (the same prompts answered by each stage's model), `status.json`, `report.html`, and `stages/` (links to
the artifacts). All are brought up to date after every stage, so that a failure loses nothing.
"""

import contextlib
import datetime
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from alignlab.artifact import MANIFEST, METRICS, REPORT, SAMPLES, Artifact, fingerprint, write_json
from alignlab.durable import is_full
from alignlab.samples import write_samples

STATUS: Final = "status.json"
CONFIG: Final = "config.yaml"
STAGES: Final = "stages"
"""Links to the artifact of each stage: `stages/dpo` loads as a model, and can be the input of another run."""

_LONGEST: Final = 300
"""Characters of an entry of a status that is written on a full disk."""

Status = Literal["running", "completed", "pruned", "failed", "preempted"]
UNREADABLE: Final = "unreadable"
FINE: Final = ("completed", "pruned")
"""How a job may end without having failed; a pruned one was ended by its study."""


class RunFolder:
    """Writes one run's files.

    Args:
        path: the folder; made if need be.
        about: entries of the manifest for the whole run (name, seed, overrides, versions).
        marks: further entries of `status.json` (the sweep that the run belongs to).
    """

    def __init__(
        self, path: Path, about: Mapping[str, Any] | None = None, marks: Mapping[str, str | int] | None = None
    ) -> None:
        self.path = path
        self.about = dict(about or {})
        self.marks = dict(marks or {})
        self.metrics: dict[str, float] = {}
        self._stages: dict[str, dict[str, Any]] = {}
        self._answers: dict[tuple[str, str], dict[str, str]] = {}
        self._truths: dict[tuple[str, str], str] = {}
        self._started = _now()
        path.mkdir(parents=True, exist_ok=True)
        if (path / STATUS).is_file():
            self._clear()

    def _clear(self) -> None:
        """Remove what an earlier run has left in the folder, and nothing else: it may be somebody's working folder."""
        for name in (CONFIG, MANIFEST, METRICS, SAMPLES, REPORT):
            (self.path / name).unlink(missing_ok=True)
        links = self.path / STAGES
        if links.is_dir():
            for link in links.iterdir():
                if link.is_symlink():
                    link.unlink()
            with contextlib.suppress(OSError):  # something of the user's own is in there
                links.rmdir()

    def config(self, config: Mapping[str, Any]) -> None:
        """Write the resolved configuration (secrets already redacted)."""
        import yaml

        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        (self.path / CONFIG).write_text(text, encoding="utf-8")

    def status(self, status: Status, **more: str) -> None:
        """Write how the run stands, and which process it is."""
        times = {"started": self._started, "updated": _now()}
        process: dict[str, Any] = {"pid": os.getpid(), "host": socket.gethostname(), "began": began(os.getpid())}
        content = {"status": status, **times, **process, **self.marks, **more}
        try:
            write_json(self.path / STATUS, content)
        except OSError as error:
            if not is_full(error) or not (self.path / STATUS).is_file():
                raise
            _overwrite(self.path / STATUS, content)

    def add(self, name: str, artifact: Artifact, inputs: Mapping[str, str], seconds: float, cached: bool) -> None:
        """Take in a stage that is done.

        Args:
            name: of the stage.
            inputs: as configured.
            seconds: that it took in this run.
            cached: whether the store had it.
        """
        self._stages[name] = {
            "order": len(self._stages),
            "inputs": dict(inputs),
            "seconds": round(seconds, 3),
            "artifact": str(artifact.path),
            "artifact_from_here": _relative(artifact.path, self.path),
            "cached": cached,
            "fingerprint": artifact.fingerprint,
            "kind": artifact.kind,
            "stage": artifact.manifest.get("stage", ""),
            "reads": _reads(artifact.manifest),
        }
        owner = self._owner(name, artifact, inputs)
        for metric, value in artifact.metrics().items():
            free = f"{owner}/{metric}" not in self.metrics
            self.metrics[f"{owner if free else name}/{metric}"] = value
        self._add_answers(owner, artifact)
        if artifact.kind == "report" and (artifact.path / REPORT).is_file():
            shutil.copyfile(artifact.path / REPORT, self.path / REPORT)
        self._write()
        self._link(name, artifact)

    def _link(self, name: str, artifact: Artifact) -> None:
        """A link relative to the folder, so that run and store can be moved together and mounted elsewhere."""
        link = self.path / STAGES / name
        with contextlib.suppress(OSError):  # some file systems have no links
            link.parent.mkdir(exist_ok=True)
            if link.is_symlink():
                link.unlink()
            link.symlink_to(_relative(artifact.path, link.parent), target_is_directory=True)

    def _owner(self, name: str, artifact: Artifact, inputs: Mapping[str, str]) -> str:
        """The stage that metrics belong to: an evaluation's are filed under the stage whose policy it measured."""
        policy = inputs.get("policy", "")
        return policy if artifact.kind == "evaluation" and policy in self._stages else name

    def _add_answers(self, owner: str, artifact: Artifact) -> None:
        if artifact.kind != "evaluation":
            return
        for row in artifact.lines(SAMPLES):
            answers = self._answers.setdefault((str(row["prompt"]), str(row.get("kind", ""))), {})
            answers.setdefault(owner, str(row["answer"]))
            if "truth" in row:
                self._truths.setdefault((str(row["prompt"]), str(row.get("kind", ""))), str(row["truth"]))

    def _write(self) -> None:
        write_json(self.path / MANIFEST, {**self.about, "stages": self._stages})
        write_json(self.path / METRICS, self.metrics)
        rows = [self._answered(key, answers) for key, answers in self._answers.items()]
        write_samples(self.path, rows)

    def _answered(self, key: tuple[str, str], answers: Mapping[str, str]) -> dict[str, object]:
        """A prompt with its answers, and with the truth where an evaluation knows it."""
        truth = {"truth": self._truths[key]} if key in self._truths else {}
        return {"prompt": key[0], "kind": key[1], **truth, "answers": self._in_order(answers)}

    def _in_order(self, answers: Mapping[str, str]) -> dict[str, str]:
        """Answers in the order in which their models were made."""
        made = list(self._stages)
        return {name: answers[name] for name in sorted(answers, key=made.index)}


def _overwrite(file: Path, content: Mapping[str, Any]) -> None:
    """Write JSON over a small file, on a full disk: within the block that the file has already."""
    short = {k: v[:_LONGEST] if isinstance(v, str) else v for k, v in content.items()}
    with file.open("r+", encoding="utf-8") as stream:
        stream.write(json.dumps(short, indent=2, sort_keys=True) + "\n")
        stream.truncate()


def _reads(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Short digests of the code and the data that made an artifact, which no key of the configuration shows."""
    code, contents = manifest.get("code"), sorted(_contents(manifest.get("identity")))
    return {k: fingerprint(v)[:8] for k, v in (("code", code), ("data", contents)) if v}


def _contents(node: Any) -> Iterator[str]:
    """Digests of files in an identity."""
    for key, value in node.items() if isinstance(node, Mapping) else ():
        if key == "content" and isinstance(value, str):
            yield value
        for part in value if isinstance(value, list) else [value]:
            yield from _contents(part)


def _relative(path: Path, start: Path) -> str:
    """A path as seen from a folder, whatever links lead to either."""
    return os.path.relpath(path.resolve(), start.resolve())


def read_status(folder: Path) -> str:
    """How a run stands; `missing` without a record, `unreadable` where it is damaged, `dead` where its process ended
    without writing one."""
    found = status_of(folder)
    without = UNREADABLE if (folder / STATUS).is_file() else "missing"
    status = str(found.get("status", without))
    return "dead" if status == "running" and not is_alive(found) else status


def status_of(folder: Path) -> dict[str, Any]:
    """The content of `status.json`; empty where there is none, or none that can be read."""
    file = folder / STATUS
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # somebody's own file, or half of one after a power failure
        return {}
    return found if isinstance(found, dict) else {}


def damage_of(folder: Path) -> str:
    """Damage of the results of a completed run, in words; empty where they can be read."""
    for name in (MANIFEST, METRICS):
        try:
            content = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            return f"{folder / name} cannot be read ({error}), although the run has completed; run it again"
        if not isinstance(content, dict):
            return f"{folder / name} holds no JSON object, although the run has completed; run it again"
    return ""


def is_alive(status: Mapping[str, Any]) -> bool:
    """Whether the process that wrote a status may still run; one on another host may.

    A number that another process has by now is told by the time at which that one began.
    """
    if status.get("host", socket.gethostname()) != socket.gethostname():
        return True
    try:
        pid = int(status["pid"])
        os.kill(pid, 0)
    except PermissionError:  # somebody else's process
        return True
    except (KeyError, TypeError, ValueError, OverflowError, ProcessLookupError):
        return False
    now, then = began(pid), status.get("began")
    return now != ENDED and (None in (now, then) or now == then)


ENDED: Final = -1


def began(pid: int) -> int | None:
    """When a process began, in ticks since the machine did; `ENDED` if nobody has collected its end; None: unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return ENDED if fields[0] in "ZX" else int(fields[19])
    except (OSError, ValueError, IndexError):  # not Linux
        return None


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
