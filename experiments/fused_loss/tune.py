"""Time block shapes of the Triton kernels on this GPU: `python experiments/fused_loss/tune.py`.

A short list rather than a search: shapes around the start that the kernels were designed for. Whatever wins belongs
into `Blocks.of_capability`, and the table into the README, losers included.
"""

import itertools
import statistics

import torch
from benchmark import SHAPES, clear, inputs, seconds

from alignlab.kernels import triton_path
from alignlab.kernels.triton_launch import Blocks
from alignlab.kernels.types import Head

LIST = [
    Blocks(tokens, words, 64, warps, stages, group)
    for (tokens, words, warps), stages, group in itertools.product(
        [(128, 256, 8), (256, 128, 8), (128, 128, 4), (128, 128, 8)], (3, 4), (8, 16)
    )
]


def milliseconds(shape: tuple[int, int, int], blocks: Blocks, workspace_mb: int, backward: bool) -> float:
    """Median of seven passes after two to warm up."""
    data = inputs(shape, "cuda")

    def run() -> None:
        clear(data)
        with torch.set_grad_enabled(backward):
            hidden, weight, targets = data
            out = triton_path.logprobs(
                hidden, weight, None, targets, Head(), entropy=False, workspace_mb=workspace_mb, blocks=blocks
            )
            if backward:
                out.logp.sum().backward()

    return 1e3 * statistics.median([seconds(run, "cuda")[0] for _ in range(9)][2:])


def main() -> None:
    """Print a line for each shape and block; what does not fit the GPU is reported and passed over."""
    for shape in SHAPES["cuda"][:2]:
        for blocks, workspace in [*((b, 256) for b in LIST), *((Blocks(), mb) for mb in (64, 128, 512))]:
            try:
                both = [milliseconds(shape, blocks, workspace, backward) for backward in (False, True)]
                print(f"{shape} {blocks} {workspace} MiB: forward {both[0]:.2f} ms, with backward {both[1]:.2f} ms")
            except Exception as error:  # out of shared memory, or of registers
                print(f"{shape} {blocks}: {type(error).__name__}: {str(error).splitlines()[0][:100]}")


if __name__ == "__main__":
    main()
