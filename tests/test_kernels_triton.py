"""The Triton kernels without a GPU: run by the interpreter, and compiled for the GPUs that they are meant for.

Run as a script under TRITON_INTERPRET=1 this file prints the errors of each case, for the tests below to judge: the
flag must be set before a kernel is decorated, and the interpreter wants a process without a type checker in it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from test_kernels_cases import Case, absolute, case, relative

from alignlab.kernels import LogProbs, linear_loss_streamed
from alignlab.kernels.types import Head

FULL = {"entropy": True, "softcap": 3.0, "temperature": 0.7}
CASES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "float32": ({"bias": False}, "float32", {}),
    "float32, all features": ({"masked": 70}, "float32", FULL),
    "float32, a wide soft-cap": ({}, "float32", {"softcap": 30.0, "temperature": 0.25}),
    "bfloat16, entropy": ({}, "bfloat16", {"entropy": True}),
    "bfloat16, all features": ({"masked": 70}, "bfloat16", FULL),
    "float16": ({}, "float16", {}),
    "bfloat16, 150 tokens": ({"tokens": 150}, "bfloat16", {"entropy": True}),
    "float32, 150 tokens": ({"tokens": 150, "masked": 70}, "float32", {"entropy": True}),
    "vanished targets": ({"scale": 60.0}, "float32", {"softcap": 80.0, "temperature": 0.5}),
    "large logits": ({"scale": 3e3, "bias": False}, "float32", {"entropy": True}),
    "one token": ({"tokens": 1, "ignored": 0}, "float32", {}),
}
TINY = 0.001  # MiB: the statistics of 32 tokens and one slab of gradients at a time
SHAPE = {"tokens": 41, "vocabulary": 171, "width": 40}  # several tiles along each axis, none of them whole


def errors(name: str) -> dict[str, float]:
    """Errors of the interpreted kernels against float64, and those of eager autograd in the same type."""
    shape, dtype, options = CASES[name]
    problem = case(**{**SHAPE, **shape}).to(getattr(torch, dtype))
    truth = problem.to(torch.float64)
    want = truth.run("reference", **options)
    got = problem.run("triton", workspace_mb=TINY, **options)
    pairs = list(zip(problem.pull(got), truth.pull(want), strict=True))
    found = {f"stat {i}": absolute(a, b) for i, (a, b) in enumerate(zip(got, want, strict=True)) if a is not None}
    return found | {f"gradient {i}": relative(a, b) for i, (a, b) in enumerate(pairs)} | streamed(problem, options)


def streamed(problem: Case, options: dict[str, Any]) -> dict[str, float]:
    """The same for a loss with gradients in the forward."""
    truth = problem.to(torch.float64)

    def loss(stats: LogProbs, tokens: torch.Tensor) -> torch.Tensor:
        terms = [u[tokens].to(s.dtype) * s for u, s in zip(problem.upstream, stats, strict=True) if s is not None]
        return torch.stack(terms).sum(0)

    for implementation, own in (("triton", problem), ("reference", truth)):
        out = linear_loss_streamed(
            own.hidden, own.weight, own.targets, loss, own.bias,
            implementation=implementation, workspace_mb=TINY, **options,
        )  # fmt: skip
        (0.3 * out.loss).backward()
    both = zip(problem.leaves(), truth.leaves(), strict=True)
    return {f"streamed gradient {i}": relative(a.grad, b.grad) for i, (a, b) in enumerate(both)}


def apart(some: Iterable[torch.Tensor], others: Iterable[torch.Tensor]) -> float:
    """The largest difference; not a number where one of them is none, which Python's own max would lose."""
    return float(torch.tensor([absolute(a, b) for a, b in zip(some, others, strict=True)]).max())


def corners() -> dict[str, float]:
    """Nothing to score, gradients of stride 0, and the same bits twice; each of these is 0 when right."""
    empty, nothing = case(0, 70, 8, ignored=0).to(torch.float32), case(3, 70, 8, ignored=3).to(torch.float32)
    gradients = [g for c in (empty, nothing) for g in c.pull(c.run("triton", entropy=True))]
    one, two = case(**SHAPE).to(torch.float32), case(**SHAPE).to(torch.float32)
    expanded = torch.autograd.grad(one.run("triton").logp.sum(), one.leaves())
    dense = torch.autograd.grad(two.run("triton").logp, two.leaves(), torch.ones(SHAPE["tokens"]))
    return (
        strided_targets()
        | other_ways()
        | {
            "second derivative": second_derivative(),
            "empty": float(sum(g.abs().sum() for g in gradients)),
            "stride": apart(expanded, dense),
        }
    )


def other_ways() -> dict[str, float]:
    """Differences that strided operands, tiles in several groups, and operands by descriptor make: none."""
    from alignlab.kernels import triton_launch, triton_path  # here, since Triton need not be installed

    plain = case(150, 171, 40, masked=70).to(torch.float32)
    targets = plain.targets.clamp(min=70)
    blocks = triton_launch.Blocks(tokens=32, words=64, width=32, group=2)

    def result(turned: bool = False) -> list[torch.Tensor]:
        hidden, weight = (t.t().contiguous().t() if turned else t for t in (plain.hidden, plain.weight))
        assert hidden.is_contiguous() != turned
        out = triton_path.logprobs(
            hidden, weight, plain.bias, targets, Head(), entropy=True, workspace_mb=TINY, blocks=blocks
        )
        return [out.logp, *plain.pull(out)]

    found = {}
    whole = plain.to(torch.float64)
    whole.targets = targets
    stats = whole.run("reference", entropy=True)
    truth, want = [stats.logp, *whole.pull(stats)], result()
    found["groups"] = float(not all(relative(a, b) < 1e-6 for a, b in zip(want, truth, strict=True)))
    found["strided operands"] = apart(result(turned=True), want)
    tma, triton_launch.tma = triton_launch.tma, lambda m: m.shape[1] * m.element_size() % 16 == 0
    found["descriptors"] = apart(result(), want)
    programs = triton_launch.Launch._programs
    triton_launch.Launch._programs = lambda *_: (3,)
    found["several tiles a program"] = apart(result(), want)
    triton_launch.Launch._programs, triton_launch.tma = programs, tma
    scaled, by = torch.randn(3, 1700), torch.tensor(0.3)
    wanted = scaled * by
    triton_launch.scale(scaled, by)
    triton_launch.scale(scaled, torch.ones(()))
    return found | {"scaled": apart([scaled], [wanted])}


def second_derivative() -> float:
    """1 where the gradient of a gradient is a number, not an error."""
    problem = case(**SHAPE).to(torch.float32)
    logp = problem.run("triton").logp.sum()
    (g,) = torch.autograd.grad(logp, problem.hidden, create_graph=True)
    try:
        torch.autograd.grad(logp + (g**2).sum(), problem.hidden)
    except RuntimeError as error:
        return float("no second derivative" not in str(error))
    return 1.0


def strided_targets() -> dict[str, float]:
    """Differences that the strides of targets make, a column of a matrix and one value expanded: none."""
    found = {}
    for name, ids in (("column", torch.arange(82).view(41, 2)), ("expanded", torch.tensor([[7]]).expand(41, 2))):
        rows, dense = case(**SHAPE, ignored=0).to(torch.float32), case(**SHAPE, ignored=0).to(torch.float32)
        rows.targets, dense.targets = ids[:, 0], ids[:, 0].contiguous()
        both = [(*c.run("triton")[:2], *c.pull(c.run("triton"))) for c in (rows, dense)]
        found[f"targets, {name}"] = apart(*both)
        losses = [
            linear_loss_streamed(c.hidden, c.weight, c.targets, lambda s, _: s.logp, implementation="triton")
            for c in (rows, dense)
        ]
        found[f"targets, {name}, streamed"] = absolute(losses[0].loss, losses[1].loss)
    return found


def _version(package: str) -> tuple[int, int]:
    major, minor = metadata.version(package).split(".")[:2]
    return int(major), int(minor)


@pytest.fixture(scope="module")
def interpreted() -> dict[str, dict[str, float]]:
    """All cases in one process, whose start costs more than they do."""
    pytest.importorskip("triton")
    if _version("triton") < (3, 7) and _version("numpy") >= (2, 4):
        pytest.skip("the interpreter of Triton before 3.7 fails under NumPy 2.4 and later; install numpy<2.4")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith(("float32", "one"))])
def test_interpreted_float32_is_exact(name: str, interpreted: dict[str, dict[str, float]]) -> None:
    logits = {"float32, a wide soft-cap": 8e-6, "float32, 150 tokens": 3e-6}.get(name, 2e-6)  # they are this uncertain
    for what, error in interpreted[name].items():
        assert error < (logits if what.startswith("stat") else 1e-6), what


@pytest.mark.parametrize(("name", "bound"), [(n, 4e-3 if n.startswith("b") else 5e-4) for n in CASES if "16" in n])
def test_interpreted_half_types_round_once(name: str, bound: float, interpreted: dict[str, dict[str, float]]) -> None:
    """Statistics as in float32; gradients within the rounding of the type that they are returned in."""
    for what, error in interpreted[name].items():
        assert error < (2e-6 if what.startswith("stat") else 1.5 * bound), what


def test_interpreted_logits_of_ten_thousand(interpreted: dict[str, dict[str, float]]) -> None:
    """A float32 product of 1e4 is itself uncertain by 1e-3."""
    assert max(interpreted["large logits"].values()) < 1e-2


def test_interpreted_targets_that_have_vanished(interpreted: dict[str, dict[str, float]]) -> None:
    """As `chunked`: float32 logits of a hundred are good to 1e-5, and so are probabilities."""
    for what, error in interpreted["vanished targets"].items():
        assert error < (1e-4 if "gradient" in what else 6e-5), what


def test_interpreted_corners(interpreted: dict[str, dict[str, float]]) -> None:
    wrong = {name: error for name, error in interpreted["corners"].items() if error}
    assert len(interpreted["corners"]) == 12 and not wrong


def compiled(capability: int, only: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Compile the variants whose name holds `only`, none of them from an earlier run's cache."""
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from alignlab.kernels.aot import compile_for

    return list(compile_for(capability, only))


@pytest.mark.parametrize("capability", [80, pytest.param(90, marks=pytest.mark.slow)])
def test_every_kernel_compiles_and_fits(capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all features on, in bfloat16: a shared memory that fits, tensor cores, and few spills, in the epilogue."""
    from alignlab.kernels.aot import SHARED_LIMIT

    found = compiled(capability, "bf16 all features,", tmp_path, monkeypatch)
    print(*found, sep="\n")
    assert len(found) == 4
    for kernel in found:
        assert kernel.shared <= SHARED_LIMIT[capability]
        assert kernel.spills <= 96
        assert kernel.tensor_core > 0 or kernel.name.startswith("stored_gradient")


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_every_variant_compiles_and_fits(capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without features, which is how most training runs, no half type spills by the way that most models take."""
    from alignlab.kernels.aot import SHARED_LIMIT

    found = compiled(capability, "", tmp_path, monkeypatch)
    print(*found, sep="\n")
    assert all(kernel.shared <= SHARED_LIMIT[capability] for kernel in found)
    assert not any(kernel.spills for kernel in found if "16 plain," in kernel.name)
    for half in ("bf16", "fp16"):
        assert all(k.tensor_core for k in found if half in k.name and not k.name.startswith("stored_gradient"))
    assert {kernel.name.split()[1] for kernel in found} == {"bf16", "fp16", "fp32"}
    assert any("by pointers" in kernel.name for kernel in found) == (capability >= 90)


if __name__ == "__main__":
    print(json.dumps({name: errors(name) for name in CASES} | {"corners": corners()}))
