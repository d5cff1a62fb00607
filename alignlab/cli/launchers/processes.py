"""Several jobs at the same time on this machine: `hydra/launcher=joblib`.

It takes the name and `n_jobs` of Hydra's joblib plugin, which it replaces and does not need. joblib's pool ends as a
whole when one of its processes is killed (BrokenProcessPool): the jobs that run in the others are lost, and those that
wait never begin. Here each process is by itself. One that is killed takes the job that it runs with it and nothing
else, and another takes its place.
"""

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from hydra.core.utils import JobReturn

from alignlab.cli.launchers import machine
from alignlab.cli.launchers.base import JobLauncher, Order
from alignlab.cli.launchers.workers import Worker, WorkerDied
from alignlab.errors import ConfigError


class ProcessLauncher(JobLauncher):
    """Runs jobs in a few processes.

    Args:
        n_jobs: at the same time; -1 is one per processor, -2 one less, as joblib has it.
        gpus: of each job; 0 lets all jobs see all of them.
    """

    def __init__(self, n_jobs: int = 4, gpus: int = 0) -> None:
        if not isinstance(n_jobs, int) or n_jobs == 0:
            raise ConfigError(f"hydra.launcher.n_jobs: must be a whole number other than 0, got {n_jobs!r}")
        if not isinstance(gpus, int) or gpus < 0:
            raise ConfigError(f"hydra.launcher.gpus: must be a whole number of at least 0, got {gpus!r}")
        self.n_jobs = n_jobs if n_jobs > 0 else max(1, machine.cpus() + 1 + n_jobs)
        self.gpus = gpus
        self._workers: dict[int, Worker] = {}

    def run(self, orders: Sequence[Order]) -> dict[int, JobReturn]:
        """Run jobs until all have ended."""
        slots = min(self.n_jobs, len(orders))
        parts = [machine.part(slot, slots, self.gpus, os.environ) for slot in range(slots)]
        waiting, returned = deque(orders), dict[int, JobReturn]()
        with ThreadPoolExecutor(slots) as threads:
            places = [threads.submit(self._place, slot, parts[slot], waiting, returned) for slot in range(slots)]
            try:
                for place in places:
                    place.result()
            except BaseException:  # a second request to stop, or a bug
                waiting.clear()
                for worker in self._workers.values():
                    worker.kill()
                raise
        return returned

    def _place(self, slot: int, part: dict[str, str], waiting: deque[Order], returned: dict[int, JobReturn]) -> None:
        """One process after another, until no job is left."""
        while waiting and not self.stopped():
            worker = self._workers[slot] = Worker(part)
            try:
                self._feed(worker, waiting, returned)
            finally:
                del self._workers[slot]

    def _feed(self, worker: Worker, waiting: deque[Order], returned: dict[int, JobReturn]) -> None:
        """One job after another, until none is left or the process dies."""
        while not self.stopped():
            try:
                order = waiting.popleft()
            except IndexError:
                break
            try:
                returned[order.number] = worker.run(order)
            except WorkerDied as error:
                returned[order.number] = order.ended(f"{error}; the other jobs continue")
                return
        worker.close()
