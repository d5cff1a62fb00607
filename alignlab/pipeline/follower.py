"""The other processes of a run: each computes its share of the stages that the first one sends it, and prints nothing.

It has no run folder, no tracker and no lock of the store, and what it writes into a stage's folder is thrown away: the
first process publishes. It ends with the first one's exit code, or when its connection to that one breaks.
"""

import contextlib
import math
import os
import pickle
import queue
import shutil
import socket
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any, Final, NoReturn

from alignlab import stopping
from alignlab.config.spec import Builder
from alignlab.data.cache import Cache
from alignlab.data.files import digests
from alignlab.data.source import DataSource
from alignlab.errors import AlignlabError, PipelineError, Preempted, Pruned
from alignlab.launched import STARTED_BY, Place
from alignlab.pipeline.links import HEARTBEAT, Meeting, keep_alive
from alignlab.pipeline.members import LEAVING
from alignlab.pipeline.plan import keys_of
from alignlab.pipeline.shared_job import Job
from alignlab.pipeline.store import Store
from alignlab.runtime import Runtime
from alignlab.seed import seed_everything
from alignlab.stage import NullTracker, StageContext

TIMEOUT: Final = "runtime.timeout"
"""Key that says how long to wait; the configuration is the first process's, and is not composed here."""
_LOST: Final = "has lost rank 0, and ends"


def follow(place: Place) -> int:
    """Compute with the first process until it ends; the exit code that it has."""
    timeout = typed_timeout(sys.argv)
    joined = threading.Event()
    if STARTED_BY in os.environ:
        parent = int(os.environ.pop(STARTED_BY))
        threading.Thread(target=_end_with, args=(parent, joined, place), daemon=True).start()
    with _quiet():
        try:
            meeting, link = _join(place, timeout)
            joined.set()
        except (OSError, RuntimeError, EOFError) as error:
            first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            _complain(
                place,
                f"waited {timeout:g} s for rank 0 at {place.address}:{place.port} in vain: is the command started "
                f"there, and can this machine reach it? Raise runtime.timeout (seconds) where it starts "
                f"slowly ({first})",
            )
            return 1
        return _Follower(place, meeting, link).run()


def typed_timeout(arguments: Sequence[str]) -> float:
    """Seconds to wait, as typed; the default where nothing was, or what the first process will refuse."""
    typed = [text.partition("=")[2] for text in arguments if text.lstrip("+").partition("=")[0] == TIMEOUT]
    try:
        found = float(typed[-1]) if typed else Runtime.timeout
    except ValueError:
        return Runtime.timeout
    return found if math.isfinite(found) and found > 0 else Runtime.timeout


def _join(place: Place, timeout: float) -> tuple[Meeting, Connection]:
    meeting = Meeting(place, timeout)
    port, key = pickle.loads(meeting.get("leader"))  # from the launcher's own store
    link = Client((place.address, port), authkey=key)
    keep_alive(link)
    link.send(("here", place.rank, f"pid {os.getpid()} on {socket.gethostname()}"))
    return meeting, link


def _end_with(parent: int, joined: threading.Event, place: Place) -> None:
    """End this process if its parent, the first one, ends before it has joined; from then on its connection tells."""
    while os.getppid() == parent:
        if joined.wait(1.0):
            return
    _complain(place, _LOST)
    os._exit(1)


class _Follower:
    def __init__(self, place: Place, meeting: Meeting, link: Connection) -> None:
        self._place, self._meeting, self._link = place, meeting, link
        self._messages: queue.Queue[tuple[Any, ...]] = queue.Queue()
        self._builder = Builder(shared=(DataSource,))
        self._speaking = threading.Lock()
        self._scratch: Path | None = None
        self._has_group = False

    def run(self) -> int:
        for action in (self._listen, self._give_signs):
            threading.Thread(target=action, daemon=True, name=f"follower-{action.__name__}").start()
        try:
            with stopping.heard(), stopping.deferred():  # the first process decides when all of them stop
                code = self._serve()
        except Preempted as error:
            code = error.code
        if self._has_group:
            from alignlab import distributed

            distributed.leave()
        return code

    def _serve(self) -> int:
        while (message := self._messages.get())[0] != "end":
            failed: tuple[str, str] | None = None
            made: object = None
            try:
                if message[0] == "call":
                    _limit_threads(message[3])
                    made = message[1](*message[2])
                elif message[0] == "run":
                    self._compute(message[1])
                else:  # another process has failed
                    continue
            except (Preempted, Pruned):
                pass  # so are the others; the first process ends all of them
            except AlignlabError as error:
                failed = f"{type(error).__name__}: {error}", ""
            except Exception as error:
                failed = f"{type(error).__name__}: {error}", traceback.format_exc()
            self._say(("done", made) if failed is None else ("failed", *failed))
            if failed is not None:
                return self._ended()
        return int(message[1])

    def _ended(self) -> int:
        """The code to end with after a failure: the first process's, if that has noticed, too."""
        try:
            message = self._messages.get(timeout=LEAVING)
        except queue.Empty:
            self._exit(1)  # the first process waits in an exchange, which this breaks
        while message[0] != "end":
            message = self._messages.get()
        return int(message[1])

    def _say(self, message: object) -> None:
        with self._speaking, contextlib.suppress(OSError):
            self._link.send(message)

    def _give_signs(self) -> None:
        while True:
            time.sleep(HEARTBEAT)
            self._say(("alive",))

    def _listen(self) -> None:
        try:
            while (message := self._link.recv())[0] != "end":
                self._messages.put(message)
        except (EOFError, OSError):
            _complain(self._place, _LOST)
            self._exit(1)
        self._messages.put(message)
        threading.Event().wait(LEAVING)
        self._exit(int(message[1]))  # it waits in an exchange that will not come

    def _exit(self, code: int) -> NoReturn:
        """End at once, whatever the main thread waits for."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
        os._exit(code)

    def _compute(self, job: Job) -> None:
        """Compute this process's share of a stage."""
        from alignlab import distributed

        if not self._has_group:
            place = self._place
            distributed.join(self._meeting.of_group(), place.rank, place.world, job.runtime.device)
            self._has_group = True
        _limit_threads(job.runtime.threads)
        _check_same(job, self._builder)
        stage = job.spec.build(self._builder)
        for source in self._builder.shared():
            source.keep_in(Cache(Store(job.store).keep))
        seed_everything(stage.seed)
        with tempfile.TemporaryDirectory(prefix="alignlab-rank-") as scratch, distributed.together():
            self._scratch = Path(scratch)
            stage.run(job.inputs, StageContext(job.name, self._scratch, job.work, job.runtime, NullTracker()))


def _check_same(job: Job, builder: Builder) -> None:
    """Refuse to compute a share of another stage than the first process does: each reads data and code for itself.

    Raises:
        PipelineError: this process has other files than the first one.
    """
    digests.keep_in(job.store / "digests")
    key, _, code = keys_of(job.spec, job.input_fingerprints, {}, job.runtime, builder)
    if key == job.fingerprint:
        return
    changed = [path for path, digest in job.code.items() if code.get(path) != digest]
    what = f"the code of {', '.join(changed)} is another" if changed else "its data files have another content"
    raise PipelineError(
        f"{job.name}: {what} here than for rank 0; all processes need the same files, which must not change while a "
        f"run goes on"
    )


def _limit_threads(count: int) -> None:
    """As the first process; 0 keeps torch's default, which is that of the environment."""
    if count:
        import torch

        torch.set_num_threads(count)


def _complain(place: Place, text: str) -> None:
    print(f"alignlab: rank {place.rank} of {place.world} {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Print nothing but errors: the first process prints for all."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
