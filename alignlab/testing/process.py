"""Calling a method in a new process, with other hash seeds.

Each call has a process of its own. It is forked from one that has imported what takes seconds and has computed nothing.
"""

import functools
import os
import pickle
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

LIMIT = 300
"""Seconds that a call may take."""
_SERVER = """
import os, pickle, signal, sys

import torch
import transformers


def call(folder, place, environment, path, thing, method, arguments):
    os.chdir(place)
    os.environ.clear()
    os.environ.update(environment)
    log = os.open(os.path.join(folder, "log"), os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.path[:] = path
    found = getattr(pickle.loads(thing), method)(*pickle.loads(arguments))
    with open(os.path.join(folder, "found"), "wb") as stream:
        pickle.dump(found, stream)


while size := sys.stdin.buffer.read(8):
    limit, *task = pickle.loads(sys.stdin.buffer.read(int.from_bytes(size, "little")))
    process = os.fork()
    if process == 0:
        signal.alarm(limit)
        code = 1
        try:
            call(*task)
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    sys.stdout.buffer.write(os.waitpid(process, 0)[1].to_bytes(8, "little"))
    sys.stdout.buffer.flush()
"""


def in_new_process(thing: object, method: str, *arguments: object) -> Any:
    """The result of a method of a pickled copy of `thing`; its class must be importable there by name."""
    owner = type(thing).__name__
    try:
        pickled = pickle.dumps(thing)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise AssertionError(f"{owner}: cannot be sent to another process ({error})") from error
    with tempfile.TemporaryDirectory(prefix="alignlab-call-") as folder:
        here = (os.getcwd(), dict(os.environ), sys.path)
        code = _Server.of(os.getpid()).run((LIMIT, folder, *here, pickled, method, pickle.dumps(arguments)))
        log = Path(folder, "log")
        said = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
        assert code == 0, f"{owner}: fails in a new process:\n{said[-800:]}"
        return pickle.loads(Path(folder, "found").read_bytes())


class _Server:
    """The process that the others are forked from; it ends with this one."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONHASHSEED": "4711", "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([sys.executable, "-c", _SERVER], stdin=pipe, stdout=pipe, env=environment)
        weakref.finalize(self, self._process.kill)

    @classmethod
    @functools.cache
    def of(cls, process: int) -> "_Server":
        """That of a process, by its number: a fork has one of its own."""
        return cls()

    def run(self, task: tuple[Any, ...]) -> int:
        """The exit status of a call."""
        stdin, stdout, packed = self._process.stdin, self._process.stdout, pickle.dumps(task)
        assert stdin is not None and stdout is not None
        stdin.write(len(packed).to_bytes(8, "little") + packed)
        stdin.flush()
        status = stdout.read(8)
        return int.from_bytes(status, "little") if status else -1
