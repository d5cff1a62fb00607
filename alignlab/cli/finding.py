"""Findings of `alignlab doctor`, and processes that are asked for one."""

import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Args:
        name: of what was checked.
        state: ok, warn or fail.
        found: what there is.
        advice: what to do; empty where there is nothing to do.
    """

    name: str
    state: State
    found: str
    advice: str = ""


def python(program: str, *arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own; it may hang or crash."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def last_line(text: str) -> str:
    """The last line of an error, which has its message."""
    return (text.strip().splitlines() or ["no message"])[-1]
