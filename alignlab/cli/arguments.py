"""Parse the arguments of a command; a mistake in them is reported in one message, like any other."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from alignlab.config import options
from alignlab.config.experiment import KEYS
from alignlab.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """Raises `ConfigError` where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        """Name the mistake, and where the flags are listed."""
        raise ConfigError(f"{message}; `{self.prog} --help` lists the flags")


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
