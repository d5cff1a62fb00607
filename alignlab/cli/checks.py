"""Checks of a machine and a store, for `alignlab doctor`."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from alignlab import __version__
from alignlab.cli import store_checks
from alignlab.cli.finding import Finding, last_line, python


def every_check(store: Path, offline: bool = False) -> Iterator[Finding]:
    """All findings, the quick ones first.

    Args:
        store: folder of the store; it need not be there yet.
        offline: ask no server.
    """
    yield Finding("alignlab", "ok", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    yield from versions()
    yield store_checks.open_files()
    folder = next(folder for folder in (store, *store.parents) if folder.is_dir())
    can_write = store_checks.writable(store, folder)
    yield can_write
    if can_write.state == "ok":
        yield from _guarded("locks", lambda: store_checks.locks(folder))
    yield from _guarded("disk", lambda: store_checks.disk(folder))
    yield from _guarded("inodes", lambda: store_checks.inodes(folder))
    yield from _guarded("temporary", lambda: store_checks.temporary(folder))
    yield compiler()
    yield from _guarded("gpu", gpu)
    yield from _guarded("wandb", lambda: wandb(offline))


def _guarded(name: str, check: Callable[[], Finding]) -> Iterator[Finding]:
    """A finding; where the check itself cannot be made, that is one."""
    try:
        yield check()
    except Exception as error:
        yield Finding(name, "warn", f"could not be checked ({type(error).__name__}: {error})")


# ---- what is installed -----------------------------------------------------------------------------------------------
def versions() -> Iterator[Finding]:
    """Versions of what alignlab requires, those outside of the tested range first."""
    try:
        required = importlib.metadata.requires("alignlab") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding("versions", "warn", "alignlab is not installed, so its bounds are not known", "make install")
        return
    good = []
    for name, bounds in map(_requirement, required):
        if not name:
            continue
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "fail", "not installed", f"pip install '{name}{bounds}'")
            continue
        if fits(version, bounds):
            good.append(f"{name} {version}")
        else:
            wanted = f"{version} is outside of what is tested ({bounds})"
            yield Finding(name, "warn", wanted, f"pip install '{name}{bounds}'")
    yield Finding("versions", "ok", ", ".join(good))


def _requirement(text: str) -> tuple[str, str]:
    """Name and bounds of what is always required on this machine; empty names for extras and other systems."""
    what, _, marker = text.partition(";")
    if "extra ==" in marker or ("platform_system" in marker and not _is_linux(marker)):
        return "", ""
    found = re.match(r"([A-Za-z0-9_.\-]+)(?:\[[^\]]*\])?\s*(.*)", what.strip())
    return (found[1], found[2].strip("() ")) if found else ("", "")


def _is_linux(marker: str) -> bool:
    named = re.search(r"platform_machine == [\"'](\w+)", marker)
    return platform.system() == "Linux" and (named is None or named[1] == platform.machine())


def fits(version: str, bounds: str) -> bool:
    """Whether a version lies within bounds such as `>=2.11,<2.14`."""
    parts = [re.match(r"(>=|<=|==|<|>|!=)\s*([\w.]+)", bound.strip()) for bound in bounds.split(",") if bound.strip()]
    compared = [(p[1], _numbers(version), _numbers(p[2])) for p in parts if p]
    tests: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
        ">=": lambda a, b: a >= b, "<": lambda a, b: a < b, "<=": lambda a, b: a <= b,
        ">": lambda a, b: a > b, "==": lambda a, b: a == b, "!=": lambda a, b: a != b,
    }  # fmt: skip
    return all(tests[sign](have, wanted) for sign, have, wanted in compared)


def _numbers(version: str) -> tuple[int, ...]:
    """`2.13.0+cpu` as numbers, of one length for all."""
    found = [int(part) for part in re.findall(r"\d+", re.split(r"[+a-z]", version)[0])]
    return tuple([*found, 0, 0, 0, 0][:4])


def compiler() -> Finding:
    """A C compiler, which Triton and torch.compile call."""
    found = next(
        (path for name in (os.environ.get("CC", ""), "cc", "gcc", "clang") if (path := shutil.which(name))), ""
    )
    if found:
        return Finding("compiler", "ok", found)
    advice = "install gcc or set CC, if you use runtime.compile or fused kernels on a GPU"
    return Finding("compiler", "warn", "no C compiler", advice)


def gpu() -> Finding:
    """GPUs that torch sees, asked in a process of its own: a broken driver may hang or crash it."""
    program = (
        "import torch\n"
        "n = torch.cuda.device_count() if torch.cuda.is_available() else 0\n"
        "names = [f'{torch.cuda.get_device_name(i)} ({torch.cuda.get_device_properties(i).total_memory / 2**30:.0f}"
        " GiB)' for i in range(n)]\n"
        "print(torch.__version__, torch.version.cuda or 'no CUDA', '; '.join(names) or 'no GPU', sep='|')"
    )
    try:
        done = python(program, timeout=120)
    except subprocess.TimeoutExpired:
        return Finding("gpu", "fail", "torch did not answer within 2 minutes", "look at nvidia-smi and the driver")
    if done.returncode:
        return Finding("gpu", "fail", f"torch cannot be used: {last_line(done.stderr)}", "make install")
    torch, cuda, names = done.stdout.strip().split("|")
    built = "built without CUDA" if cuda == "no CUDA" else f"CUDA {cuda}"
    triton = _version("triton")
    told = f"torch {torch} ({built}), {f'Triton {triton}' if triton else 'no Triton'}, {names}"
    if names != "no GPU" and not triton:
        return Finding("gpu", "warn", told, "pip install triton: without it the fused kernels are not used")
    if names == "no GPU" and shutil.which("nvidia-smi"):
        return Finding("gpu", "warn", told, "there is a driver, and torch sees no GPU: install torch with CUDA")
    return Finding("gpu", "ok", told)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


# ---- W&B -------------------------------------------------------------------------------------------------------------
def wandb(offline: bool) -> Finding:
    """Whether runs can be sent; without that they stay in their folders, which does not count as a failure."""
    from alignlab.tracking import wandb_mode

    key = wandb_mode.has_key()
    if offline:
        return Finding("wandb", "ok", f"{'there is a key' if key else 'no key'}; its server was not asked")
    if not wandb_mode.reachable():
        advice = "tracking=off, or keep tracking=auto: runs stay offline and can be sent later by wandb sync"
        return Finding("wandb", "warn", f"{wandb_mode.base_url()} does not answer", advice)
    if not key:
        return Finding("wandb", "warn", f"{wandb_mode.base_url()} answers, and there is no key", "wandb login")
    return Finding("wandb", "ok", f"{wandb_mode.base_url()} answers, and there is a key")
