"""Rollouts by vLLM, in the same process and on the same GPU as the trainer."""

import contextlib
import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from alignlab.errors import ConfigError
from alignlab.policy import low_rank
from alignlab.policy.choice import Sampling
from alignlab.policy.drawing import Drawn
from alignlab.policy.gpu import check_gpu
from alignlab.policy.policy import Policy
from alignlab.policy.rollout import Rollout, Sampler
from alignlab.runtime import Runtime
from alignlab.seed import fold_in

_ENGINE = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in this process, where its weights can be written to
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(frozen=True)
class VLLMRollout(Rollout):
    """Sample by vLLM: its weights are made the policy's before each buffer, and it sleeps while the policy trains.

    It computes with kernels of its own, in bfloat16 where the trainer does, so that its probabilities differ from the
    trainer's. That is logged as `sampler_drift`, `sampler_drift_max` and `sampler_ratio`; `truncated_importance`
    corrects an objective for it. Every answer has a seed of its own, but an engine that batches differently may round
    differently, and so may draw another token now and then: `batch_invariant` rules that out.

    Args:
        gpu_memory: share of the GPU's memory that the engine may take, 0 to 1; weights and cache are in it.
        max_length: longest prompt with its answer, tokens, where answers are cut; null takes the model's context.
        sleep: free the engine's memory while the policy trains.
        eager: do without CUDA graphs; starts faster, samples slower.
        batch_invariant: answers do not depend on which others are sampled at the same time, at some speed; needs a
            GPU of compute capability 9.0 (H100) or later.

    Source: Kwon et al. 2023 (PagedAttention), arXiv:2309.06180; on the drift, Yao et al. 2025, "Your efficient RL
    framework secretly brings you off-policy RL training".
    """

    VERSION: ClassVar[str] = "1"
    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"gpu_memory", "sleep"})
    gpu_memory: float = 0.4
    max_length: int | None = None
    sleep: bool = True
    eager: bool = False
    batch_invariant: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.gpu_memory < 1:
            raise ValueError(f"VLLMRollout: gpu_memory must be between 0 and 1, got {self.gpu_memory}; it is a share")
        if self.max_length is not None and self.max_length < 2:
            raise ValueError(f"VLLMRollout: max_length must be >= 2 or null, got {self.max_length}; it counts tokens")

    def check_runtime(self, runtime: Runtime) -> None:
        """Refuse to begin without vLLM, without a GPU, or on several."""
        check_gpu("rollout=vllm", ("vLLM", "vllm"), "vllm", runtime, "rollout=builtin samples without")
        if runtime.devices * runtime.num_nodes > 1:
            raise ConfigError(
                f"rollout=vllm: shares one GPU with the trainer, got {runtime.devices} devices on {runtime.num_nodes} "
                f"node(s); set runtime.devices=1, or rollout=builtin"
            )
        if runtime.precision == "64-true":
            raise ConfigError("rollout=vllm: computes in float32 or bfloat16; choose another runtime.precision")

    def open(self, policy: Policy, runtime: Runtime) -> Sampler:
        """The engine, with the architecture of the policy's base and no weights yet."""
        os.environ.update(_ENGINE)
        if self.batch_invariant:
            os.environ["VLLM_BATCH_INVARIANT"] = "1"
        import vllm

        room = min(self.max_length or policy.context, policy.context)
        dtype = "bfloat16" if runtime.precision.startswith("bf16") else "float32"
        engine = vllm.LLM(
            model=str(policy.base.path),
            skip_tokenizer_init=True,
            load_format="dummy",  # the policy's weights come by `update`
            dtype=dtype,
            seed=0,  # every answer brings its own
            max_model_len=room,
            gpu_memory_utilization=self.gpu_memory,
            enable_sleep_mode=self.sleep,
            enforce_eager=self.eager,
            logprobs_mode="processed_logprobs",  # tempered, as the trainer's are
            disable_log_stats=True,
        )
        return _Engine(engine, vllm.SamplingParams, room, sorted(policy.stop_ids), self.sleep)


class _Engine(Sampler):
    """A vLLM engine, with the weights of the policy that it was shown last.

    Args:
        engine: `vllm.LLM`.
        parameters: `vllm.SamplingParams`.
        room: longest prompt with its answer, tokens.
        stop: tokens that end an answer.
        sleeps: whether it can sleep.
    """

    def __init__(self, engine: Any, parameters: Any, room: int, stop: Sequence[int], sleeps: bool) -> None:
        self._engine = engine
        self._parameters = parameters
        self._sleeps = sleeps
        self._asleep = False
        self._room = room
        self._stop = list(stop)
        self.rest()

    def update(self, policy: Policy) -> None:
        if self._asleep:
            torch.cuda.empty_cache()  # what the trainer has freed, and keeps
            self._engine.wake_up(tags=["weights"])
        self._engine.apply_model(lambda model: model.load_weights(low_rank.merged_weights(policy.model)))
        if self._asleep:  # its cache only now, when the copies of merged weights are gone
            self._engine.wake_up(tags=["kv_cache"])
        self._asleep = False
        self._engine.reset_prefix_cache()

    def sample(
        self, prompts: Sequence[Sequence[int]], each: int, sampling: Sampling, seed: int, first_index: int = 0
    ) -> list[Drawn]:
        if not prompts:
            return []
        if (longest := max(map(len, prompts))) >= self._room:
            raise ConfigError(
                f"rollout=vllm: a prompt has {longest} tokens, and rollout.max_length={self._room} leaves no room for "
                f"an answer; raise it"
            )
        asked = [prompt for prompt in prompts for _ in range(each)]
        settings = [self._settings(len(p), sampling, fold_in(seed, first_index + k)) for k, p in enumerate(asked)]
        given = [{"prompt_token_ids": list(prompt)} for prompt in asked]
        found = self._engine.generate(given, settings, use_tqdm=False)
        return [_drawn(request.outputs[0]) for request in found]

    def _settings(self, length: int, sampling: Sampling, seed: int) -> Any:
        return self._parameters(
            n=1,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=min(sampling.max_new_tokens, self._room - length),
            seed=seed,
            logprobs=0,  # of the sampled token alone
            stop_token_ids=self._stop,
            ignore_eos=True,  # those above are all that end an answer
            detokenize=False,
        )

    def rest(self) -> None:
        if self._sleeps and not self._asleep:
            self._engine.sleep(level=2)  # the weights are forgotten, too: `update` brings them
            self._asleep = True

    def close(self) -> None:
        self._engine = None
        gc.collect()
        with contextlib.suppress(ImportError):
            from vllm.distributed import cleanup_dist_env_and_memory

            cleanup_dist_env_and_memory()


def _drawn(answer: Any) -> Drawn:
    return [
        (int(token), float(of_step[token].logprob))
        for token, of_step in zip(answer.token_ids, answer.logprobs, strict=True)
    ]
