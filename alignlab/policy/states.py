"""A model's states of flat batches: which rows are run together, and how the blocks run.

Axes: T tokens, R rows, L columns, d width.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab import distributed
from alignlab.batch import Batch
from alignlab.policy import layout
from alignlab.policy.blocks import BlockOptions, adapt_blocks, restore_blocks
from alignlab.policy.body import body_states, sharing_of, with_flat_rows

if TYPE_CHECKING:
    import transformers


class BodyRunner:
    """Runs a model's body on flat batches.

    Args:
        model: its body is probed here, once, for what its rows may share.
    """

    def __init__(self, model: "transformers.PreTrainedModel") -> None:
        self._model = model
        self.sharing = sharing_of(model)
        self._options = BlockOptions()
        self._is_adapted = False

    def hidden_states(self, batch: Batch) -> Float[Tensor, "T d"]:
        """The last hidden state at every token of a batch.

        Where layers are shards of their own, processes gather them together: each as often as the one that has to most
        often. Every one runs the body in every micro-batch, also when none is left for it.
        """
        self._adapt()
        idle = 0
        if distributed.is_sharded(self._model):
            calls = layout.calls(batch, self.sharing) if batch.num_tokens else 1
            idle = distributed.max_of(calls, self._model.device) - calls
        found = layout.hidden_states(batch, self.run, self.sharing) if batch.num_tokens else self._nothing()
        return torch.cat([found, *(self._nothing() for _ in range(idle))]) if idle else found

    def run(self, rows: layout.Rows) -> Float[Tensor, "R L d"]:
        """The last hidden states of some rows."""
        return body_states(self._model, rows)

    def _nothing(self) -> Float[Tensor, "0 d"]:
        """The states of no token, for which the body has run all the same."""
        token = torch.zeros(1, 1, dtype=torch.long, device=self._model.device)
        return self.run(layout.Rows(token)).flatten(0, 1)[:0]

    def _adapt(self) -> None:
        """Adapt the blocks where that is asked for; at first use, since adapted ones can be neither copied nor sent."""
        if self._is_adapted:
            return
        self._is_adapted = True
        adapt_blocks(self._model, self._options)
        if self._options.compiled and self._model.device.type == "cuda":
            self.sharing = with_flat_rows(self._model, self.sharing)

    def run_as(self, options: BlockOptions) -> None:
        """Run the blocks in another way from now on; sampling is not changed."""
        self._options = options
        self.restore()

    def restore(self) -> None:
        """Leave the blocks as they were loaded, until they are run again: the model can be copied."""
        restore_blocks(self._model)
        self._is_adapted, self.sharing = False, replace(self.sharing, flat=False)
