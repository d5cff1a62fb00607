"""The file that a command writes: checked before the work begins, written in one step."""

from pathlib import Path

from alignlab.errors import ConfigError


def check_out(out: Path) -> None:
    """Refuse a place where nothing can be written.

    Raises:
        ConfigError: it is a folder or a device, its folder is not there, or nothing can be written there.
    """
    if out.is_dir():
        raise ConfigError(f"--out: {out} is a folder; name a file")
    if out.exists() and not out.is_file():
        raise ConfigError(f"--out: {out} is not an ordinary file, which would take its place; name a file")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out: there is no folder {out.absolute().parent}; make it first")
    try:
        _temporary(out).touch()
        _temporary(out).unlink()
    except OSError as error:
        raise ConfigError(f"--out: {out} cannot be written ({error})") from error


def write_out(out: Path, text: str) -> None:
    """Write the file in one step: a reader sees the old one or the new one.

    Raises:
        ConfigError: the file cannot be written.
    """
    temporary = _temporary(out)
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(out)
    except OSError as error:
        raise ConfigError(f"--out: {out} cannot be written ({error})") from error


def _temporary(out: Path) -> Path:
    return out.with_name(f".{out.name}.tmp")
