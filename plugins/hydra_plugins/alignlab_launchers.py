"""alignlab's launchers, in the only package in which Hydra looks for them.

A package without `__init__.py`, as every plugin of Hydra's shares it. It adds no option to other programs: those are in
alignlab's own `conf/hydra/launcher/`.
"""

from alignlab.cli.launchers import cluster, processes, slurm, submitted


class JoblibLauncher(processes.ProcessLauncher):
    """`hydra/launcher=joblib`."""


class SubmititLocalLauncher(submitted.LocalLauncher):
    """`hydra/launcher=submitit_local`."""


class SubmititSlurmLauncher(slurm.SlurmLauncher):
    """`hydra/launcher=submitit_slurm`."""


class RayLauncher(cluster.RayLauncher):
    """`hydra/launcher=ray`."""
