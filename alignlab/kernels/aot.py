# mypy: disable-error-code="import-untyped,import-not-found"
"""Compile every Triton kernel without a GPU, and report registers, shared memory and spills.

`python -m alignlab.kernels.aot [80 90]` prints one line per kernel. Compilation needs neither a GPU nor a driver, so
that a change that no longer compiles, or no longer fits, fails where there is none.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from alignlab.kernels import triton_kernels as kernels
from alignlab.kernels.triton_launch import Blocks

SHARED_LIMIT = {80: 163 * 1024, 86: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024}  # bytes per program, by capability
INTEGERS = {"N", "V", "D", "start"}
SCALARS = {"inner", "outer"}
FLOATS = {"B", "PEAK", "TOTAL", "MOMENT", "CHOSEN", "G", "A", "C", "TILE_PEAK"}


@dataclass(frozen=True)
class Compiled:
    """Resources that one kernel needs: registers per thread, bytes of shared memory, spilling instructions."""

    name: str
    capability: int
    registers: int
    shared: int
    spills: int
    tensor_core: int

    def __str__(self) -> str:
        return (
            f"sm_{self.capability} {self.name:60s} {self.registers:4d} registers  {self.shared / 1024:6.1f} KiB shared"
            f"  {self.spills:4d} spills  {self.tensor_core:4d} tensor-core instructions"
        )


def cases(capability: int) -> Iterator[tuple[str, Any, dict[str, Any], str, Blocks]]:
    """Yield (name, kernel, flags, element type, blocks) of every variant that training launches.

    From sm_90 on operands are read by descriptor, and by pointers where a row is not a multiple of 16 bytes.
    """
    for element in ("bf16", "fp16", "fp32"):
        blocks = Blocks.of_capability((capability // 10, capability % 10), half=element != "fp32")
        for desc in (True, False) if capability >= 90 else (False,):
            way = " by pointers" if capability >= 90 and not desc else ""
            for extra in (False, True):
                flags = {"ENTROPY": extra, "SOFTCAP": extra, "BIAS": extra, "DESC": desc, "DESC_DZ": desc}
                features = "all features" if extra else "plain"
                label = f"{element} {features}{way}, {blocks.tokens}x{blocks.words}x{blocks.width}"
                yield f"tile_statistics {label}", kernels.tile_statistics, {**flags, "STORE": False}, element, blocks
                yield (
                    f"tile_statistics+store {label}",
                    kernels.tile_statistics,
                    {**flags, "STORE": True},
                    element,
                    blocks,
                )
                yield f"slab_gradient {label}", kernels.slab_gradient, flags, element, blocks
                if not way:  # it reads neither operand
                    rest = {"ENTROPY": extra, "SOFTCAP": extra}
                    yield f"stored_gradient {label}", kernels.stored_gradient, rest, element, blocks


def compile_for(capability: int, only: str = "") -> Iterator[Compiled]:
    """Compile the variants whose name contains `only` for one capability (80 is sm_80)."""
    for name, kernel, flags, element, blocks in cases(capability):
        if only in name:
            yield _compile(name, kernel, flags, element, blocks, capability)


def _compile(name: str, kernel: Any, flags: dict[str, Any], element: str, blocks: Blocks, capability: int) -> Compiled:
    constants = _constants(kernel, flags, blocks)
    types = {arg: "constexpr" if arg in constants else _type(arg, element, flags, blocks) for arg in kernel.arg_names}
    odd = "by pointers" in name
    args = enumerate(kernel.arg_names)
    aligned = {(i,): [["tt.divisibility", 16]] for i, arg in args if _aligned(arg, types[arg], odd=odd)}
    options = {"num_warps": blocks.warps, "num_stages": blocks.stages} if "BK" in kernel.arg_names else {}
    source = ASTSource(kernel, types, constants, aligned)
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    usage, code = _inspect(built.asm["cubin"])
    registers = re.search(r"REG:(\d+)", usage)
    return Compiled(
        name,
        capability,
        int(registers.group(1)) if registers else -1,
        built.metadata.shared,
        len(re.findall(r"\b(?:STL|LDL)\b", code)),
        len(re.findall(r"\bH(?:G)?MMA\b", code)),
    )


def _constants(kernel: Any, flags: dict[str, Any], blocks: Blocks) -> dict[str, Any]:
    """Return the compile-time arguments: flags, block shape, and None for the tensors that a variant lacks."""
    tile = kernel is not kernels.stored_gradient
    shape = {"BM": blocks.tokens if tile else 8, "BN": blocks.words, "BK": blocks.width, "GROUP": blocks.group}
    constants = {**shape, "TILE": blocks.words, "WIDEN": False, "PRECISION": "ieee", **flags}
    absent = {"B": flags.get("BIAS"), "MOMENT": flags["ENTROPY"], "C": flags["ENTROPY"], "E": flags.get("STORE", True)}
    constants.update({arg: None for arg, there in absent.items() if not there})
    return {arg: value for arg, value in constants.items() if arg in kernel.arg_names}


def _type(arg: str, element: str, flags: dict[str, Any], blocks: Blocks) -> str:
    if arg in INTEGERS:
        return "i32"
    if arg in SCALARS:
        return "fp32"
    if arg == "Y":
        return "*i64"
    if arg in ("H", "W") and flags.get("DESC"):
        return f"tensordesc<{element}[{blocks.tokens if arg == 'H' else blocks.words}, {blocks.width}]>"
    if arg == "DZ" and flags.get("DESC_DZ"):
        return f"tensordesc<{element}[{blocks.tokens}, {blocks.words}]>"
    return "*fp32" if arg in FLOATS else f"*{element}"


def _aligned(arg: str, kind: str, *, odd: bool) -> bool:
    """Return whether a launch would find this argument divisible by 16: pointers, and sizes as models have them.

    An `odd` width leaves neither D nor where a slab of the head begins divisible.
    """
    if arg == "D" or (arg == "W" and kind.startswith("*")):
        return not odd
    return kind.startswith("*") or arg in ("V", "start")


def _inspect(cubin: bytes) -> tuple[str, str]:
    """Return resource usage and machine code, by the tools that Triton brings along."""
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        commands = [[str(tools / "cuobjdump"), "-res-usage", file.name], [str(tools / "nvdisasm"), file.name]]
        usage, code = (subprocess.run(c, capture_output=True, text=True, check=True).stdout for c in commands)
    return usage, code


def main(capabilities: list[int]) -> int:
    """Print one line per kernel; return 1 if one does not fit into shared memory."""
    print(f"triton {triton.__version__}, torch {torch.__version__}, no GPU needed")
    fits = True
    for capability in capabilities:
        for compiled in compile_for(capability):
            print(compiled, flush=True)
            fits &= compiled.shared <= SHARED_LIMIT[capability]
    return 0 if fits else 1


if __name__ == "__main__":
    sys.exit(main([int(arg) for arg in sys.argv[1:]] or [80, 90]))
