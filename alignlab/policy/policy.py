"""A causal language model as the lab sees it: token statistics of a flat batch, saving and loading.

How a flat batch is run is `layout`'s: rows in length buckets, equal prompts computed once where the architecture allows
it. The head runs on scored tokens only, fused with the loss, so that the logits of a batch never exist.

Left out: rows of unrelated texts (some architectures silently let them see each other), and bidirectional models.

Axes: T tokens, S sequences, N scored tokens, V vocabulary, d width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from alignlab import distributed
from alignlab.artifact import Artifact
from alignlab.batch import Batch
from alignlab.data.chat import stop_tokens
from alignlab.errors import ConfigError
from alignlab.kernels import Direction, linear_kl, linear_logprobs
from alignlab.policy import layout, lora
from alignlab.policy.adapter_files import check_fits, is_adapter, read_adapter, write_adapter
from alignlab.policy.blocks import BlockOptions, adapt_blocks, restore_blocks
from alignlab.policy.body import body_states, sharing_of, with_flat_rows
from alignlab.policy.files import add_score, write_folder, write_stop_tokens
from alignlab.policy.lm_head import head_of
from alignlab.policy.loading import read_folder
from alignlab.policy.probes import cache_obstacle, check_architecture
from alignlab.policy.score_head import REWARD, STATISTICS, ScoreHead
from alignlab.stats import TokenStats

if TYPE_CHECKING:
    import transformers

_FROM_HEAD = frozenset({"logp", "lse", "entropy"})
_FROM_TEACHER: Mapping[str, Direction] = {"kl_to_teacher": "reverse", "kl_from_teacher": "forward"}
_KNOWN = _FROM_HEAD | _FROM_TEACHER.keys() | STATISTICS


class Policy(nn.Module):
    """A causal LM with its tokenizer and, for reward models and critics, a head that scores.

    Args:
        model: any Hugging Face causal LM whose logits are its head applied to its body's last hidden state, with or
            without a factor and a soft cap; this is checked here, once, on a few tokens.
        tokenizer: with a chat template.
        score_head: of a reward model or a critic: a number for each of its attributes, in reward units.
    """

    def __init__(
        self,
        model: "transformers.PreTrainedModel",
        tokenizer: "transformers.PreTrainedTokenizerBase",
        score_head: ScoreHead | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.score_head = score_head
        self._obstacle: str | None = None
        self._source: Path | Artifact | None = None
        self.eval()  # and it stays so until it is trained: dropout is never on by accident
        self.logits = check_architecture(model)
        self._sharing = sharing_of(model)
        self._options = BlockOptions()
        self._is_adapted = False

    # ---- statistics -----------------------------------------------------------------------------------------------
    def token_stats(self, batch: Batch, needs: frozenset[str], teacher: "Policy | None" = None) -> TokenStats:
        """The statistics that `needs` names, at the batch's temperature.

        Args:
            batch: flat, on the policy's device.
            needs: of `logp`, `lse`, `entropy`, `value`, `score`, `scores`, `kl_to_teacher` and `kl_from_teacher`.
            teacher: frozen; needed for the last two. It must share the policy's vocabulary, not its width.

        Raises:
            ConfigError: an unknown statistic is asked for, or one of a teacher that is not given.
        """
        # By the module's call, so that FSDP2's hooks gather the head's shards before the fused head reads them.
        found: TokenStats = self(batch, needs, teacher)
        return found

    def forward(self, batch: Batch, needs: frozenset[str], teacher: "Policy | None" = None) -> TokenStats:
        """See `token_stats`."""
        if not needs <= _KNOWN:
            raise ConfigError(f"Policy: gives {', '.join(sorted(_KNOWN))}, not {', '.join(sorted(needs - _KNOWN))}")
        hidden = self.hidden_states(batch)
        values: dict[str, Tensor] = {}
        if needs & _FROM_HEAD:
            values |= self._from_head(hidden, batch, needs)
        if needs & _FROM_TEACHER.keys():
            values |= self._from_teacher(hidden, batch, needs, teacher)
        if needs & STATISTICS:
            values |= self._from_score_head(hidden, batch, needs)
        return TokenStats(values)

    def hidden_states(self, batch: Batch) -> Float[Tensor, "T d"]:
        """The body's last hidden state at every token of a flat batch."""
        # Where layers are shards of their own, processes gather them together: each as often as the one that has to
        # most often. Every one runs the body in every micro-batch, also when none is left for it.
        self._adapt()
        idle = 0
        if distributed.is_sharded(self.model):
            calls = layout.calls(batch, self._sharing) if batch.num_tokens else 1
            idle = distributed.max_of(calls, self.device) - calls
        found = layout.hidden_states(batch, self._rows, self._sharing) if batch.num_tokens else self._nothing()
        return torch.cat([found, *(self._nothing() for _ in range(idle))]) if idle else found

    def _nothing(self) -> Float[Tensor, "0 d"]:
        """The states of no token, for which the body has run all the same."""
        token = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        return self._rows(layout.Rows(token)).flatten(0, 1)[:0]

    def _adapt(self) -> None:
        """Adapt the blocks where that is asked for; at first use, since adapted ones can be neither copied nor sent."""
        if self._is_adapted:
            return
        self._is_adapted = True
        adapt_blocks(self.model, self._options)
        if self._options.compiled and self.device.type == "cuda":
            self._sharing = with_flat_rows(self.model, self._sharing)

    def run_as(self, options: BlockOptions) -> "Policy":
        """Run the body's blocks in another way from now on; sampling is not changed."""
        self._options = options
        return self.as_loaded()

    def as_loaded(self) -> "Policy":
        """The policy with its blocks as they were loaded, until it is run again: it can be copied."""
        restore_blocks(self.model)
        self._is_adapted, self._sharing = False, replace(self._sharing, flat=False)
        return self

    def _rows(self, rows: layout.Rows) -> Tensor:
        return body_states(self.model, rows)

    def _from_head(self, hidden: Tensor, batch: Batch, needs: frozenset[str]) -> dict[str, Tensor]:
        at = batch.response_mask.nonzero()[:, 0]
        weight, bias = head_of(self.model)
        logp, lse, entropy = linear_logprobs(
            hidden[at - 1],
            weight,
            batch.tokens[at],
            bias,
            temperature=batch.temperature / self.logits.scale,
            softcap=self.logits.softcap,
            entropy="entropy" in needs,
        )
        found = {"logp": logp, "lse": lse, "entropy": entropy}
        return {k: _spread(v, at, batch) for k, v in found.items() if k in needs and v is not None}

    def _from_teacher(
        self, hidden: Tensor, batch: Batch, needs: frozenset[str], teacher: "Policy | None"
    ) -> dict[str, Tensor]:
        """Exact divergences of next-token distributions over the whole vocabulary."""
        if teacher is None:
            raise ConfigError(f"Policy: {', '.join(sorted(needs & _FROM_TEACHER.keys()))} needs a teacher")
        at = batch.response_mask.nonzero()[:, 0]
        with torch.no_grad():
            other = teacher.to(hidden.device).hidden_states(batch)[at - 1]
        # The kernel divides the logits of both heads by one number; the teacher's own factor goes into what it reads.
        ratio = teacher.logits.scale / self.logits.scale
        weight, bias = head_of(self.model)
        teacher_weight, teacher_bias = head_of(teacher.model)
        found = {}
        for name in needs & _FROM_TEACHER.keys():
            kl = linear_kl(
                hidden[at - 1],
                weight,
                ratio * other,
                teacher_weight,
                bias,
                None if teacher_bias is None else ratio * teacher_bias,
                direction=_FROM_TEACHER[name],
                temperature=batch.temperature / self.logits.scale,
                softcap=self.logits.softcap,
                teacher_softcap=None if teacher.logits.softcap is None else ratio * teacher.logits.softcap,
            )
            found[name] = _spread(kl, at, batch)
        return found

    def _from_score_head(self, hidden: Tensor, batch: Batch, needs: frozenset[str]) -> dict[str, Tensor]:
        if self.score_head is None:
            raise ConfigError(f"{type(self.model).__name__}: no scalar head, so no value or score; load a reward model")
        return self.score_head.statistics(hidden, batch, needs)

    # ---- shape ----------------------------------------------------------------------------------------------------
    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def context(self) -> int:
        """Longest sequence, in tokens."""
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 0)) or 2**31

    def narrower_than(self, asked: torch.dtype) -> str:
        """Warning where its weights are kept in half precision against a run's; empty where they are not."""
        dtype = self.model.dtype
        if torch.finfo(dtype).bits >= min(32, torch.finfo(asked).bits):
            return ""
        return (
            f"all weights are trained in {str(dtype).removeprefix('torch.')}, as the model was imported: steps below "
            f"{50 * torch.finfo(dtype).eps:.2g} % of a weight are rounded away; import it with dtype=auto and set "
            f"runtime.precision=bf16-mixed, or train an adapter"
        )

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer: the one that is trained, EOS, and what the model's generation config adds."""
        return frozenset(self._ordered_stop_ids())

    def _ordered_stop_ids(self) -> list[int]:
        """The same tokens, the trained one first."""
        more = getattr(self.model.generation_config, "eos_token_id", None)
        added = more if isinstance(more, list) else [] if more is None else [more]
        return list(dict.fromkeys([*stop_tokens(self.tokenizer), *sorted(added)]))

    def cache_obstacle(self) -> str:
        """Why the model is sampled from without a cache, slowly; empty where it has a usable one. Found out once."""
        if self._obstacle is None:
            self._obstacle = cache_obstacle(self.model)
        return self._obstacle

    def freeze_idle(self, needs: frozenset[str]) -> None:
        """Freeze the head that `needs` does not ask for: it would idle in the optimizer, and hang DDP."""
        if self.score_head is not None and not needs & STATISTICS:
            self.score_head.requires_grad_(False)
        tied = self.model.get_output_embeddings().weight is self.model.get_input_embeddings().weight
        if not tied and not needs & (_FROM_HEAD | _FROM_TEACHER.keys()):
            self.model.get_output_embeddings().requires_grad_(False)

    def add_score_head(self, seed: int, attributes: Sequence[str] = REWARD) -> None:
        """Give it a head of small random weights, one row for each attribute, in place of one that it has."""
        self.score_head = ScoreHead.random(self.model.get_output_embeddings().weight, attributes, seed)

    # ---- adapters -------------------------------------------------------------------------------------------------
    @property
    def trains_adapter(self) -> bool:
        """Whether an adapter is trained, and the weights below it stay what its base has."""
        return lora.has_adapter(self.model, lora.OWN)

    @property
    def base(self) -> Artifact:
        """The whole model that its weights were read from, without adapters."""
        assert self._source is not None, "an adapter belongs to a model that was loaded from a folder"
        return self._source if isinstance(self._source, Artifact) else Artifact.open(self._source)

    def add_adapter(self, adapter: lora.LoRA, seed: int) -> "Policy":
        """Put a new adapter on the model, on top of one that it came with; of the model, it alone is then trainable."""
        shapes = dict.fromkeys(adapter.layers(self.model), (adapter.r, adapter.alpha))
        lora.add(self.model, lora.OWN, shapes, seed, adapter.dropout)
        return self

    def merge_adapter(self) -> "Policy":
        """Add the adapters to the weights, which become trainable; nothing where there are none."""
        if lora.has_adapter(self.model):
            lora.merge(self.model)
        return self

    # ---- on disk --------------------------------------------------------------------------------------------------
    def save(self, folder: Path) -> None:
        """Write model and tokenizer in Hugging Face layout; the generation config lists every stop token.

        A scalar head is stored as `score.weight`: the folder then loads as `AutoModelForSequenceClassification` too.
        With adapters, they alone are written, as one in PEFT's layout, with the fingerprint of their base.
        """
        if lora.has_adapter(self.model):
            return write_adapter(folder, self.base, lora.changes(self.model), self.score_head)
        tokenizer = self.tokenizer
        own = tokenizer.model_max_length
        # As published tokenizers have it, so that `truncation=True` and `generate` know where the context ends.
        tokenizer.model_max_length = min(own, self.context)
        write_folder(folder, self.model, tokenizer, self._ordered_stop_ids())
        tokenizer.model_max_length = own  # here, longer texts are cut on purpose, and need no warning
        if self.score_head is not None:
            weight = self.score_head.weight.detach().cpu().contiguous()
            add_score(folder, weight, self.score_head.attributes, self.model)

    def list_stop_tokens(self, folder: Path) -> None:
        """List the stop tokens in the generation config of a folder that holds the model."""
        write_stop_tokens(folder, self._ordered_stop_ids())

    @classmethod
    def load(cls, source: Path | str | Artifact, dtype: torch.dtype = torch.float32) -> "Policy":
        """Read an artifact, or a Hugging Face folder. Remote code is never run, pickled weights never read.

        Of an artifact with an adapter, the base is read from where it is, and both are frozen.

        Raises:
            StoreError: the folder holds no model, a damaged one, or not the one that its files describe; or an adapter
                whose base is missing or has changed.
        """
        path = source.path if isinstance(source, Artifact) else Path(source)
        if not is_adapter(path):
            policy = cls(*read_folder(path, dtype))
            policy._source = source if isinstance(source, Artifact) else path
            return policy
        stored = read_adapter(path, dtype)
        policy = cls.load(stored.base, dtype)
        check_fits(path, stored.changes, policy.model)
        shapes = {layer: (change.r, change.alpha) for layer, change in stored.changes.items()}
        lora.add(policy.model, lora.EARLIER, shapes, seed=0)
        lora.fill(policy.model, lora.EARLIER, stored.changes)
        policy.model.requires_grad_(False)
        policy.score_head = stored.head
        return policy

    def cast(self, dtype: torch.dtype) -> "Policy":
        """Convert the parameters in place; buffers (rotary frequencies, ...) keep the precision they were made in.

        `to(dtype)` would round those as well: in bfloat16 by .4 %, so that positions are turned by wrong angles.
        """
        for parameter in (p for p in self.parameters() if p.is_floating_point()):
            parameter.data = parameter.data.to(dtype)
            if parameter.grad is not None:
                parameter.grad = parameter.grad.to(dtype)
        return self


def _spread(x: Float[Tensor, "N"], at: Tensor, batch: Batch) -> Float[Tensor, "T"]:
    return x.new_zeros(batch.num_tokens).index_put((at,), x)
