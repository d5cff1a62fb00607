"""`alignlab doctor [--store FOLDER] [--json]`: whether this machine is ready, and what to do where it is not.

Each line is ok, warn or fail; the exit code is 1 where one fails. Nothing is left behind, and nothing waits for a
network for more than a few seconds.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Final

from alignlab.cli.arguments import Parser
from alignlab.cli.checks import every_check
from alignlab.cli.finding import Finding
from alignlab.sanitize import printable

EXAMPLES: Final = """\
examples
  alignlab doctor                       this machine, with the store .alignlab
  alignlab doctor --store /data/store   a store elsewhere, such as on a network file system
  alignlab doctor --offline             without asking W&B's server
  alignlab doctor --json
"""
COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "red"}


def run(arguments: list[str]) -> int:
    """Print the findings, or JSON; exit code 1 where one fails."""
    parser = Parser(
        "alignlab doctor",
        description="Whether this machine is ready: versions, GPU, compiler, locks, disk, W&B.",
        examples=EXAMPLES,
    )
    parser.add_argument("--store", default=".alignlab", metavar="FOLDER", help="the store; .alignlab")
    parser.add_argument("--offline", action="store_true", help="ask no server")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args(arguments)
    found: list[Finding] = []
    for finding in every_check(Path(asked.store).expanduser().absolute(), asked.offline):
        found.append(finding)
        if not asked.json:
            _print(finding)
    states: Counter[str] = Counter(finding.state for finding in found)
    if asked.json:
        print(json.dumps([vars(finding) for finding in found], indent=2))
    else:
        print(", ".join(f"{states[state]} {state}" for state in COLOURS))
    return int(states["fail"] > 0)


def _print(finding: Finding) -> None:
    """At once: some checks take seconds."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console()
    head = Text.assemble((f"{finding.state:<5}", COLOURS[finding.state]), f"{finding.name:<11}")
    indent = len(head)
    lines = Text(printable(finding.found)).wrap(console, max(20, console.width - indent))
    for i, line in enumerate(lines):
        console.print(Text.assemble(head if i == 0 else " " * indent, line), soft_wrap=True)
    if finding.advice:
        console.print(Padding(Text(f"-> {printable(finding.advice)}", style="bold"), (0, 0, 0, indent)))
