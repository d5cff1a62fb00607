"""The jobs of one sweep, as files below the sweep's folder, because a launcher may run them in other processes."""

import json
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

from alignlab import stopping
from alignlab.artifact import write_json
from alignlab.errors import PipelineError, Preempted
from alignlab.pipeline.run_folder import damage_of, read_status, status_of
from alignlab.sanitize import redact

JOBS: Final = ".jobs"
"""Holds one folder of records for each sweep that used the sweep's folder."""
STOP: Final = "stop.json"
ABOUT: Final = "sweep.json"
LOOK: Final = 1.0
"""Seconds between two looks of a job in another process at whether the sweep was asked to stop."""


@dataclass(frozen=True)
class Sweep:
    """One sweep.

    Args:
        folder: of the whole sweep; jobs have folders of their own, anywhere.
        process: that started the sweep, and whose exit code counts.
        id: tells it from other sweeps in the same folder.
        began: seconds since 1970.
    """

    folder: Path
    process: int = field(default_factory=os.getpid)
    id: str = field(default_factory=lambda: secrets.token_hex(4))
    began: float = field(default_factory=time.time)

    @property
    def records(self) -> Path:
        """Folder of the records."""
        return self.folder / JOBS / self.id

    @property
    def is_here(self) -> bool:
        """Whether this is the process that started the sweep."""
        return os.getpid() == self.process

    def note(self, overrides: Sequence[str]) -> None:
        """Write down what was asked for, so that the sweep can be found again by it."""
        process = {"pid": self.process, "host": socket.gethostname()}
        self.add_note(overrides=list(overrides), began=self.began, **process)

    def add_note(self, **more: Any) -> None:
        """Write down more about the sweep."""
        self.records.mkdir(parents=True, exist_ok=True)
        write_json(self.records / ABOUT, {**self.about, **more})

    def others(self) -> "list[Sweep]":
        """Other sweeps that have used the same folder, the oldest first."""
        found = [Sweep(self.folder, id=records.name) for records in (self.folder / JOBS).glob("*/")]
        return sorted(
            (sweep for sweep in found if sweep.id != self.id), key=lambda sweep: sweep.about.get("began", 0.0)
        )

    @property
    def about(self) -> dict[str, Any]:
        """Notes on the sweep, as `note` has made them."""
        return _read(self.records / ABOUT)

    # ---- jobs -----------------------------------------------------------------------------------------------------
    def expect(self, number: int, folder: Path, overrides: Sequence[str], **more: Any) -> None:
        """Record a job before it begins, so that one which never begins is missed at the end.

        Args:
            number: within the sweep.
            folder: of the job.
            overrides: of this job alone, without secrets.
            more: `computes`, a digest of what it computes; `reads`, those of its code and data; `sweep`, an earlier one
                in which it has completed.
        """
        self.records.mkdir(parents=True, exist_ok=True)
        about = {"job": number, "folder": self._relative(folder), "overrides": list(overrides)}
        write_json(self._record(number), {**about, **more})

    def register(self, number: int, folder: Path, overrides: Sequence[str]) -> None:
        """Record that a job begins.

        Raises:
            PipelineError: another job of this sweep has the same folder.
        """
        before = status_of(folder)
        if before.get("sweep") == self.id and before.get("job") != number:
            raise PipelineError(
                f"job {number} has the folder of job {before.get('job')}, {folder}; let hydra.sweep.subdir hold what "
                f"the jobs differ in, such as ${{hydra.job.num}}"
            )
        self.records.mkdir(parents=True, exist_ok=True)
        (self.folder / "multirun.yaml").unlink(missing_ok=True)  # Hydra's, with whatever secrets were typed
        about = {"job": number, "folder": self._relative(folder), "overrides": list(overrides)}
        process = {"pid": os.getpid(), "host": socket.gethostname()}
        write_json(self._record(number), {**_read(self._record(number)), **about, **process})

    def fail(self, number: int, error: str, overrides: Sequence[str]) -> None:
        """Record why a job did not complete, where its own `status.json` cannot say it."""
        self.records.mkdir(parents=True, exist_ok=True)
        record = {"job": number, "folder": "", "overrides": list(overrides), **_read(self._record(number))}
        write_json(self._record(number), {**record, "error": redact(error)})

    def marks(self, number: int) -> dict[str, str | int]:
        """Entries of a job's `status.json`."""
        return {"sweep": self.id, "job": number}

    def job(self, number: int) -> dict[str, Any]:
        """A job's record, with its `status`, and its `error` where it failed."""
        return self._standing({"job": number, "folder": "", "overrides": [], **_read(self._record(number))})

    def jobs(self) -> list[dict[str, Any]]:
        """The records of all jobs, in the order of their numbers."""
        files = [f for f in self.records.glob("*.json") if f.stem.isdigit()] if self.records.is_dir() else []
        return [self.job(number) for number in sorted(int(f.stem) for f in files)]

    def _record(self, number: int) -> Path:
        return self.records / f"{number}.json"

    def has(self, number: int) -> bool:
        """Whether a job's record is there; somebody may have removed the folder meanwhile."""
        return self._record(number).is_file()

    def _relative(self, folder: Path) -> str:
        """A job's folder as seen from the sweep's, so that they can be moved together."""
        return os.path.relpath(folder, self.folder)

    def _standing(self, record: dict[str, Any]) -> dict[str, Any]:
        """A record with the job's status: of the job itself, not of another one that used its folder before."""
        if record["folder"]:
            record = {**record, "folder": os.path.normpath(self.folder / record["folder"])}
        folder = Path(record["folder"])
        found = status_of(folder) if record["folder"] else {}
        is_own = found.get("sweep") == record.get("sweep", self.id) and found.get("job") == record["job"]
        if not is_own:
            return {**record, "status": "failed" if "error" in record or "pid" in record else "not run"}
        status = read_status(folder)
        if status == "completed" and (damage := damage_of(folder)):
            return {**record, "status": "failed", "error": damage}
        error = found.get("error") if status == "failed" else None
        lost = f"process {found.get('pid')} on {found.get('host')} ended without a word: killed, or out of memory"
        why = error or record.get("error") or (lost if status == "dead" else "")
        return {**record, "status": status, **({"error": str(why)} if why and status != "completed" else {})}

    # ---- stopping -------------------------------------------------------------------------------------------------
    def stop(self, error: Preempted) -> None:
        """Let no further job begin, and ask those that run in other processes to save their work and end."""
        self.records.mkdir(parents=True, exist_ok=True)
        write_json(self.records / STOP, {"reason": str(error), "code": error.code})

    def stopped(self) -> Preempted | None:
        """The request to stop, if there was one."""
        found = _read(self.records / STOP)
        return Preempted(found["reason"], found["code"]) if found else None

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """While the jobs run in other processes, let a first request to stop end them as it would end one job.

        Raises:
            Preempted: at the end, after the jobs have saved their work.
        """
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        # What is ignored on purpose (nohup) stays ignored.
        heeded = [n for n in numbers if signal.getsignal(n) not in (signal.SIG_IGN, None)]
        before = {number: signal.signal(number, self._asked) for number in heeded}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if error := self.stopped():
            raise error

    def _asked(self, number: int, _: FrameType | None) -> None:
        code = 128 + number
        if self.stopped() is not None:
            raise Preempted("asked to stop twice; jobs that were still saving were ended", code)
        self.stop(
            Preempted("the sweep was asked to stop; what is done is kept, and the same command continues it", code)
        )

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Context of a job in another process, maybe on another machine: a request to stop the sweep reaches it."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(LOOK):
                if self.stopped() is not None:
                    return ask()

        threading.Thread(target=look, daemon=True).start()
        try:
            yield
        finally:
            over.set()


def ask() -> None:
    """Ask this process to save its work and end, unless it was asked already: a second request ends it at once."""
    if stopping.requested() is None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def _read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
