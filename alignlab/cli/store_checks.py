"""Checks of a store's folder and its file system, for `alignlab doctor`."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from alignlab.cli.finding import Finding, State, last_line, python
from alignlab.cli.units import amount

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
            second = python(HOLD, file, timeout=PATIENCE).stdout.strip()
        finally:
            first.kill()
            first.communicate()
    if second != "refused":
        return Finding("locks", "fail", "two processes hold one lock at once", advice)
    return Finding("locks", "ok", "exclusive between two processes of this machine")


def _errors(process: "subprocess.Popen[str]") -> str:
    process.kill()
    return last_line(process.communicate()[1])


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
