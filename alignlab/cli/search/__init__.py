"""Sweeps that choose values by results: `hydra/sweeper=optuna`.

`settings` checks what was asked for, `sweeper` asks Optuna, launches and tells, `trials` keeps the study, `reporter` is
the part that runs in a job, `ending` writes what was found.
"""
