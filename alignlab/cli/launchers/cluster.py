"""Jobs on a cluster of Ray: `hydra/launcher=ray`.

A thin launcher of our own: Hydra's plugin asks for cloudpickle < 3, which does not fit the packages here.
"""

import os
import signal
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn

from alignlab import stopping
from alignlab.cli.launchers.base import JobLauncher, Order, positive
from alignlab.errors import Preempted


def work(order: Order) -> JobReturn:
    """Run a job in a process of Ray's."""
    try:
        with stopping.heard():
            return order.run()
    except Preempted:
        return order.ended()


class RayLauncher(JobLauncher):
    """Runs each job as a task of Ray, in a process of its own.

    Args:
        address: of a cluster; None starts Ray on this machine and ends it with the sweep.
        num_cpus: processors of each job, which decide how many run at the same time.
        num_gpus: GPUs of each job.
    """

    def __init__(self, address: str | None = None, num_cpus: int = 1, num_gpus: float = 0) -> None:
        positive(type(self).__name__, num_cpus=num_cpus)
        self.address, self.resources = address, {"num_cpus": num_cpus, "num_gpus": num_gpus}

    def run(self, orders: Sequence[Order]) -> dict[int, JobReturn]:
        """Hand all jobs to Ray; returns when all have ended."""
        import ray

        path = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        ray.init(address=self.address, log_to_driver=True, runtime_env={"env_vars": path})
        for number, handler in handlers.items():  # Ray's own would end the sweep at once
            signal.signal(number, handler)
        try:
            # Ray does not run a job again whose process was killed: sweep.resume=true does, when the user wants it.
            remote = ray.remote(max_retries=0, **self.resources)(work)
            running = {remote.options(name=f"job {order.number}").remote(order): order for order in orders}
            return self._follow(running)
        finally:
            ray.shutdown()

    def _follow(self, running: dict[Any, Order]) -> dict[int, JobReturn]:
        """Take in the jobs as they end."""
        import ray

        returned: dict[int, JobReturn] = {}
        while running:
            (ended,), _ = ray.wait(list(running), num_returns=1)
            order = running.pop(ended)
            try:
                returned[order.number] = ray.get(ended)
            except ray.exceptions.RayError as error:
                returned[order.number] = order.ended(f"{type(error).__name__}: {str(error).splitlines()[0]}")
        return returned
