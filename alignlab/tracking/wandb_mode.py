"""Decide before training whether W&B can be reached, so that no network never costs more than a few seconds."""

import netrc
import os
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from alignlab.errors import ConfigError

Mode = Literal["auto", "online", "offline", "off"]

PATIENCE = 3.0
"""Seconds that the network is given to answer."""

_FROM_ENVIRONMENT: dict[str, Mode] = {
    "online": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "off",
}


def decide(mode: Mode, folder: Path) -> tuple[Mode, str]:
    """The mode in effect on this machine, and one line that explains it (empty where none is needed).

    `WANDB_MODE` is read where the config says "auto".

    Raises:
        ConfigError: online was asked for and there is no key.
    """
    if mode == "auto":
        mode = _FROM_ENVIRONMENT.get(os.environ.get("WANDB_MODE", ""), "auto")
    if mode == "off":
        return "off", ""
    later = f"runs stay in {folder / 'wandb'} until `wandb sync` sends them"
    if mode == "offline":
        return "offline", f"W&B is offline: {later}"
    if not has_key():
        if mode == "online":
            raise ConfigError(
                "tracking=online needs a W&B key: run `wandb login` or set WANDB_API_KEY, or choose tracking=offline"
            )
        return "offline", f"W&B has no key, so it is offline: {later}"
    if not reachable():
        return "offline", f"W&B does not answer at {base_url()}, so it is offline: {later}"
    return "online", f"W&B is online at {base_url()}"


def base_url() -> str:
    """The server that W&B runs are sent to."""
    return os.environ.get("WANDB_BASE_URL", "").rstrip("/") or "https://api.wandb.ai"


def has_key() -> bool:
    """Whether a key is in the environment or in the netrc file. The key itself is not kept."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    candidates = (os.environ.get("NETRC", ""), "~/.netrc", "~/_netrc")
    return any(_names_host(Path(c).expanduser()) for c in candidates if c)


def _names_host(file: Path) -> bool:
    try:
        return netrc.netrc(file).authenticators(urlsplit(base_url()).hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False  # no such file, or one that wandb could not read either


def reachable() -> bool:
    """Whether the server gives any answer within `PATIENCE` seconds; proxies of the environment are used."""
    answered = threading.Event()
    # In a thread of its own, because looking up a name has no timeout.
    threading.Thread(target=_ask, args=(base_url(), answered), daemon=True).start()
    return answered.wait(PATIENCE + 0.5)


def _ask(url: str, answered: threading.Event) -> None:
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE).close()
    except urllib.error.HTTPError as answer:  # a refusal is an answer
        answer.close()
    except (OSError, ValueError):
        return
    answered.set()
