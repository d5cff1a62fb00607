"""`alignlab score FILE --out SCORED [--json]`: whether responses follow the instructions of their prompts.

FILE has one JSON object per line: `prompt`, `response`, `instruction_id_list` and `kwargs`, as in IFEval. SCORED is the
same with `strict` and `loose`, whether each instruction is followed. No model is needed.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from alignlab.cli.arguments import Parser
from alignlab.cli.output import check_out, write_out
from alignlab.errors import ConfigError


def run(arguments: list[str]) -> int:
    """Write the verdicts, and print the accuracies; exit code."""
    parser = Parser("alignlab score", description="Check responses for the instructions of their prompts.")
    parser.add_argument("file", metavar="FILE", help="JSON lines: prompt, response, instruction_id_list, kwargs")
    parser.add_argument(
        "--out", metavar="SCORED", required=True, help="the lines with their verdicts, strict and loose"
    )
    parser.add_argument("--json", action="store_true", help="print the accuracies as JSON")
    asked = parser.parse_args(arguments)
    file, out = Path(asked.file), Path(asked.out)
    _check_out(file, out)
    _score(file, out, asked.json)
    return 0


def _check_out(file: Path, out: Path) -> None:
    """Refuse a place where nothing can be written, before anything is scored."""
    if out.resolve() == file.resolve():
        raise ConfigError(f"--out: {out} is the file that is scored; name another one")
    check_out(out)


def _score(file: Path, out: Path, as_json: bool) -> None:
    from alignlab.instructions import accuracies, read_tasks, verdicts
    from alignlab.instructions.accuracy import table, to_json

    tasks = read_tasks(file, answered=True)
    judged = [(task, verdicts(task.response, task.instructions)) for task in tasks]
    lines = (_line({**task.fields, "strict": v.strict, "loose": v.loose}) for task, v in judged)
    write_out(out, "".join(f"{line}\n" for line in lines))
    found = accuracies(judged)
    print(json.dumps(to_json(found), indent=2) if as_json else "\n".join(table(found)))


def _line(row: Mapping[str, object]) -> str:
    """A line as a reader would like it; escaped where it holds half a character, as a cut response may."""
    text = json.dumps(row, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(row)
    return text
