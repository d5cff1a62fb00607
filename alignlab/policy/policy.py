"""A causal language model as the lab sees it: token statistics of a flat batch, saving and loading.

How the body runs is up to `states`: rows in length buckets, equal prompts computed once where the architecture allows
it. The head runs on scored tokens only (`next_tokens`), fused with the loss: the logits of a batch never exist.

Left out: bidirectional models.

Axes: T tokens, S sequences, d width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from alignlab.artifact import Artifact
from alignlab.batch import Batch
from alignlab.data.chat import stop_tokens
from alignlab.errors import ConfigError
from alignlab.policy import low_rank
from alignlab.policy.adapter_files import check_fits, is_adapter, read_adapter, write_adapter
from alignlab.policy.blocks import BlockOptions
from alignlab.policy.files import add_score, write_folder, write_stop_tokens
from alignlab.policy.loading import read_folder
from alignlab.policy.lora import LoRA
from alignlab.policy.next_tokens import FROM_HEAD, FROM_TEACHER, from_head, from_teacher
from alignlab.policy.probes import cache_obstacle, check_architecture
from alignlab.policy.score_head import REWARD, STATISTICS, ScoreHead
from alignlab.policy.states import BodyRunner
from alignlab.stats import TokenStats

if TYPE_CHECKING:
    import transformers

_KNOWN = FROM_HEAD | FROM_TEACHER.keys() | STATISTICS


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
        self.read_from: tuple[Path | Artifact, torch.dtype] | None = None
        """Arguments of `load`; None where the policy was made otherwise."""
        self.eval()  # and it stays so until it is trained: dropout is never on by accident
        self.logits = check_architecture(model)
        self.body = BodyRunner(model)

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
        if needs & FROM_HEAD:
            values |= from_head(self.model, self.logits, hidden, batch, needs)
        if needs & FROM_TEACHER.keys():
            values |= self._from_teacher(hidden, batch, needs & frozenset(FROM_TEACHER), teacher)
        if needs & STATISTICS:
            values |= self._from_score_head(hidden, batch, needs)
        return TokenStats(values)

    def hidden_states(self, batch: Batch) -> Float[Tensor, "T d"]:
        """The body's last hidden state at every token of a flat batch."""
        return self.body.hidden_states(batch)

    def run_as(self, options: BlockOptions) -> "Policy":
        """Run the body's blocks in another way from now on; sampling is not changed."""
        self.body.run_as(options)
        return self

    def as_loaded(self) -> "Policy":
        """The policy with its blocks as they were loaded, until it is run again: it can be copied."""
        self.body.restore()
        return self

    def _from_teacher(
        self, hidden: Tensor, batch: Batch, needs: frozenset[str], teacher: "Policy | None"
    ) -> dict[str, Tensor]:
        if teacher is None:
            raise ConfigError(f"Policy: {', '.join(sorted(needs))} needs a teacher")
        with torch.no_grad():
            other = teacher.to(hidden.device).hidden_states(batch)
        models, forms = (self.model, teacher.model), (self.logits, teacher.logits)
        return from_teacher(models, forms, (hidden, other), batch, needs)

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
        if not tied and not needs & (FROM_HEAD | FROM_TEACHER.keys()):
            self.model.get_output_embeddings().requires_grad_(False)

    def add_score_head(self, seed: int, attributes: Sequence[str] = REWARD) -> None:
        """Give it a head of small random weights, one row for each attribute, in place of one that it has."""
        self.score_head = ScoreHead.random(self.model.get_output_embeddings().weight, attributes, seed)

    # ---- adapters -------------------------------------------------------------------------------------------------
    @property
    def trains_adapter(self) -> bool:
        """Whether an adapter is trained, and the weights below it stay what its base has."""
        return low_rank.has_adapter(self.model, low_rank.OWN)

    @property
    def base(self) -> Artifact:
        """The whole model that its weights were read from, without adapters."""
        assert self._source is not None, "an adapter belongs to a model that was loaded from a folder"
        return self._source if isinstance(self._source, Artifact) else Artifact.open(self._source)

    def add_adapter(self, adapter: LoRA, seed: int) -> "Policy":
        """Put a new adapter on the model, on top of one that it came with; of the model, it alone is then trainable."""
        shapes = dict.fromkeys(adapter.layers(self.model), (adapter.r, adapter.alpha))
        low_rank.add(self.model, low_rank.OWN, shapes, seed, adapter.dropout)
        return self

    def merge_adapter(self) -> "Policy":
        """Add the adapters to the weights, which become trainable; nothing where there are none."""
        if low_rank.has_adapter(self.model):
            low_rank.merge(self.model)
        return self

    # ---- on disk --------------------------------------------------------------------------------------------------
    def save(self, folder: Path) -> None:
        """Write model and tokenizer in Hugging Face layout; the generation config lists every stop token.

        A scalar head is stored as `score.weight`: the folder then loads as `AutoModelForSequenceClassification` too.
        With adapters, they alone are written, as one in PEFT's layout, with the fingerprint of their base.
        """
        if low_rank.has_adapter(self.model):
            return write_adapter(folder, self.base, low_rank.changes(self.model), self.score_head)
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
            policy.read_from = policy._source, dtype
            return policy
        stored = read_adapter(path, dtype)
        policy = cls.load(stored.base, dtype)
        check_fits(path, stored.changes, policy.model)
        shapes = {layer: (change.r, change.alpha) for layer, change in stored.changes.items()}
        low_rank.add(policy.model, low_rank.EARLIER, shapes, seed=0)
        low_rank.fill(policy.model, low_rank.EARLIER, stored.changes)
        policy.model.requires_grad_(False)
        policy.score_head = stored.head
        policy.read_from = (source if isinstance(source, Artifact) else path), dtype
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
