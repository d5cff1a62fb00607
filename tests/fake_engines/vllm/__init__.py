"""A stand-in for the parts of vLLM that rollouts use, over a transformers model on the CPU.

It is as strict as vLLM where a mistake would be silent there: it refuses to sample asleep, to wake what is awake, and
weights of unknown names; and it forgets its weights in deep sleep.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from . import distributed as distributed

MADE: list["LLM"] = []
"""Every engine that was made."""


@dataclass
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 16
    seed: int | None = None
    logprobs: int | None = None
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    detokenize: bool = True

    def __post_init__(self) -> None:
        assert self.n == 1 and self.top_p == 1 and self.top_k == 0 and self.max_tokens >= 1
        assert self.seed is not None and 0 <= self.seed < 2**63


class LLM:
    """`vllm.LLM`, as far as it is used."""

    def __init__(self, model: str, *, load_format: str, dtype: str, max_model_len: int, **settings: Any) -> None:
        import transformers

        assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0", "apply_model would have to pickle its function"
        assert load_format == "dummy" and settings["logprobs_mode"] == "processed_logprobs"
        self.settings = {"dtype": dtype, "max_model_len": max_model_len, **settings}
        self.generated: list[SamplingParams] = []
        self.mapped = {"weights", "kv_cache"}
        config = transformers.AutoConfig.from_pretrained(model)
        self._model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval()
        self._model.load_weights = self._load_weights
        MADE.append(self)

    def _load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        assert "weights" in self.mapped, "weights are written to memory that is not there"
        own = dict(self._model.named_parameters())
        loaded = set()
        for name, weight in weights:
            assert name in own, f"no weight is called {name}"
            with torch.no_grad():
                own[name].copy_(weight)
            loaded.add(name)
        assert loaded == own.keys(), f"{own.keys() - loaded} were not loaded"
        return loaded

    def apply_model(self, function: Callable[[Any], Any]) -> list[Any]:
        return [function(self._model)]

    def reset_prefix_cache(self) -> None:
        self.was_reset = True

    def sleep(self, level: int = 1) -> None:
        assert self.settings["enable_sleep_mode"] and level == 2 and self.mapped
        self.mapped = set()
        with torch.no_grad():
            for weight in self._model.parameters():
                weight.fill_(float("nan"))

    def wake_up(self, tags: Sequence[str]) -> None:
        assert not self.mapped & set(tags), f"{tags} are awake"
        self.mapped |= set(tags)

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[dict[str, Any]], sampling_params: Sequence[SamplingParams], *, use_tqdm: bool = True
    ) -> list[Any]:
        assert self.mapped == {"weights", "kv_cache"}, f"awake is {self.mapped}"
        assert len(prompts) == len(sampling_params)
        self.generated += sampling_params
        return [self._answer(p["prompt_token_ids"], s) for p, s in zip(prompts, sampling_params, strict=True)]

    def _answer(self, prompt: Sequence[int], settings: SamplingParams) -> Any:
        generator = torch.Generator().manual_seed(int(settings.seed or 0))
        row, answer, logprobs = list(prompt), list[int](), list[Any]()
        assert len(row) + settings.max_tokens <= self.settings["max_model_len"]
        for _ in range(settings.max_tokens):
            logits = self._model(torch.tensor([row])).logits[0, -1].float()
            logp = (logits / settings.temperature).log_softmax(-1)
            token = int(torch.multinomial(logp.exp(), 1, generator=generator))
            row.append(token)
            answer.append(token)
            logprobs.append({token: SimpleNamespace(logprob=float(logp[token]))})
            if token in settings.stop_token_ids:
                break
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(answer), logprobs=logprobs)])
