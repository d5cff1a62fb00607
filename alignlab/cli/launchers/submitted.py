"""Jobs that submitit starts, on this machine (`hydra/launcher=submitit_local`) or by SLURM (`slurm.py`).

Hydra's own submitit plugin has had no release since 2022; this is a thin one on submitit 1.5, whose objects it uses as
they are: one executor, one pickled callable per job, logs in `.submitit/` of the sweep's folder. The sweep waits for
its jobs and ends with their table; when it is asked to stop, they save their work and end.
"""

import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hydra.core.utils import JobReturn

from alignlab import stopping
from alignlab.cli.launchers import machine
from alignlab.cli.launchers.base import JobLauncher, Order, positive
from alignlab.cli.sweeps.sweep import ask
from alignlab.errors import ConfigError, Preempted

LOGS: Final = ".submitit"
POLL: Final = 0.5
"""Seconds between two looks at the jobs."""


@dataclass(frozen=True)
class Submitted:
    """A job as submitit pickles it, and calls it in the job's process.

    Args:
        order: the job.
        environment: variables to set; those that are None are removed.
    """

    order: Order
    environment: Mapping[str, str | None]

    def __call__(self) -> JobReturn:
        """Run the job. Asked by the preemption signal, it saves its work first and is queued again then."""
        for name, value in self.environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        warned: list[int] = []
        queue_again = signal.getsignal(signal.SIGUSR2)  # submitit's, which would leave the job where it stands

        def preempted(number: int, _: object) -> None:
            warned.append(number)
            ask()

        signal.signal(signal.SIGUSR2, preempted)
        try:
            with stopping.heard():
                done = self.order.run()
        except Preempted:
            done = self.order.ended()
        sweep = self.order.sweep
        if warned and sweep.job(self.order.number)["status"] == "preempted" and sweep.stopped() is None:
            assert callable(queue_again)
            queue_again(signal.SIGUSR2, None)  # does not return
        return done

    def checkpoint(self) -> Any:
        """Submission to queue again: the same job, which continues from what it saved."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class SubmititLauncher(JobLauncher):
    """Base of the two launchers.

    Args:
        array_parallelism: jobs at the same time, at most.
        timeout_min: minutes that a job may take.
        signal_delay_s: seconds before that at which it is asked to save its work.
        max_num_timeout: how often a job that ran out of time is queued again.
    """

    def __init__(self, array_parallelism: int, timeout_min: int, signal_delay_s: int, max_num_timeout: int) -> None:
        positive(type(self).__name__, array_parallelism=array_parallelism, timeout_min=timeout_min)
        if not 0 <= signal_delay_s < 60 * timeout_min:
            raise ConfigError(
                f"hydra.launcher.signal_delay_s: must be shorter than the {timeout_min} minutes of a job, got "
                f"{signal_delay_s} s"
            )
        self.array_parallelism, self.max_num_timeout = array_parallelism, max_num_timeout
        self.timeout_min, self.signal_delay_s = timeout_min, signal_delay_s
        self._told = False

    @property
    def folder(self) -> Path:
        """Of logs and pickles."""
        return Path(str(self.config.hydra.sweep.dir)).absolute() / LOGS

    def follow(self, running: dict[int, Any], orders: Mapping[int, Order], returned: dict[int, JobReturn]) -> None:
        """Take in the jobs that have ended."""
        if self.stopped() and not self._told:
            self._told = True
            self.cancel_waiting(running)
        for number, job in list(running.items()):
            if job.done():
                del running[number]
                returned[number] = _returned(orders[number], job)
                print(f"job {number}: {orders[number].sweep.job(number)['status']}", flush=True)
        if running:
            time.sleep(POLL)

    def cancel_waiting(self, running: Mapping[int, Any]) -> None:
        """End jobs that have not begun. Those that run see for themselves that the sweep was asked to stop."""


class LocalLauncher(SubmititLauncher):
    """Jobs on this machine, as SLURM would run them: to try a sweep before it is sent to a cluster.

    Args:
        array_parallelism: jobs at the same time.
        tasks_per_node: processes of each job, for `runtime=ddp` and `fsdp2`; with one, the job starts them itself.
        gpus_per_node: GPUs of each job; 0 lets all jobs see all of them.
        timeout_min: minutes that a job may take.
        signal_delay_s: seconds before that at which it is asked to save its work.
        max_num_timeout: how often a job that ran out of time is started again.
    """

    def __init__(
        self,
        array_parallelism: int = 4,
        tasks_per_node: int = 1,
        gpus_per_node: int = 0,
        timeout_min: int = 1440,
        signal_delay_s: int = 90,
        max_num_timeout: int = 3,
    ) -> None:
        positive(type(self).__name__, tasks_per_node=tasks_per_node)
        super().__init__(array_parallelism, timeout_min, signal_delay_s, max_num_timeout)
        self.tasks, self.gpus = tasks_per_node, gpus_per_node

    def run(self, orders: Sequence[Order]) -> dict[int, JobReturn]:
        """Start jobs as places become free; returns when all have ended."""
        import submitit

        executor = submitit.LocalExecutor(self.folder, max_num_timeout=self.max_num_timeout)
        times = {"timeout_min": self.timeout_min, "signal_delay_s": self.signal_delay_s}
        executor.update_parameters(**times, tasks_per_node=self.tasks)
        slots = min(self.array_parallelism, len(orders))
        parts = [machine.part(slot, slots, self.gpus, os.environ) for slot in range(slots)]
        visible = {machine.GPUS: os.environ.get(machine.GPUS)}  # submitit hides all of them from a job that asks for 0
        print(f"{len(orders)} jobs by submitit, {slots} at the same time; logs in {self.folder}", flush=True)
        waiting, running, returned = deque(orders), dict[int, Any](), dict[int, JobReturn]()
        place: dict[int, int] = {}
        while (waiting and not self.stopped()) or running:
            while waiting and len(running) < slots and not self.stopped():
                order = waiting.popleft()
                slot = next(s for s in range(slots) if s not in {place[number] for number in running})
                place[order.number] = slot
                with _unsignalled():
                    running[order.number] = executor.submit(Submitted(order, {**visible, **parts[slot]}))
            self.follow(running, {order.number: order for order in orders}, returned)
        return returned


def _returned(order: Order, job: Any) -> JobReturn:
    """The return of a job that has ended; of one that was killed, what is known about it."""
    from submitit.core.utils import UncompletedJobError

    if order.sweep.stopped() and not job.paths.result_pickle.exists():
        return order.ended()
    job._results_timeout_s = 2
    try:
        found = job.results()[0]  # of several processes, the first one runs the job
        return found if isinstance(found, JobReturn) else order.ended()
    except UncompletedJobError:
        last = [line for line in (job.stderr() or "").splitlines() if line.strip()][-1:]
        says = f": {last[0].strip()}" if last else ""
        return order.ended(f"submitit's job {job.job_id} ended without a result ({job.state}){says}")


@contextmanager
def _unsignalled() -> Iterator[None]:
    """Context in which a process is started that the terminal's Ctrl-C does not reach.

    submitit's process would end its jobs a second later, whether they have saved their work or not.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
