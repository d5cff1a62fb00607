"""`alignlab agreement FILE [--json]`: how far raters agree, what they lean to, what trivial rules reach."""

import json

from alignlab.cli.arguments import Parser
from alignlab.judgements.records import read
from alignlab.judgements.summary import lines, summary
from alignlab.sanitize import printable


def run(arguments: list[str]) -> int:
    """Print the statistics of a file of judgements; exit code."""
    parser = Parser("alignlab agreement", description="Statistics of judgements: agreement, leanings, trivial rules.")
    parser.add_argument("file", metavar="FILE", help="JSON lines of judgements, or the folder of a stage")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args(arguments)
    found = summary(read(asked.file))
    print(json.dumps(found, indent=2) if asked.json else "\n".join(printable(line) for line in lines(found)))
    return 0
