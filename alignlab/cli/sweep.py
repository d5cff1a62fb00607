"""The jobs of one sweep, as files below the sweep's folder, because a launcher may run them in other processes."""

import json
import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

from alignlab.artifact import write_json
from alignlab.errors import PipelineError, Preempted
from alignlab.pipeline.run_folder import read_status, status_of

JOBS: Final = ".jobs"
"""Holds one folder of records for each sweep that used the sweep's folder."""
STOP: Final = "stop.json"


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

    # ---- jobs -----------------------------------------------------------------------------------------------------
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
        about = {"job": number, "folder": str(folder), "overrides": list(overrides)}
        write_json(self.records / f"{number}.json", {**about, "pid": os.getpid(), "host": socket.gethostname()})

    def marks(self, number: int) -> dict[str, str | int]:
        """Entries of a job's `status.json`."""
        return {"sweep": self.id, "job": number}

    def jobs(self) -> list[dict[str, Any]]:
        """The records in the order of their numbers, each with its `status`."""
        files = [f for f in self.records.glob("*.json") if f.stem.isdigit()] if self.records.is_dir() else []
        found = [json.loads(f.read_text(encoding="utf-8")) for f in sorted(files, key=lambda f: int(f.stem))]
        return [{**record, "status": self._status(record)} for record in found]

    def _status(self, record: dict[str, Any]) -> str:
        folder = Path(record["folder"])
        found = status_of(folder)
        is_own = found.get("sweep") == self.id and found.get("job") == record["job"]
        return read_status(folder) if is_own else "failed"

    # ---- stopping -------------------------------------------------------------------------------------------------
    def stop(self, error: Preempted) -> None:
        """Let no further job begin."""
        self.records.mkdir(parents=True, exist_ok=True)
        write_json(self.records / STOP, {"reason": str(error), "code": error.code})

    def stopped(self) -> Preempted | None:
        """The request to stop, if there was one."""
        file = self.records / STOP
        if not file.is_file():
            return None
        found = json.loads(file.read_text(encoding="utf-8"))
        return Preempted(found["reason"], found["code"])

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
        if number == signal.SIGINT and _is_foreground():  # the terminal has sent it to the jobs, too
            return
        for job in self.jobs():
            is_elsewhere = job["pid"] != os.getpid() and job["host"] == socket.gethostname()
            if job["status"] == "running" and is_elsewhere:
                os.kill(int(job["pid"]), number)


def _is_foreground() -> bool:
    """Whether a terminal sends its Ctrl-C to this process and its children."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
