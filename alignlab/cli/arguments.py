"""Parse the arguments of a command; a mistake in them is reported in one message, like any other."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from alignlab.cli.columns import fitted
from alignlab.config import options
from alignlab.config.experiment import KEYS
from alignlab.errors import ConfigError, suggestion


class Parser(argparse.ArgumentParser):
    """Raises `ConfigError` where argparse would print its usage and exit.

    Args:
        prog: the command.
        description: one sentence.
        examples: commands that work, one per line, and what else is worth saying; at the end of `--help`.
    """

    def __init__(self, prog: str, *, description: str, examples: str = "") -> None:
        raw = argparse.RawDescriptionHelpFormatter
        told = fitted(examples) if examples else None
        super().__init__(prog, description=fitted(description), epilog=told, formatter_class=raw)

    def error(self, message: str) -> NoReturn:
        """Name the mistake, and where the flags are listed."""
        flags = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
        wrong = next((word for word in message.split() if word.startswith("--")), "").rstrip(":,").partition("=")[0]
        meant = "" if wrong in flags else suggestion(wrong, flags)
        raise ConfigError(f"{message}{meant}; `{self.prog} --help` lists the flags")


def check_flags(arguments: Sequence[str]) -> None:
    """Refuse an override that is written like a flag: `--experiment smoke`.

    Raises:
        ConfigError: it says how to write it.
    """
    known = {*KEYS, *options.catalog(options.options())}
    for number, word in enumerate(arguments):
        key, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and (key in known or "." in key):
            following = arguments[number + 1] if number + 1 < len(arguments) and not equals else value or "VALUE"
            raise ConfigError(f"{word}: overrides are written without dashes: {key}={following}")
