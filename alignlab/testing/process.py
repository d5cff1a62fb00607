"""Calling a method in a new process, with other hash seeds."""

import os
import pickle
import subprocess
import sys
from typing import Any

_CHILD = """
import pickle, sys
path, thing, method, arguments = pickle.loads(sys.stdin.buffer.read())
sys.path[:] = path
found = getattr(pickle.loads(thing), method)(*pickle.loads(arguments))
sys.stdout.buffer.write(pickle.dumps(found))
"""


def in_new_process(thing: object, method: str, *arguments: object) -> Any:
    """The result of a method of a pickled copy of `thing`; its class must be importable there by name."""
    owner = type(thing).__name__
    try:
        pickled = pickle.dumps(thing)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise AssertionError(f"{owner}: cannot be sent to another process ({error})") from error
    task = pickle.dumps((sys.path, pickled, method, pickle.dumps(arguments)))
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "OMP_NUM_THREADS": "1"}
    child = subprocess.run(
        [sys.executable, "-c", _CHILD], input=task, capture_output=True, env=environment, timeout=300
    )
    assert child.returncode == 0, f"{owner}: fails in a new process:\n{child.stderr.decode()[-800:]}"
    return pickle.loads(child.stdout)
