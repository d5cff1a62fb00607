"""Checks of a machine and a store, for `alignlab doctor`."""

import importlib.metadata
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from alignlab import __version__
from alignlab.cli.units import amount

State = Literal["ok", "warn", "fail"]

FILES: Final = 1024
"""Open files that data loaders and launchers soon need."""
FREE: Final = (1e9, 20e9)
"""Bytes below which a store fails, and below which it warns: a small model and its checkpoints take gigabytes."""
INODES: Final = 100_000
PATIENCE: Final = 30.0
"""Seconds that another process is given."""
HOLD: Final = """
import fcntl, sys
file = open(sys.argv[1], "a")
try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("refused", flush=True)
else:
    print("held", flush=True)
    sys.stdin.readline()
"""
"""A process that takes a lock, says so, and holds it until it is told to end."""


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Args:
        name: of what was checked.
        state: ok, warn or fail.
        found: what there is.
        advice: what to do; empty where there is nothing to do.
    """

    name: str
    state: State
    found: str
    advice: str = ""


def every_check(store: Path, offline: bool = False) -> Iterator[Finding]:
    """All findings, the quick ones first.

    Args:
        store: folder of the store; it need not be there yet.
        offline: ask no server.
    """
    yield Finding("alignlab", "ok", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    yield from versions()
    yield open_files()
    folder = next(folder for folder in (store, *store.parents) if folder.is_dir())
    can_write = writable(store, folder)
    yield can_write
    if can_write.state == "ok":
        yield from _guarded("locks", lambda: locks(folder))
    yield from _guarded("disk", lambda: disk(folder))
    yield from _guarded("inodes", lambda: inodes(folder))
    yield from _guarded("temporary", lambda: temporary(folder))
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
    """What torch sees, asked in a process of its own: a broken driver may hang or crash it."""
    program = (
        "import torch\n"
        "n = torch.cuda.device_count() if torch.cuda.is_available() else 0\n"
        "names = [f'{torch.cuda.get_device_name(i)} ({torch.cuda.get_device_properties(i).total_memory / 2**30:.0f}"
        " GiB)' for i in range(n)]\n"
        "print(torch.__version__, torch.version.cuda or 'no CUDA', '; '.join(names) or 'no GPU', sep='|')"
    )
    try:
        done = _python(program, timeout=120)
    except subprocess.TimeoutExpired:
        return Finding("gpu", "fail", "torch did not answer within 2 minutes", "look at nvidia-smi and the driver")
    if done.returncode:
        return Finding("gpu", "fail", f"torch cannot be used: {_last(done.stderr)}", "make install")
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


def _python(program: str, *arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


# ---- the store and its disk ------------------------------------------------------------------------------------------
def writable(store: Path, folder: Path) -> Finding:
    """Whether artifacts can be published: written, synchronised and renamed."""
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder) as probe:
            (Path(probe) / "a").write_text("x", encoding="utf-8")
            descriptor = os.open(probe, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            (Path(probe) / "a").rename(Path(probe) / "b")
    except OSError as error:
        advice = "choose another store_dir, or let this user write to it"
        return Finding("store", "fail", f"{folder} cannot be written to ({error.strerror})", advice)
    made = "" if store.is_dir() else f" (it will be made in {folder})"
    return Finding("store", "ok", f"{store}{made}")


def locks(folder: Path) -> Finding:
    """Whether a lock that one process holds is refused to another, as the store relies on."""
    advice = (
        "put store_dir on a file system with flock (local disks, NFS with its lock service, Lustre with -o flock); "
        "else two processes may make one stage at once"
    )
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder) as probe:
        file = str(Path(probe) / "lock")
        first = subprocess.Popen(
            [sys.executable, "-c", HOLD, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        try:
            assert first.stdout is not None
            said = first.stdout.readline().strip()
            if said != "held":
                return Finding("locks", "fail", f"this file system has no locks ({_errors(first)})", advice)
            second = _python(HOLD, file, timeout=PATIENCE).stdout.strip()
        finally:
            first.kill()
            first.communicate()
    if second != "refused":
        return Finding("locks", "fail", "two processes hold one lock at once", advice)
    return Finding("locks", "ok", "exclusive between two processes of this machine")


def _errors(process: "subprocess.Popen[str]") -> str:
    process.kill()
    return _last(process.communicate()[1])


def disk(folder: Path) -> Finding:
    """Free space where the store is."""
    free = shutil.disk_usage(folder).free
    told = f"{amount(free)} free at {folder}"
    if free < FREE[0]:
        return Finding("disk", "fail", told, "make room: alignlab gc shows what no run needs")
    if free < FREE[1]:
        return Finding("disk", "warn", told, "checkpoints of larger models will not fit; alignlab gc makes room")
    return Finding("disk", "ok", told)


def inodes(folder: Path) -> Finding:
    """Free inodes; some file systems do not count them."""
    found = os.statvfs(folder)
    if found.f_files == 0:
        return Finding("inodes", "ok", "not counted by this file system")
    state: State = "fail" if found.f_favail < INODES / 100 else "warn" if found.f_favail < INODES else "ok"
    advice = "" if state == "ok" else "remove small files: alignlab gc, and caches"
    return Finding("inodes", state, f"{found.f_favail:,} free", advice)


def temporary(folder: Path) -> Finding:
    """Where temporary files go: on another device, what is moved from there is copied, and may be seen half."""
    place = Path(tempfile.gettempdir())
    free = shutil.disk_usage(place).free
    told = f"{place}, {amount(free)} free"
    if free < FREE[0]:
        return Finding("temporary", "warn", told, "set TMPDIR to a folder with room")
    if place.stat().st_dev == folder.stat().st_dev:
        return Finding("temporary", "ok", f"{told}, on the store's device")
    advice = "set TMPDIR to a folder on the store's device, or see that it has room for a checkpoint"
    return Finding("temporary", "warn", f"{told}, on another device than the store", advice)


def open_files() -> Finding:
    """Limit on open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = "no limit" if soft == resource.RLIM_INFINITY else f"{soft:,}"
    if soft != resource.RLIM_INFINITY and soft < FILES:
        return Finding("open files", "warn", limit, f"ulimit -n {min(4096, hard) if hard > 0 else 4096}")
    return Finding("open files", "ok", limit)


# ---- W&B -------------------------------------------------------------------------------------------------------------
def wandb(offline: bool) -> Finding:
    """Whether runs can be sent; without that they stay in their folders, which is no failure."""
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
