"""Log-probabilities of a reference on fixed data: asked once, by the run that needs them first, and kept in the store.

They depend on the reference, on the tokens and masks that it is given (so on the data, the tokenizer, the template and
the truncation), on their temperature, on the precision and on the kernels that compute them. Their fingerprint is made
of that, and of nothing else: an objective, a learning rate, the number of steps or the memory budget change nothing.

Left out: a table that is filled row by row as runs ask for rows. The last bits of a row depend on its neighbours in a
forward pass, so that a run would depend on which other runs came before it.

Axes: T tokens, N scored tokens of some units.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy
import torch
from jaxtyping import Float
from torch import Tensor

from alignlab import distributed
from alignlab.batch import Batch
from alignlab.data.rows import portions
from alignlab.stage import StageContext
from alignlab.training.measure import GivesStats, measure

U = TypeVar("U")

VERSION = "1"
"""Raise it when the same reference and rows come to have other numbers."""
LOGP = "logp.npy"
_PORTION = 128
"""Units that are scored, and kept from a crash, together; they share forward passes, so it changes the last bits."""


@dataclass(frozen=True)
class ReferenceLogp:
    """Log-probabilities of the scored tokens of some units, read from a file as they are needed.

    Args:
        file: all of them in a row, nats; float32, or float64 where that is what was trained in.
        places: where those of each unit begin and end, by the unit's number.
    """

    file: Path
    places: Mapping[int, tuple[int, int]]

    def of(self, units: Sequence[int], batch: Batch) -> Float[Tensor, "T"]:
        """Those of the batch of some units, in their order; 0 at tokens that are not scored."""
        stored = numpy.load(self.file, mmap_mode="r")
        scored = numpy.concatenate([stored[slice(*self.places[i])] for i in units])
        found = torch.zeros(batch.num_tokens, dtype=torch.from_numpy(scored).dtype)
        found[batch.response_mask] = torch.from_numpy(scored)
        return found


@dataclass(frozen=True)
class Asked:
    """A reference that may be asked, and what decides its answers besides the rows.

    Args:
        load: gives the reference, on its device; called only where the store lacks an answer.
        identity: plain values that identify it.
        context: of the stage that asks.
        max_tokens: of one forward pass.
    """

    load: Callable[[], GivesStats]
    identity: Mapping[str, Any]
    context: StageContext
    max_tokens: int

    def logp(self, units: Sequence[U], index: Sequence[int], batch_of: Callable[[Sequence[U]], Batch]) -> ReferenceLogp:
        """The log-probabilities of some units.

        Args:
            units: all of them.
            index: numbers of those that are asked about.
            batch_of: makes a batch of units.
        """
        parts = portions(index, _PORTION)
        digest, sizes = hashlib.sha256(), list[int]()
        for part in parts:
            batch = batch_of([units[i] for i in part])
            for tensor in (batch.lengths(), batch.tokens, batch.response_mask):
                digest.update(tensor.numpy().tobytes())
            digest.update(repr(batch.temperature).encode())
            of_token = batch.unit[batch.sequence_id[batch.response_mask]]
            sizes += torch.bincount(of_token, minlength=batch.num_units).tolist()
        runtime = self.context.runtime
        identity = {
            "reference_logp": VERSION,
            **self.identity,
            "rows": digest.hexdigest(),
            "precision": runtime.precision,
            "kernels": [runtime.device.type, runtime.compile],  # in bfloat16 they differ by more than the last bits
        }
        folder = self.context.once(identity, lambda out, work: self._write(out, work, units, parts, batch_of))
        bounds = pairwise(accumulate(sizes, initial=0))
        return ReferenceLogp(folder / LOGP, dict(zip(index, bounds, strict=True)))

    def _write(
        self,
        folder: Path,
        work: Path,
        units: Sequence[U],
        parts: Sequence[Sequence[int]],
        batch_of: Callable[[Sequence[U]], Batch],
    ) -> None:
        """Ask the reference, portion by portion; those that an interrupted run has left in `work` are kept.

        Processes take turns.
        """
        done, total = 0, sum(map(len, parts))
        files = [work / f"{number:08}.npy" for number in range(len(parts))]
        rank, world = distributed.rank(), distributed.world_size()
        for number, (file, part) in enumerate(zip(files, parts, strict=True)):
            if number % world == rank and not _is_whole(file):
                batch = batch_of([units[i] for i in part])
                logp = measure(self.load(), batch, self.context.runtime, self.max_tokens)[batch.response_mask]
                _save(file, logp)
            done += len(part)
            self.context.tracker.progress(done, total, {})
        distributed.barrier()
        if rank == 0:  # when it has published, nothing is left in `work` that another one could read
            numpy.save(folder / LOGP, numpy.concatenate([numpy.load(file) for file in files]))


def _is_whole(file: Path) -> bool:
    """Whether a portion is there to be read; a machine that lost power may have left its name alone."""
    try:
        numpy.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return True


def _save(file: Path, logp: Float[Tensor, "N"]) -> None:
    """Write an array in one step; bfloat16, which NumPy does not have, as float32, which holds it exactly."""
    begun = file.with_suffix(".tmp")
    with begun.open("wb") as stream:
        numpy.save(stream, logp.to(torch.promote_types(logp.dtype, torch.float32)).numpy())
    begun.replace(file)
