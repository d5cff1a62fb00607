"""Launchers: where the jobs of a sweep run. `hydra/launcher=NAME` chooses one.

Hydra builds launchers that it finds in the package `hydra_plugins` only; `plugins/hydra_plugins/alignlab_launchers.py`
has a class there for each of these.
"""
