"""The end of a run or a sweep: the commands that send what stayed on this machine, each once."""

from collections.abc import Iterable
from pathlib import Path

from alignlab.pipeline.recording import TO_SEND
from alignlab.pipeline.run_folder import status_of


def tell(folders: Iterable[Path]) -> None:
    """Print the commands that the statuses of runs hold; the jobs of a sweep share theirs."""
    noted = [str(status_of(folder).get(TO_SEND, "")).splitlines() for folder in folders]
    for command in dict.fromkeys(command for commands in noted for command in commands):
        print(f"offline runs are sent with: {command}")
