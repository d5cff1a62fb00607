"""Jobs as an array of SLURM, by submitit: `hydra/launcher=submitit_slurm`.

SLURM's warning before the end of a job's time, and before a preemption (SIGUSR2), saves the job's work and queues it
again. SIGTERM alone (`scancel`) saves it and ends the job.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.utils import JobReturn

from alignlab.cli.launchers.base import Order, positive
from alignlab.cli.launchers.submitted import SubmititLauncher, Submitted
from alignlab.errors import ConfigError


class SlurmLauncher(SubmititLauncher):
    """Jobs as an array of SLURM.

    Args:
        array_parallelism: jobs at the same time.
        cpus_per_task: processors of each process.
        nodes: machines of each job.
        tasks_per_node: processes of each job on each machine, for `runtime=ddp` and `fsdp2`. With one node and one
            task, the job starts its processes itself (`runtime.devices`).
        gpus_per_node: GPUs of each job on each machine.
        mem_gb: memory of each job on each machine in gigabytes; None is the cluster's default.
        timeout_min: minutes that a job may take.
        signal_delay_s: seconds before that at which it is asked to save its work.
        max_num_timeout: how often a job that ran out of time is queued again.
        partition, account, qos, constraint: SLURM's; None is the cluster's default.
        setup: shell commands that run in the job first, such as `module load cuda`.
        additional_parameters: further options of sbatch by name: `{nice: 100}` is `--nice=100`.
    """

    def __init__(
        self,
        array_parallelism: int = 20,
        nodes: int = 1,
        tasks_per_node: int = 1,
        cpus_per_task: int = 4,
        gpus_per_node: int = 0,
        mem_gb: float | None = None,
        timeout_min: int = 240,
        signal_delay_s: int = 120,
        max_num_timeout: int = 3,
        partition: str | None = None,
        account: str | None = None,
        qos: str | None = None,
        constraint: str | None = None,
        setup: Sequence[Any] = (),
        additional_parameters: Mapping[str, Any] | None = None,
    ) -> None:
        positive(type(self).__name__, nodes=nodes, tasks_per_node=tasks_per_node, cpus_per_task=cpus_per_task)
        if wrong := [command for command in setup if not isinstance(command, str)]:
            raise ConfigError(
                f'hydra.launcher.setup: takes shell commands, such as ["module load cuda"], got {wrong[0]!r}'
            )
        super().__init__(array_parallelism, timeout_min, signal_delay_s, max_num_timeout)
        memory = None if mem_gb is None else f"{round(mem_gb * 1024)}M"
        asked = {"mem": memory, "partition": partition, "account": account, "qos": qos, "constraint": constraint}
        lists = {"setup": list(setup), "additional_parameters": dict(additional_parameters or {})}
        given = {k: v for k, v in {**asked, **lists, "gpus_per_node": gpus_per_node}.items() if v}
        times = {"time": timeout_min, "signal_delay_s": signal_delay_s}
        self.parameters = {
            "job_name": "alignlab", "nodes": nodes, "ntasks_per_node": tasks_per_node, "cpus_per_task": cpus_per_task,
            "array_parallelism": array_parallelism, **times, **given,
        }  # fmt: skip
        """As submitit takes them, which are the names of sbatch."""

    def run(self, orders: Sequence[Order]) -> dict[int, JobReturn]:
        """Submit all jobs as one array; returns when all have ended."""
        import submitit

        try:
            executor = submitit.SlurmExecutor(self.folder, max_num_timeout=self.max_num_timeout)
            executor.update_parameters(**self.parameters)
            with executor.batch():
                jobs = [executor.submit(Submitted(order, {})) for order in orders]
        except (RuntimeError, OSError) as error:
            raise ConfigError(
                f"hydra/launcher=submitit_slurm: {' '.join(str(error).split())}; start it where sbatch works, or try "
                f"hydra/launcher=submitit_local"
            ) from error
        print(f"submitted to SLURM: {len(jobs)} jobs, {jobs[0].job_id} and following; logs in {self.folder}")
        running, returned = {o.number: job for o, job in zip(orders, jobs, strict=True)}, dict[int, JobReturn]()
        while running:
            self.follow(running, {order.number: order for order in orders}, returned)
        return returned

    def cancel_waiting(self, running: Mapping[int, Any]) -> None:
        """End jobs that are still queued."""
        for job in running.values():
            if job.watcher.get_state(job.job_id, mode="force").upper() == "PENDING":
                job.cancel(check=False)
