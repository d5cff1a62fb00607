"""`alignlab plugins [NAME ...] [--json]`: installed packages and their options; with parameters for what is named.

Nothing is imported: packages are found by their entry points, and options are read as YAML. An option's file lists
every argument of its class.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from alignlab import CONTRACT, __version__
from alignlab.cli.arguments import Parser
from alignlab.config.options import Option, options
from alignlab.config.plugins import CORE, broken, import_problem, installed
from alignlab.errors import ConfigError, suggestion

EXAMPLES: Final = """\
examples
  alignlab plugins                 every option, one line each
  alignlab plugins objective       the options of a group, with their parameters
  alignlab plugins dpo             what is called so
  alignlab plugins alignlab_dpo    a package
"""


def run(arguments: list[str]) -> int:
    """Print the table, or JSON; exit code."""
    parser = Parser("alignlab plugins", description="Installed packages and their options.", examples=EXAMPLES)
    parser.add_argument("names", nargs="*", metavar="NAME", help="these packages, groups or options, with parameters")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args(arguments)
    listing = _listing(asked.names)
    if asked.json:
        print(json.dumps(listing, indent=2, default=str))
    else:
        _print(listing, full=bool(asked.names))
    return 0


def problems() -> list[str]:
    """One message for each plugin that cannot be used."""
    found = [plugin.reason for plugin in broken()]
    for plugin in installed():
        if problem := import_problem(plugin):
            who = f"plugin {plugin.name} (package {plugin.package} of {plugin.distribution} {plugin.version})"
            found.append(f"{who} cannot be imported: {problem}")
    return found


def _listing(names: Sequence[str]) -> list[dict[str, Any]]:
    """Each package with its options, in the order: core, then plugins by name, then those that cannot be used."""
    packages: list[dict[str, Any]] = [{"plugin": None, "package": CORE, "distribution": CORE, "version": __version__}]
    for p in installed():
        about = {"plugin": p.name, "package": p.package, "distribution": p.distribution, "version": p.version}
        packages.append({**about, "problem": import_problem(p)})
    packages += [{"plugin": b.name, "package": b.package, "problem": b.reason} for b in broken()]
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
            raise ConfigError(f"{name!r} is not a package, group or option{suggestion(name, sorted(known))}")


def _wanted(option: Option, package: Mapping[str, Any], names: Sequence[str]) -> bool:
    return not names or bool({option.group, option.name, package["package"], package["plugin"]} & set(names))


def _describe(option: Option) -> dict[str, Any]:
    content = option.read()
    return {
        "option": f"{option.group}={option.name}",
        "summary": option.summary(),
        "class": content.get("_target_"),
        "uses": list(_uses(content.get("defaults", []))),
        "parameters": {k: v for k, v in content.items() if k not in ("_target_", "defaults", "hydra")},
        "comments": _comments(option),
    }


def _uses(entries: Sequence[Any]) -> Iterator[str]:
    """The options that an option brings along."""
    for entry in entries:
        if isinstance(entry, dict):
            yield from (f"{str(k).removeprefix('override ').lstrip('/')}={v}" for k, v in entry.items())


def _comments(option: Option) -> dict[str, str]:
    """The comment on the line of each key, by the key's dotted path."""
    found: dict[str, str] = {}
    above: list[tuple[int, str]] = []  # indentation and key of the lines that this one lies within
    for line in option.text().splitlines():
        if key := re.match(r"( *)([\w-]+):(.*)$", line):
            above = [(indent, name) for indent, name in above if indent < len(key[1])] + [(len(key[1]), key[2])]
            if comment := re.search(r"\s#\s*(.+)$", key[3]):
                found[".".join(name for _, name in above)] = comment[1]
    return found


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
    from rich.text import Text

    console = Console()
    width = max((len(o["option"]) for p in listing for o in p["options"]), default=0)
    for package in listing:
        title = Text(_title(package), style="bold")
        if not full:
            title.truncate(console.width, overflow="ellipsis")
        console.print(title, soft_wrap=True)
        if package.get("problem"):
            console.print(Text(f"  cannot be used: {package['problem']}", style="red"), soft_wrap=True)
        for option in package["options"]:
            head = Text.assemble("  ", (option["option"].ljust(width), "cyan"), f"  {option['summary']}")
            if not full:
                head.truncate(console.width, overflow="ellipsis")
            console.print(head, soft_wrap=True)
            for line in _lines(option) if full else ():
                console.print(Text(f"      {line}", style="dim"), soft_wrap=True)
    if not full:
        console.print(Text("whole sentences and parameters: alignlab plugins NAME, such as dpo", style="dim"))


def _title(package: Mapping[str, Any]) -> str:
    what = f"plugin {package['plugin']}" if package["plugin"] else ""
    version = f"{package['distribution']} {package['version']}" if "distribution" in package else ""
    return f"{package['package']}  ({', '.join(filter(None, (what, version)))})"


def _lines(option: Mapping[str, Any]) -> list[str]:
    """One line per parameter: name, default, and the comment in the file."""
    lines = [f"with {' '.join(option['uses'])}"] if option["uses"] else []
    for key, value in _flat(option["parameters"]):
        comment = option["comments"].get(key, "")
        lines.append(f"{key}: {_show(value)}{f'   # {comment}' if comment else ''}")
    return lines


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
