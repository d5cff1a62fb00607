"""What `--help` and `--version` print."""

from alignlab import __version__
from alignlab.cli.commands import VERBS
from alignlab.config import plugins
from alignlab.errors import ConfigError

TEXT = """\
alignlab {version}: a laboratory for the whole life of a language model.

usage
  alignlab experiment=NAME [KEY=VALUE ...]      run an experiment
  alignlab -m experiment=NAME KEY=V1,V2 ...     run a sweep
  alignlab VERB ...                             one of the verbs below

experiments
{experiments}

verbs
{verbs}

examples
  alignlab experiment=lifecycle pipeline.dpo.objective.beta=0.05     change one value
  alignlab experiment=lifecycle pipeline.dpo.objective=ipo           change one part
  alignlab -m experiment=smoke seed=0,1,2                            three seeds; what is equal is computed once
  alignlab experiment=train stage=dpo stage.inputs.policy=RUN/stages/sft stage.inputs.preferences=RUN/stages/label
  alignlab plan experiment=lifecycle data.entities=32                what would run
  alignlab chat runs/DATE/TIME dpo                                   talk to a stage's model

other flags (Hydra's)
  --cfg job [--resolve]    print the configuration instead of running it
  --config-dir FOLDER      add a folder of your own options
  -m, --multirun           sweep
  --shell-completion       eval "$(alignlab -sc install=bash)" switches tab completion on
  --hydra-help             all of Hydra's flags
  --version                version

Each run writes config.yaml, metrics.json, manifest.json, samples.jsonl, status.json, what the report stage makes
(report.html) and links to its artifacts (stages/) into its folder (runs/DATE/TIME; hydra.run.dir=FOLDER). Artifacts go
to the store (.alignlab; store_dir=FOLDER), each made only once.
"""


def print_help() -> int:
    """The help text; experiments come from what is installed. A broken plugin is named, and does not hide the rest."""
    try:
        found = plugins.options()
        lines = [f"  {o.name:<18} {o.summary()}" for o in found if o.group == "experiment"]
    except ConfigError as error:
        lines = [f"  cannot be listed: {error}"]
    verbs = [f"  {name:<18} {text}" for name, text in VERBS.items()]
    print(TEXT.format(version=__version__, experiments="\n".join(lines), verbs="\n".join(verbs)), end="")
    return 0


def print_version() -> int:
    """Name and version."""
    print(f"alignlab {__version__}")
    return 0
