"""The texts of `--help` and `--version`."""

from alignlab import __version__
from alignlab.cli.columns import fitted
from alignlab.cli.commands import COMMANDS
from alignlab.config.options import options
from alignlab.errors import ConfigError

TEXT = """\
alignlab {version}: a laboratory for the whole life of a language model.

usage
  alignlab experiment=NAME [KEY=VALUE ...]      run an experiment
  alignlab -m experiment=NAME KEY=V1,V2 ...     run a sweep
  alignlab --config RUN/config.yaml             run the recorded configuration of an earlier run
  alignlab COMMAND ...                          one of the commands below

experiments
{experiments}

commands
{commands}

examples
  alignlab experiment=lifecycle pipeline.dpo.objective.beta=0.05     change one value
  alignlab experiment=lifecycle pipeline.dpo.objective=ipo           change one part
  alignlab experiment=lifecycle rerun=dpo                            run dpo and what follows from it again
  alignlab -m experiment=smoke seed=0,1,2                            three seeds; what is equal is computed once
  alignlab experiment=train stage=dpo stage.inputs.policy=RUN/stages/sft stage.inputs.preferences=RUN/stages/label
  alignlab plan experiment=lifecycle data.entities=32                what would run
  alignlab prepare -m experiment=lifecycle seed=0,1,2                what the jobs of a sweep share, before they start
  alignlab runs                                                      which runs there are, and how they ended
  alignlab compare RUN RUN                                           in what they differ
  alignlab chat runs/DATE/TIME dpo                                   talk to a stage's model
  alignlab export runs/DATE/TIME dpo FOLDER [--merge]                its model as a folder for other programs
  alignlab report runs/DATE/TIME                                     compare the runs of a sweep on one page

other flags
  --cfg job [--resolve]    print the configuration instead of running it
  --config FILE            start from the config.yaml of a run; pipeline.* keys can be changed
  --config-dir FOLDER      add a folder of your own options
  -m, --multirun           sweep; sweep.metric=STAGE/METRIC gives a sweeper such as Optuna its results
  --shell-completion       eval "$(alignlab -sc install=bash)" switches tab completion on
  --hydra-help             all of Hydra's flags
  --version                version

Each run writes config.yaml, metrics.json, manifest.json, samples.jsonl, status.json, the report (report.html) and links
to its artifacts (stages/) into its folder (runs/DATE/TIME; hydra.run.dir=FOLDER). Artifacts go to the store (.alignlab;
store_dir=FOLDER), each made only once.
"""


def print_help() -> int:
    """Print the help text with all installed experiments. Broken plugins are named, and do not hide the others."""
    from alignlab.cli.plugins import problems

    try:
        lines = [f"  {o.name:<18} {o.summary()}" for o in options() if o.group == "experiment"]
    except ConfigError as error:
        lines = [f"  cannot be listed: {error}"]
    found = [f"  {name:<18} {text}" for name, text in COMMANDS.items()]
    text = TEXT.format(version=__version__, experiments="\n".join(lines), commands="\n".join(found))
    broken = "".join(f"\nnot usable: {problem}\n" for problem in problems())
    print(fitted(f"{text}{broken}"), end="")
    return 0


def print_version() -> int:
    """Print name and version."""
    print(f"alignlab {__version__}")
    return 0
