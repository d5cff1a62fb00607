"""Time, memory and error of the fused loss and its peers: `python experiments/fused_loss/benchmark.py`.

Implementations alternate within every round of one process, so that a busy machine slows all of them alike; the peak
memory of each is taken in a process of its own. Writes results.csv and fused_loss.png beside this file, on a GPU
results-gpu.csv and fused_loss-gpu.png.
"""

import argparse
import csv
import importlib.metadata
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import figure
import torch
from candidates import Candidate, candidates
from torch import Tensor

HERE = Path(__file__).parent
SHAPES = {
    "cpu": [(2048, 32000, 512), (1024, 4096, 256), (1024, 512, 128)],
    "cuda": [(8192, 128256, 4096), (16384, 151936, 2048), (8192, 4096, 512)],
}
"""(tokens, vocabulary, width); the last of each is the size of the laboratory's own models."""
PASSES = ("forward", "forward+backward")
MIB = 2**20


def inputs(shape: tuple[int, int, int], device: str) -> tuple[Tensor, Tensor, Tensor]:
    tokens, words, width = shape
    g = torch.Generator(device).manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    hidden = torch.randn(tokens, width, device=device, generator=g).to(dtype)
    weight = (torch.randn(words, width, device=device, generator=g) / width**0.5).to(dtype)
    return (
        hidden.requires_grad_(),
        weight.requires_grad_(),
        torch.randint(0, words, (tokens,), device=device, generator=g),
    )


def once(candidate: Candidate, data: tuple[Tensor, Tensor, Tensor], kind: str) -> Tensor:
    """One pass; the gradients of the last one are gone before the clock starts."""
    with torch.set_grad_enabled(kind != "forward"):
        loss = candidate.loss(*data)
        if kind != "forward":
            loss.backward()
    return loss.detach()


def seconds(run: Callable[[], Any], device: str) -> tuple[float, float]:
    """Wall-clock seconds of a run and, on a CPU, the seconds that its threads worked, which others disturb less."""
    if device == "cuda":
        torch.cuda.synchronize()
    start, worked = time.perf_counter(), time.process_time()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - worked


def clear(data: tuple[Tensor, Tensor, Tensor]) -> None:
    data[0].grad = data[1].grad = None


def times(found: list[Candidate], shape: tuple[int, int, int], device: str, rounds: int) -> dict[tuple[str, str], list]:
    """Seconds of every pass of every candidate, round by round; the first round warms up and is dropped."""
    data = inputs(shape, device)
    taken: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for index in range(rounds + 1):
        for candidate in found:
            for kind in PASSES:
                clear(data)
                spent = seconds(lambda c=candidate, k=kind: once(c, data, k), device)
                if index:
                    taken.setdefault((candidate.name, kind), []).append(spent)
    clear(data)
    return taken


def oracle(data: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and gradients in float64, by autograd over blocks of tokens."""
    hidden, weight, targets = data
    w = weight.detach().double().requires_grad_()
    loss, parts = torch.zeros((), dtype=torch.float64, device=w.device), []
    for start in range(0, len(hidden), 512):
        h = hidden[start : start + 512].detach().double().requires_grad_()
        part = torch.nn.functional.cross_entropy(h @ w.t(), targets[start : start + 512], reduction="sum")
        part.backward()
        parts.append(h.grad)
        loss += part.detach()
    return loss, torch.cat(parts), w.grad


def errors(found: list[Candidate], shape: tuple[int, int, int], device: str) -> dict[str, list[float]]:
    """Relative errors of loss, hidden gradient and weight gradient (Frobenius) against the oracle."""
    data = inputs(shape, device)
    truth = oracle(data)
    result: dict[str, list[float]] = {}
    for candidate in found:
        clear(data)
        loss = once(candidate, data, "forward+backward")
        pairs = zip((loss, data[0].grad, data[1].grad), truth, strict=True)
        result[candidate.name] = [float((a.double() - b).norm() / b.norm()) for a, b in pairs]
    return result


def extra(name: str, shape: tuple[int, int, int], device: str, kind: str) -> float:
    """Peak MiB above the inputs (gradients included) of one pass, in a process of its own on a CPU."""
    if device == "cuda":
        return _extra_here(name, shape, device, kind)
    command = [sys.executable, __file__, "--memory-of", name, "--shape", *map(str, shape), "--pass", kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else float("nan")


def _extra_here(name: str, shape: tuple[int, int, int], device: str, kind: str) -> float:
    candidate = next(c for c in candidates(device) if c.name == name)
    small, data = inputs((256, 512, shape[2]), device), inputs(shape, device)
    once(candidate, small, kind)  # libraries and kernels loaded
    clear(small)
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        once(candidate, data, kind)
        return (torch.cuda.max_memory_allocated() - before) / MIB
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status("VmRSS")
    once(candidate, data, kind)
    return _status("VmHWM") - before


def _status(key: str) -> float:
    """MiB of this process, as Linux counts them."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def works(found: list[Candidate], shape: tuple[int, int, int], device: str) -> list[Candidate]:
    """Leave out, aloud, what does not run here at this shape."""
    able = []
    for candidate in found:
        try:
            for kind in PASSES:
                once(candidate, inputs((256, 512, 128), device), kind)
                once(candidate, inputs(shape, device), kind)
            able.append(candidate)
        except Exception as error:  # a peer may fail in any way
            print(
                f"left out: {candidate.name} ({type(error).__name__}: {str(error).splitlines()[0][:120]})", flush=True
            )
    return able


def gemm(shape: tuple[int, int, int], device: str, repeats: int = 200) -> float:
    """Least seconds of the one product that nothing can avoid, hidden times head, measured here on a part of the head.

    A part that stays in the cache, many times over: short enough to meet an undisturbed moment on a shared machine.
    """
    hidden, weight, _ = inputs(shape, device)
    part = weight[: 1024 if device == "cpu" else None]
    room = torch.empty(shape[0], len(part), dtype=hidden.dtype, device=device)
    with torch.no_grad():
        least = min(seconds(lambda: torch.mm(hidden, part.t(), out=room), device)[0] for _ in range(repeats))
    return least * shape[1] / len(part)


def versions(device: str) -> dict[str, str]:
    name = (
        torch.cuda.get_device_name()
        if device == "cuda"
        else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    )
    packages = {}
    for package in ("torch", "triton", "liger_kernel", "cut_cross_entropy"):
        try:
            packages[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            packages[package] = "absent"
    return {"device": name, "python": platform.python_version(), **packages, "date": time.strftime("%Y-%m-%d")}


def measure(shape: tuple[int, int, int], device: str, rounds: int, only: list[str]) -> list[dict[str, Any]]:
    """All rows of one shape; with `only`, of the implementations whose name holds one of these words."""
    named = [c for c in candidates(device) if not only or any(word in c.name for word in only)]
    found = works(named, shape, device)
    wrong, taken = errors([c for c in found if not c.grpo], shape, device), times(found, shape, device, rounds)
    product, facts, rows = gemm(shape, device), versions(device), []
    for candidate in found:
        for kind in PASSES:
            spent, worked = zip(*taken[candidate.name, kind], strict=True)
            loss, hidden, weight = wrong.get(candidate.name, [float("nan")] * 3)
            row = dict(zip(("tokens", "vocabulary", "width"), shape, strict=True))
            row |= {"implementation": candidate.name, "ours": int(candidate.ours), "pass": kind}
            row |= {"median_ms": 1e3 * statistics.median(spent), "min_ms": 1e3 * min(spent), "max_ms": 1e3 * max(spent)}
            memory = extra(candidate.name, shape, device, kind) if kind != "forward" else float("nan")
            row |= {"cpu_ms": 1e3 * min(worked), "extra_mib": memory, "gemm_ms": 1e3 * product, "rounds": rounds}
            row |= {"loss_error": loss, "hidden_error": hidden, "weight_error": weight} | facts
            rows.append({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})
            print(
                json.dumps(
                    {k: rows[-1][k] for k in ("implementation", "pass", "median_ms", "min_ms", "cpu_ms", "extra_mib")}
                ),
                flush=True,
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", default=[], help="words; measure what has one of them in its name")
    parser.add_argument("--out", type=Path, default=HERE, help="where results.csv and the figure go")
    parser.add_argument("--threads", type=int, default=2, help="of a CPU")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--shape", type=int, nargs=3, help="tokens, vocabulary, width; by default the recorded ones")
    parser.add_argument("--pass", dest="kind", default="forward+backward", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch._dynamo.config.automatic_dynamic_shapes = False  # what compiles, compiles for the shape that is measured
    if args.memory_of:
        print(_extra_here(args.memory_of, tuple(args.shape), args.device, args.kind))
        return
    shapes = [tuple(args.shape)] if args.shape else SHAPES[args.device]
    rows: list[dict[str, Any]] = []
    suffix = "-gpu" if args.device == "cuda" else ""
    table = args.out / f"results{suffix}.csv"
    for shape in shapes:
        rows += measure(shape, args.device, args.rounds, args.only)
        write(rows, table)
    figure.draw(table, args.out / f"fused_loss{suffix}.png")


def write(rows: list[dict[str, Any]], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
