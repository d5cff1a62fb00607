"""`alignlab plugins [NAME ...] [--json]`: what is installed, from which package, with each option's parameters.

Nothing is imported: packages are found by their entry points, options read as YAML, constructors as source text.
"""

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alignlab import CONTRACT, __version__
from alignlab.config.plugins import CORE, Option, installed, options
from alignlab.config.static_signature import constructor_defaults
from alignlab.errors import ConfigError, suggestion


def run(arguments: list[str]) -> int:
    """Print the table, or JSON; exit code."""
    parser = argparse.ArgumentParser("alignlab plugins", description="What is installed, and its options' parameters.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these packages, groups or options, in full")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args(arguments)
    listing = _listing(asked.names)
    if asked.json:
        print(json.dumps(listing, indent=2, default=str))
    else:
        _print(listing, full=bool(asked.names))
    return 0


def _listing(names: Sequence[str]) -> list[dict[str, Any]]:
    """Each package with its options, in the order: core, then plugins by name."""
    packages: list[dict[str, Any]] = [{"plugin": None, "package": CORE, "distribution": CORE, "version": __version__}]
    for p in installed():
        about = {"plugin": p.name, "package": p.package, "distribution": p.distribution, "version": p.version}
        packages.append(about)
    found = [o for o in options() if o.group and not o.group.startswith("hydra")]
    _check_names(names, packages, found)
    for package in packages:
        own = [o for o in found if o.package == package["package"]]
        package |= {"contract": CONTRACT, "options": [_describe(o) for o in own if _wanted(o, package, names)]}
    return [p for p in packages if p["options"] or not names or p["package"] in names or p["plugin"] in names]


def _check_names(names: Sequence[str], packages: Sequence[Mapping[str, Any]], found: Sequence[Option]) -> None:
    known = {n for p in packages for n in (p["plugin"], p["package"]) if n}
    known |= {n for o in found for n in (o.group, o.name)}
    for name in names:
        if name not in known:
            raise ConfigError(f"{name!r} is no package, group or option{suggestion(name, sorted(known))}")


def _wanted(option: Option, package: Mapping[str, Any], names: Sequence[str]) -> bool:
    return not names or bool({option.group, option.name, package["package"], package["plugin"]} & set(names))


def _describe(option: Option) -> dict[str, Any]:
    content = option.read()
    target = content.get("_target_")
    written = {k: v for k, v in content.items() if k not in ("_target_", "defaults", "hydra")}
    more = {k: v for k, v in constructor_defaults(str(target)).items() if k not in written} if target else {}
    return {
        "option": f"{option.group}={option.name}",
        "summary": option.summary(),
        "class": target,
        "uses": list(_uses(content.get("defaults", []))),
        "parameters": written,
        "more_parameters": {k: v for k, v in more.items() if k not in _mounted(content.get("defaults", []))},
        "comments": _comments(option),
    }


def _uses(entries: Sequence[Any]) -> Iterator[str]:
    """The options that an option brings along."""
    for entry in entries:
        if isinstance(entry, dict):
            yield from (f"{str(k).removeprefix('override ').lstrip('/')}={v}" for k, v in entry.items())


def _mounted(entries: Sequence[Any]) -> set[str]:
    """Keys that those options fill in."""
    return {use.partition("=")[0].rpartition(".")[2].rpartition("@")[2] for use in _uses(entries)}


def _comments(option: Option) -> dict[str, str]:
    """What the file says of each of its keys: the comment on the key's line."""
    lines = option.file.read_text(encoding="utf-8").splitlines()
    matches = [m for line in lines if (m := re.match(r"\s*(\w+):.*?\s#\s*(.+)$", line))]
    return {m[1]: m[2] for m in matches}


def _flat(parameters: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values; classes of nested objects are left out."""
    for key, value in parameters.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif key != "_target_":
            yield f"{prefix}{key}", value


# ---- printing --------------------------------------------------------------------------------------------------------
def _print(listing: Sequence[Mapping[str, Any]], full: bool) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console()
    for package in listing:
        what = f"plugin {package['plugin']}, " if package["plugin"] else ""
        title = f"{package['package']}  ({what}{package['distribution']} {package['version']})"
        console.print(Text(title, style="bold"), soft_wrap=True)
        for option in package["options"]:
            head = Text.assemble((option["option"], "cyan"), f"  {option['summary']}")
            console.print(Padding(head, (0, 0, 0, 2)))
            lines = _lines(option) if full else [_line(option)]
            for line in filter(None, lines):
                console.print(Padding(Text(line, style="dim"), (0, 0, 0, 6)))


def _line(option: Mapping[str, Any]) -> str:
    """All parameters in a row."""
    given = [f"{k}={_show(v)}" for k, v in _flat(option["parameters"])]
    return "  ".join([*option["uses"], *given, *(f"{k}={v}" for k, v in option["more_parameters"].items())])


def _lines(option: Mapping[str, Any]) -> list[str]:
    """One line a parameter: name, default, and what the file says of it."""
    lines = [f"with {' '.join(option['uses'])}"] if option["uses"] else []
    for key, value in _flat(option["parameters"]):
        comment = option["comments"].get(key.rpartition(".")[2], "")
        lines.append(f"{key}: {_show(value)}{f'   # {comment}' if comment else ''}")
    return lines + [f"{key}: {default or 'required'}" for key, default in option["more_parameters"].items()]


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
