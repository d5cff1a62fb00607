"""`alignlab export RUN STAGE FOLDER`: the model of a stage as a folder of its own, for other programs.

A whole model is copied. An adapter is written in PEFT's layout, and names its base by the folder that it is in;
`--merge` adds it to the weights of its base and writes a whole model. The folder has its name once all of it is
written: what is killed on the way leaves a hidden folder `.NAME-...` next to it, which can be removed.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alignlab.artifact import CURVES, MANIFEST, METRICS, SAMPLES, Artifact
from alignlab.cli.arguments import Parser
from alignlab.cli.models import MODELS, find_model
from alignlab.durable import put, sync_tree
from alignlab.errors import StoreError

_OF_THE_STAGE: Final = (MANIFEST, METRICS, SAMPLES, CURVES, "columns.json", "checkpoints")
"""Left behind: they tell how the model was made."""
EXAMPLES: Final = """\
examples
  alignlab export runs/2026-11-26/12-00-00 dpo my-model           AutoModelForCausalLM.from_pretrained("my-model")
  alignlab export runs/2026-11-26/12-00-00 dpo my-model --merge   an adapter, added to the weights of its base
"""


def run(arguments: list[str]) -> int:
    """Write the folder; exit code."""
    asked = _parser().parse_args(arguments)
    artifact = find_model(Path(asked.run), asked.stage, MODELS, "be exported")
    folder = Path(asked.folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder} is not empty; name a new folder")
    with _written_whole(folder.absolute()) as begun:
        made = export(artifact, begun, asked.merge)
    print(f"{folder}: {made}")
    return 0


@contextmanager
def _written_whole(folder: Path) -> Iterator[Path]:
    """A folder to write into, which gets its name in one step at the end.

    Raises:
        StoreError: it cannot be written there, or somebody else has filled it meanwhile.
    """
    begun = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        begun = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        yield begun
        begun.chmod(0o777 & ~_umask())
        sync_tree(begun)
        put(begun, folder)  # over an empty folder, if there is one
    except OSError as error:
        raise StoreError(f"{folder} cannot be written ({error}); nothing is left of it") from error
    finally:
        if begun is not None:
            shutil.rmtree(begun, ignore_errors=True)


def _umask() -> int:
    """The permissions that new files lack; a temporary folder is its maker's alone."""
    found = os.umask(0)
    os.umask(found)
    return found


def export(artifact: Artifact, folder: Path, merge: bool = False) -> str:
    """Write a model into an empty folder; returns what was written, in words."""
    # torch is imported where a model is loaded.
    from alignlab.policy import Policy, base_dtype, copy_adapter, is_adapter

    if not is_adapter(artifact.path):
        left_out = shutil.ignore_patterns(*_OF_THE_STAGE)
        shutil.copytree(artifact.path, folder, ignore=left_out, dirs_exist_ok=True)
        return "a whole model"
    if not merge:
        return f"an adapter of {copy_adapter(artifact.path, folder).path} (--merge writes a whole model)"
    # Added up in float32, then rounded once to the type of the base.
    Policy.load(artifact).merge_adapter().cast(base_dtype(artifact.path)).save(folder)
    return "a whole model, its adapter merged"


def _parser() -> Parser:
    about = "Write the model of a stage as a folder for other programs."
    parser = Parser("alignlab export", description=about, examples=EXAMPLES)
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("stage", metavar="STAGE", help="name of a stage of the run that made a model")
    parser.add_argument("folder", metavar="FOLDER", help="where the model is written; new or empty")
    parser.add_argument("--merge", action="store_true", help="add an adapter to its base's weights")
    return parser
