"""Render a chat template in a process of its own, with limits on its time, memory and output.

Run as a script: jinja2's sandbox keeps a foreign template from running code, but not from looping for ever. What is
rendered here is thrown away; only whether it ends counts. Imports nothing of alignlab, so that it starts quickly.
"""

import contextlib
import json
import sys
from typing import Any

SECONDS, BYTES, CHARACTERS = 5, 2**30, 10**6
TOO_LONG = 3


def main() -> int:
    """Read `{"template", "renderings"}` from standard input; `TOO_LONG` if a rendering grows beyond all bounds."""
    job = json.load(sys.stdin)
    _limit()
    try:
        template = _environment().from_string(job["template"])
        return TOO_LONG if any(_is_too_long(template, values) for values in job["renderings"]) else 0
    except MemoryError:
        return TOO_LONG
    except Exception:  # it is broken: transformers renders it again, and says why
        return 0


def _environment() -> Any:
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """`{% generation %}`, as transformers has it, without marking anything."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.globals["strftime_now"] = lambda form: form
    return environment


def _is_too_long(template: Any, values: dict[str, Any]) -> bool:
    length = 0
    try:
        for part in template.generate(values):
            length += len(part)
            if length > CHARACTERS:
                return True
    except MemoryError:
        return True
    except Exception:  # it refuses this conversation
        return False
    return False


def _limit() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # not every system has them
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))


if __name__ == "__main__":
    sys.exit(main())
