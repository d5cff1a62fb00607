"""Time fine-tuning and DPO of random Qwen2 models on one GPU: alignlab, its switches, and TRL with Liger.

    python gpu.py --out results-gpu.csv            # every measurement is a process of its own
    python gpu.py --only 0.5B-2k --sides alignlab  # some of them

bfloat16 arithmetic on float32 weights on both sides. Model FLOPs count 6 per parameter and token (the head included,
the embedding not) and attention's own, and nothing that is computed twice; utilisation is over 989 TFLOP/s, the dense
bfloat16 peak of an H100 or H200.
"""

import argparse
import contextlib
import csv
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from work import Done

HERE = Path(__file__).resolve().parent
PEAK = 989e12
WARMUP = 3
SIZES = {
    "0.5B": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14},
    "3B": {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16},
}
VOCABULARY = 151_936
COLUMNS = ("work", "side", "ms", "tokens_per_second", "peak_gb", "mfu", "steps", "gpu", "versions")


@dataclass(frozen=True)
class Work:
    """Rows of one step.

    Args:
        size: of the model.
        batch: sequences, or pairs.
        prompt: tokens of a prompt, or 0.
        answer: tokens of an answer, or of a text: exactly, or on average where `uneven`.
        pairs: whether there are two answers to each prompt (DPO, the reference asked once).
        uneven: lengths spread by a log-normal of .5.
    """

    size: str
    batch: int
    prompt: int
    answer: int
    pairs: bool = False
    uneven: bool = False

    def rows(self) -> list[tuple[list[int], list[list[int]]]]:
        """Prompts and answers of 16 steps."""
        draw = random.Random(0)

        def tokens(mean: int) -> list[int]:
            count = max(8, round(mean * draw.lognormvariate(-0.125, 0.5))) if self.uneven else mean
            return [draw.randrange(1000, VOCABULARY) for _ in range(count)]

        each = 2 if self.pairs else 1
        return [
            (tokens(self.prompt) if self.prompt else [], [tokens(self.answer) for _ in range(each)])
            for _ in range(16 * self.batch)
        ]


WORK = {
    "0.5B-2k": Work("0.5B", 8, 0, 2048),
    "0.5B-8k": Work("0.5B", 2, 0, 8192),
    "3B-2k": Work("3B", 8, 0, 2048),
    "3B-8k": Work("3B", 2, 0, 8192),
    "0.5B-uneven": Work("0.5B", 16, 0, 1024, uneven=True),
    "0.5B-dpo": Work("0.5B", 8, 1024, 256, pairs=True, uneven=True),
}
SIDES: Mapping[str, Mapping[str, bool]] = {
    "alignlab": {},
    "alignlab compile": {"compile": True},
    "alignlab checkpoint": {"checkpoint": True},
    "alignlab compile checkpoint": {"compile": True, "checkpoint": True},
    "alignlab unfused": {"unfused": True},
    "alignlab unshared": {"unshared": True},
    "trl": {},
    "trl checkpoint": {"checkpoint": True},
}
MEASURED = [
    *(("0.5B-2k", s) for s in SIDES if s != "alignlab unshared"),
    *(("0.5B-8k", s) for s in ("alignlab", "alignlab compile", "trl")),
    *(("3B-2k", s) for s in ("alignlab checkpoint", "alignlab compile checkpoint", "trl checkpoint")),
    *(("3B-8k", s) for s in ("alignlab checkpoint", "alignlab compile checkpoint", "trl checkpoint")),
    *(("0.5B-uneven", s) for s in ("alignlab", "alignlab compile", "trl")),
    *(("0.5B-dpo", s) for s in ("alignlab", "alignlab unshared", "alignlab compile", "trl")),
]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--sides", nargs="*", default=[])
    parser.add_argument("--steps", type=int, default=9, help="after the warm-up")
    parser.add_argument("--out", type=Path, default=HERE / "results-gpu.csv")
    parser.add_argument("--one", nargs=2, metavar=("WORK", "SIDE"), help="measure in this process, print a JSON line")
    given = parser.parse_args()
    if given.one:
        return print(json.dumps(measure(*given.one, given.steps)))
    rows: list[dict[str, Any]] = []
    for name, side in MEASURED:
        if (given.only and name not in given.only) or (given.sides and side not in given.sides):
            continue
        command = [sys.executable, str(Path(__file__)), "--one", name, side, "--steps", str(given.steps)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE)
        if done.returncode:
            print(f"{name}, {side} failed:\n{done.stderr[-1500:]}", flush=True)
            continue
        rows.append({"work": name, "side": side, **json.loads(done.stdout.splitlines()[-1])})
        print(rows[-1], flush=True)
        with given.out.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return None


class Clock:
    """Times a step from one `tick` to the next, the GPU's work included."""

    def __init__(self, steps: int) -> None:
        self._steps, self._times = steps, list[float]()

    def tick(self) -> bool:
        """Whether enough steps were timed."""
        import torch

        torch.cuda.synchronize()
        self._times.append(time.perf_counter())
        if len(self._times) == WARMUP:
            torch.cuda.reset_peak_memory_stats()
        return len(self._times) > WARMUP + self._steps

    @property
    def seconds(self) -> list[float]:
        """Of each step after the warm-up."""
        return [b - a for a, b in zip(self._times[WARMUP:], self._times[WARMUP + 1 :], strict=False)]


def measure(name: str, side: str, steps: int) -> dict[str, Any]:
    """One measurement in this process."""
    import torch
    import transformers

    work, switches = WORK[name], SIDES[side]
    rows, clock = work.rows(), Clock(steps)
    with contextlib.suppress(Done):
        (with_trl if side.startswith("trl") else with_alignlab)(work, rows, clock, switches)
    seconds = statistics.median(clock.seconds)
    tokens = statistics.fmean(sum(len(p) + len(a) for a in answers) for p, answers in rows) * work.batch
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    if side.startswith("trl"):
        import importlib.metadata as packages

        versions |= {name: packages.version(name) for name in ("trl", "liger-kernel")}
    return {
        "ms": round(1e3 * seconds, 1),
        "tokens_per_second": round(tokens / seconds),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 2**30, 2),
        "mfu": round(flops(work, rows) / seconds / PEAK, 3),
        "steps": len(clock.seconds),
        "gpu": torch.cuda.get_device_name(),
        "versions": " ".join(f"{k} {v}" for k, v in versions.items()),
    }


def flops(work: Work, rows: Sequence[tuple[list[int], list[list[int]]]]) -> float:
    """Of a step, forward and backward, every token of every sequence counted, and half of the attention (causal)."""
    size = SIZES[work.size]
    width, layers = size["hidden_size"], size["num_hidden_layers"]
    head = width // size["num_attention_heads"]
    block = 2 * width * width + 2 * width * 2 * head + 3 * width * size["intermediate_size"]
    lengths = [len(p) + len(a) for p, answers in rows for a in answers]
    linear = 6 * (layers * block + VOCABULARY * width) * sum(lengths)
    attention = 6 * layers * width * sum(length**2 for length in lengths)
    return (linear + attention) * work.batch / len(rows)


# ---- models ----------------------------------------------------------------------------------------------------------
def model_of(size: str) -> Any:
    """A Qwen2 of random weights, float32, on the GPU; two heads of keys and values, tied embeddings."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    config = Qwen2Config(
        vocab_size=VOCABULARY,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        **SIZES[size],
    )
    torch.manual_seed(0)
    with torch.device("cuda"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def tokenizer_of() -> Any:
    """A tokenizer that nothing is tokenised by."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2, "w": 3}, unk_token="w"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['content'] }}"
        "{% if message['role'] == 'assistant' %} {{ eos_token }}{% else %} {% endif %}{% endfor %}"
    )
    return tokenizer


# ---- alignlab --------------------------------------------------------------------------------------------------------
def with_alignlab(work: Work, rows: Any, clock: Clock, switches: Mapping[str, bool]) -> None:
    """Train by the framework's own stages; the rows are given as token ids."""
    from alignlab_dpo import DPO
    from alignlab_sft import SFT, AnswerNLL
    from side_alignlab import Timed, row

    from alignlab import Artifact, Runtime, StageContext
    from alignlab.data.rows import Row
    from alignlab.policy import Policy
    from alignlab.policy.packing import Sharing
    from alignlab.training import AdamW, Linear, Loop, PreferenceStage

    class Built(Timed):
        def load_policy(self, inputs: Mapping[str, Artifact], context: StageContext) -> Policy:
            policy = Policy(model_of(work.size), tokenizer_of())
            if switches.get("unshared"):
                policy.body.sharing = Sharing()
            return policy

    class Texts(Built, SFT):
        def read(self, inputs: Any, context: StageContext) -> tuple[list[Row], list[Row]]:
            return [row(p, a[0]) for p, a in rows], []

    class Pairs(Built, PreferenceStage):
        def read(self, inputs: Any, context: StageContext) -> Any:
            return [(row(p, a[0]), row(p, a[1])) for p, a in rows], []

    never = 10**8
    loop = Loop(16, work.batch, 10**6, validate_every=never, save_every=never, log_every=never, keep="last")
    optimizer = AdamW(lr=1e-5, schedule=Linear(0, 0.0), fused=not switches.get("unfused"))
    given: dict[str, Any] = {"optimizer": optimizer, "loop": loop, "inputs": {"policy": "policy"}}
    data: Any = type("Nothing", (), {"on_bad_record": "stop"})()
    stage: Any = Pairs(objective=DPO(), **given) if work.pairs else Texts(objective=AnswerNLL(), data=data, **given)
    stage.clock = clock
    runtime = Runtime(
        accelerator="gpu",
        precision="bf16-mixed",
        compile=bool(switches.get("compile")),
        checkpoint_activations=bool(switches.get("checkpoint")),
    )
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch, name) for name in ("artifact", "work")]
        for folder in folders:
            folder.mkdir()
        stage.run({}, StageContext("benchmark", *folders, runtime))


# ---- TRL -------------------------------------------------------------------------------------------------------------
def with_trl(work: Work, rows: Any, clock: Clock, switches: Mapping[str, bool]) -> None:
    """Train by TRL's trainers with Liger's kernels."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "CI": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    import trl
    from datasets import Dataset
    from transformers import TrainerCallback

    class Ticking(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if clock.tick():
                raise Done

    with tempfile.TemporaryDirectory() as folder:
        common: dict[str, Any] = {
            "output_dir": folder,
            "per_device_train_batch_size": work.batch,
            "max_steps": 16,
            "report_to": "none",
            "save_strategy": "no",
            "logging_strategy": "no",
            "disable_tqdm": True,
            "learning_rate": 1e-5,
            "bf16": True,
            "gradient_checkpointing": bool(switches.get("checkpoint")),
            "use_liger_kernel": True,
            "max_length": None,
            "seed": 0,
        }
        also = {"processing_class": tokenizer_of(), "callbacks": [Ticking()]}
        if not work.pairs:
            data = Dataset.from_list([{"input_ids": a[0]} for _, a in rows])
            trl.SFTTrainer(model_of(work.size), trl.SFTConfig(**common), train_dataset=data, **also).train()
            return

        class Tokenised(trl.DPOTrainer):  # type: ignore[misc]
            def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
                return dataset

        data = Dataset.from_list([{"prompt_ids": p, "chosen_ids": a[0], "rejected_ids": a[1]} for p, a in rows])
        arguments = trl.DPOConfig(precompute_ref_log_probs=True, **common)
        Tokenised(model_of(work.size), args=arguments, train_dataset=data, **also).train()


if __name__ == "__main__":
    main()
